"""Does the answer lean on the lesion? The margin of a system's own answer over its counterfactual, with less evidence.

The own clean answer is kept and edited minimally into another claim; both are scored by teacher forcing on the clean
image and on images whose lesion is noised, inpainted or truly absent, and on one whose control patch is noised. The
same margin on the clean image alone is how sure the model is of a yes or no: the probability of an answer is
1 / (1 + exp(-margin)), so that it asks nothing of the wording.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clinalign.errors import RowError
from clinalign.evaluation.metrics import PAINTED, PROBABILITY, VQA_TASKS, truth
from clinalign.language.align import Edit
from clinalign.language.edit import edit
from clinalign.lesions.variants import MATCHED, example_conditions
from clinalign.measuring.asking import own_images
from clinalign.measuring.options import EvaluationOptions
from clinalign.models.features import from_arrays
from clinalign.models.tree import fork_of, score, tree_of
from clinalign.records import Example, Outcome, without_finding

NOISED = ("lesion_noise", "control")
MARGIN = "margin"
Choices = Mapping[str, Sequence[str]]
Rows = dict[str, list[Any]]
"""By example id: [condition, name, value, level, reason] of each measurement."""


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """Two answers to one prompt as token ids, their end included; `images` are uint8 [H, W, 3]."""

    prompt: str
    images: Sequence[np.ndarray]
    answer: list[int]
    counterfactual: list[int]


@dataclass(frozen=True, slots=True)
class Paired:
    """A clean answer and, where one is known, its edit into another claim; otherwise why there is none."""

    text: str
    pair: AnswerPair | None = None
    edit: Edit | None = None
    reason: str = ""

    @property
    def key(self) -> list[Any]:
        """What a measurement of it depends on, as plain values."""
        edited = [self.edit.text, self.edit.was_correct] if self.edit is not None else []
        return [self.text, edited, self.reason]


def counterfactual(example: Example, text: str, choices: Choices) -> Edit:
    """The minimal edit of an answer into another claim; raises RowError where none is known. The same in every run."""
    slots = dict(example.slots)
    rng = random.Random(example.id)
    return edit(example.question, text, example.answer, slots, rng, task=example.task, choices=choices)


def paired(vlm: Any, example: Example, text: str, choices: Choices) -> Paired:
    """An answer beside its counterfactual as both are scored."""
    try:
        edited = counterfactual(example, text, choices)
    except RowError as error:
        return Paired(text, reason=error.reason)
    end = [vlm.end_id]
    answer, other = (list(vlm.tokenizer(t, add_special_tokens=False)["input_ids"]) + end for t in (text, edited.text))
    return Paired(text, AnswerPair(example.prompt, (), answer, other), edited)


def margins(vlm: Any, pairs: Sequence[AnswerPair], *, batch_size: int) -> list[float]:
    """Log-likelihood margins `log p(answer) - log p(counterfactual)`, whole answers, in the order of the pairs."""
    asked = [(pair.prompt, pair.images, [pair.answer, pair.counterfactual]) for pair in pairs]
    return [answer - other for answer, other in likelihoods(vlm, asked, batch_size=batch_size)]


def likelihoods(
    vlm: Any, asked: Sequence[tuple[str, Sequence[np.ndarray], Sequence[list[int]]]], *, batch_size: int
) -> list[list[float]]:
    """Log-likelihoods of several answers (token ids) to each prompt and its images, in their order."""
    features, keys = from_arrays(vlm, [images for _, images, _ in asked])
    trees = [
        tree_of(vlm, prompt, images, names, [fork_of(answers)])
        for (prompt, images, answers), names in zip(asked, keys, strict=True)
    ]
    scores = score(vlm, trees, features, batch_size=batch_size, rests=True)
    return [[float(answer.sum()) for answer in one.logps[0]] for one in scores]


def can_flip(example: Example) -> bool:
    """Whether a question is about one finding whose region is known."""
    located = bool(example.regions) and (example.regions[0].box is not None or example.regions[0].mask is not None)
    return located and bool(example.images) and example.task in VQA_TASKS


def condition_of(option: str, example: Example) -> str:
    """The condition that one of `evaluate.flips` is for an example: without an exact counterfactual, inpainting."""
    return option if without_finding(example) else PAINTED.get(option, option)


def drawn_images(example: Example, folder: Path, vlm: Any, sigma: float, condition: str) -> list[np.ndarray]:
    """An example's images under one condition; raises RowError where it cannot be drawn."""
    drawn = example_conditions(example, folder, vlm, sigma=sigma, matched=condition in MATCHED)
    if condition not in drawn:
        raise RowError("regions", "cannot_be_drawn")
    return drawn[condition]


def flip_rows(
    vlm: Any,
    examples: Sequence[Example],
    pairs: Mapping[str, Paired],
    folder: Path,
    options: EvaluationOptions,
    batch_size: int,
) -> Rows:
    """The margin on the clean image and under each condition of `options.flips`, the noise at further levels too (a
    row's level is the SD of the noise). What could not be measured has a reason."""
    asked: list[AnswerPair] = []
    at: list[tuple[str, str, float | None]] = []
    found: Rows = {}
    for example in examples:
        conditions = dict.fromkeys(condition_of(option, example) for option in options.flips)
        reason, shown = pairs[example.id].reason, {}
        pair = pairs[example.id].pair
        try:
            shown = _shown(vlm, example, folder, options) if pair is not None else {}
        except RowError as error:
            reason = error.reason
        missing = [c for c in conditions if not any(c == name for name, _ in shown)]
        found[example.id] = [[c, MARGIN, None, None, reason or "cannot_be_drawn"] for c in missing]
        if pair is not None and shown:
            asked += [replace(pair, images=images) for images in shown.values()]
            at += [(example.id, condition, level) for condition, level in shown]
    for (name, condition, level), value in zip(at, margins(vlm, asked, batch_size=batch_size), strict=True):
        found[name].append([condition, MARGIN, value, level, ""])
    return found


def _shown(
    vlm: Any, example: Example, folder: Path, options: EvaluationOptions
) -> dict[tuple[str, float | None], list[np.ndarray]]:
    """The images of every condition asked for, by condition and level of the noise."""
    wanted = [condition_of(option, example) for option in options.flips]
    matched = any(condition in MATCHED for condition in wanted)
    drawn = example_conditions(example, folder, vlm, sigma=options.sigma, matched=matched)
    shown: dict[tuple[str, float | None], list[np.ndarray]] = {("clean", None): drawn["clean"]}
    shown |= {(c, options.sigma if c in NOISED else None): drawn[c] for c in wanted if c in drawn}
    for level in options.flip_levels:
        again = example_conditions(example, folder, vlm, sigma=level)
        shown |= {(c, level): again[c] for c in NOISED if c in wanted and c in drawn and c in again}
    return shown


def own_margins(
    vlm: Any, examples: Sequence[Example], pairs: Mapping[str, Paired], folder: Path, batch_size: int
) -> Rows:
    """The margin on an example's images as they are; every example has a pair."""
    asked = []
    for example in examples:
        pair = pairs[example.id].pair
        assert pair is not None
        asked.append(replace(pair, images=own_images(example, folder)))
    values = margins(vlm, asked, batch_size=batch_size)
    return {e.id: [["clean", MARGIN, value, None, ""]] for e, value in zip(examples, values, strict=True)}


def probability_of_yes(example: Example, outcome: Outcome, rows: Sequence[Any]) -> list[Any]:
    """The measurement `p_yes` of a judged yes/no question from the margin of its own answer."""
    [[condition, _, margin, level, reason]] = rows
    said_yes = outcome.correct == (truth(example) == "yes")
    signed = margin if said_yes else -margin
    p = 1 / (1 + math.exp(-signed)) if signed >= 0 else math.exp(signed) / (1 + math.exp(signed))
    return [[condition, PROBABILITY, p, level, reason]]
