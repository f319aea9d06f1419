"""Does the answer lean on the lesion? The margin of a system's own answer over its counterfactual, with less evidence.

The own clean answer is kept and edited minimally into another claim; both are scored by teacher forcing on the clean
image and on images whose lesion is noised, inpainted or truly absent, and on one whose control patch is noised. A flip
is a margin that was above zero and no longer is. Specificity is the flip rate in the lesion minus that in the control.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clinalign.errors import RowError
from clinalign.evaluation.margin import Contest, margins
from clinalign.evaluation.options import EvaluationOptions
from clinalign.evaluation.vqa import VQA_TASKS
from clinalign.language.edit import edit
from clinalign.lesions.variants import example_conditions
from clinalign.records import Example, Outcome

JUDGE = "margin"


def can_flip(example: Example) -> bool:
    """Whether a question is about one finding whose region is known."""
    located = bool(example.regions) and (example.regions[0].box is not None or example.regions[0].mask is not None)
    return located and bool(example.images) and example.task in VQA_TASKS


def flip_outcomes(
    vlm: Any, examples: Sequence[Example], clean: Mapping[str, Outcome], folder: Path, options: EvaluationOptions
) -> list[Outcome]:
    """One outcome an example and condition of `options.flips`, with `metrics` margin, margin_clean and, where the own
    answer was preferred on the clean image, flipped (0 or 1). One that could not be measured has a reason instead. For
    removal `slots["evidence"]` says whether it was the exact twin or inpainting.
    """
    contests: list[Contest] = []
    places: list[tuple[str, str]] = []
    reasons: dict[tuple[str, str], str] = {}
    for example in examples:
        try:
            own, other = _answers(vlm, example, clean[example.id].text)
            shown = example_conditions(example, folder, vlm, sigma=options.sigma)
        except RowError as error:
            reasons |= {(condition, example.id): error.reason for condition in options.flips}
            continue
        for condition in ("clean", *options.flips):
            if condition in shown:
                contests.append(Contest(example.question, shown[condition], own, other))
                places.append((condition, example.id))
            else:
                reasons[condition, example.id] = "cannot_be_drawn"
    found = dict(zip(places, margins(vlm, contests, batch_size=options.batch_size), strict=True))
    return [_outcome(e, clean[e.id], c, found, reasons) for c in options.flips for e in examples]


def _answers(vlm: Any, example: Example, text: str) -> tuple[list[int], list[int]]:
    """Token ids, EOS included, of the own answer and of its counterfactual edit."""
    rng = random.Random(example.id)
    slots = dict(example.meta.get("slots") or {})
    edited = edit(example.question, text, example.answer, slots, rng, task=example.task)
    end = vlm.eos_ids[:1]
    own, other = (vlm.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (text, edited.text))
    return list(own) + end, list(other) + end


def _outcome(
    example: Example,
    clean: Outcome,
    condition: str,
    found: Mapping[tuple[str, str], float],
    reasons: Mapping[tuple[str, str], str],
) -> Outcome:
    name = example.id
    metrics: dict[str, float] = {}
    if (condition, name) in found:
        before, after = found["clean", name], found[condition, name]
        metrics = {"margin": after, "margin_clean": before}
        if before > 0:
            metrics["flipped"] = float(after <= 0)
    return replace(
        clean,
        condition=condition,
        correct=None,
        judge=JUDGE,
        reason=reasons.get((condition, name), ""),
        slots={"evidence": "twin" if example.meta.get("twin") else "inpaint"} if condition == "removal" else {},
        metrics=metrics,
    )
