"""Does the answer lean on the lesion? The margin of a system's own answer over its counterfactual, with less evidence.

The own clean answer is kept and edited minimally into another claim; both are scored by teacher forcing on the clean
image and on images whose lesion is noised, inpainted or truly absent, and on one whose control patch is noised. A flip
is a margin that was above zero and no longer is. Specificity is the flip rate in the lesion minus that in the control.
With several noise levels there is also the area under the curve of flips, from no noise to the strongest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clinalign.errors import RowError
from clinalign.evaluation.answer_pairs import AnswerPair, Choices, answer_pair, margins
from clinalign.evaluation.answering import answers
from clinalign.evaluation.byquestion import Known, Table, averaged, interval
from clinalign.evaluation.judge import verdict
from clinalign.evaluation.options import EvaluationOptions
from clinalign.evaluation.text import plain
from clinalign.evaluation.vqa import VQA_TASKS
from clinalign.lesions.variants import example_conditions
from clinalign.records import Example, Outcome

JUDGE = "margin"
FLIPS = ("lesion_noise", "control", "removal")
NOISED = ("lesion_noise", "control")
Shown = Mapping[str, list[np.ndarray]]


def can_flip(example: Example) -> bool:
    """Whether a question is about one finding whose region is known."""
    located = bool(example.regions) and (example.regions[0].box is not None or example.regions[0].mask is not None)
    return located and bool(example.images) and example.task in VQA_TASKS


def flip_outcomes(
    vlm: Any,
    examples: Sequence[Example],
    clean: Mapping[str, Outcome],
    folder: Path,
    options: EvaluationOptions,
    choices: Choices,
) -> list[Outcome]:
    """One outcome an example and condition of `options.flips`, with `metrics` margin, margin_clean and, where the own
    answer was preferred on the clean image, flipped (0 or 1); for further noise levels margin@SD and flipped@SD. One
    that could not be measured has a reason instead. For removal `slots["evidence"]` says whether it was the exact twin
    or inpainting. With `options.flip_answers` the text is what is answered under the condition, and answer_changed
    says whether it claims something else.
    """
    asked: list[AnswerPair] = []
    places: list[tuple[str, str]] = []
    reasons: dict[tuple[str, str], str] = {}
    images: dict[str, Shown] = {}
    for example in examples:
        try:
            pair = answer_pair(vlm, example, clean[example.id].text, choices)
            shown = _shown(vlm, example, folder, options)
        except RowError as error:
            reasons |= {(condition, example.id): error.reason for condition in options.flips}
            continue
        images[example.id] = shown
        reasons |= {(c, example.id): "cannot_be_drawn" for c in options.flips if c not in shown}
        asked += [replace(pair, images=view) for view in shown.values()]
        places += [(condition, example.id) for condition in shown]
    found = dict(zip(places, margins(vlm, asked, batch_size=options.batch_size), strict=True))
    out = [_outcome(e, clean[e.id], c, found, reasons) for c in options.flips for e in examples]
    return _answered(vlm, out, examples, clean, images, options) if options.flip_answers else out


def _shown(vlm: Any, example: Example, folder: Path, options: EvaluationOptions) -> dict[str, list[np.ndarray]]:
    """The images of every condition asked for, those of a further noise level under condition@SD."""
    drawn = example_conditions(example, folder, vlm, sigma=options.sigma)
    shown = {c: drawn[c] for c in ("clean", *options.flips) if c in drawn}
    for level in options.flip_levels:
        again = example_conditions(example, folder, vlm, sigma=level)
        shown |= {f"{c}@{level:g}": again[c] for c in NOISED if c in shown and c in again}
    return shown


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
        before = found["clean", name]
        metrics = {"margin": found[condition, name], "margin_clean": before}
        further = [(c, n) for c, n in found if n == name and c.startswith(f"{condition}@")]
        metrics |= {f"margin{c.removeprefix(condition)}": found[c, name] for c, _ in further}
        if before > 0:
            flipped = {f"flipped{k.removeprefix('margin')}": float(v <= 0) for k, v in metrics.items()}
            metrics |= {k: v for k, v in flipped.items() if k != "flipped_clean"}
    return replace(
        clean,
        condition=condition,
        correct=None,
        judge=JUDGE,
        reason=reasons.get((condition, name), ""),
        slots={"evidence": "twin" if example.counterfactual else "inpaint"} if condition == "removal" else {},
        metrics=metrics,
    )


def _answered(
    vlm: Any,
    outcomes: list[Outcome],
    examples: Sequence[Example],
    clean: Mapping[str, Outcome],
    images: Mapping[str, Shown],
    options: EvaluationOptions,
) -> list[Outcome]:
    """The outcomes with what is answered under their condition, where it could be drawn."""
    by_id = {example.id: example for example in examples}
    asked = [o for o in outcomes if o.condition in images.get(o.example_id, {})]
    prompts = [(by_id[o.example_id].question, images[o.example_id][o.condition]) for o in asked]
    size = options.batch_size
    said = [new for k in range(0, len(prompts), size) for new in answers(vlm, prompts[k : k + size], options)]
    again = {
        (o.condition, o.example_id): replace(
            o,
            text=new.text,
            metrics=o.metrics
            | {"answer_changed": float(_differs(by_id[o.example_id], clean[o.example_id].text, new.text))},
        )
        for o, new in zip(asked, said, strict=True)
    }
    return [again.get((o.condition, o.example_id), o) for o in outcomes]


def _differs(example: Example, before: str, after: str) -> bool:
    """Whether two answers claim different things; where one of them cannot be read, whether the words differ."""
    left, right = (verdict(example, text)[2].get("said") for text in (before, after))
    return left != right if left and right else plain(before) != plain(after)


def add_areas(table: Table, options: EvaluationOptions) -> None:
    """Adds to the table each question's area under its flips from no noise (no flip) to the strongest level, over the
    strongest level: `area_lesion_noise`, `area_control`, and `area_specificity`, their difference.
    """
    levels = sorted({*options.flip_levels, options.sigma})
    for condition in NOISED if len(levels) > 1 else ():
        columns = [table.get(_column(condition, level, options), {}) for level in levels]
        for seed in columns[0]:
            rows = [column.get(seed, {}) for column in columns]
            for name in rows[0]:
                if all(name in row for row in rows):
                    curve = [0.0, *(row[name] for row in rows)]
                    table[f"area_{condition}"][seed][name] = float(np.trapezoid(curve, [0.0, *levels]) / levels[-1])
    for seed, areas in table.get("area_lesion_noise", {}).items():
        control = table.get("area_control", {}).get(seed, {})
        table["area_specificity"][seed] = {e: areas[e] - control[e] for e in areas if e in control}


def _column(condition: str, level: float, options: EvaluationOptions) -> str:
    return f"flip_{condition}" if level == options.sigma else f"flip_{condition}@{level:g}"


def causal_summary(table: Table, known: Known, options: EvaluationOptions) -> dict[str, Any]:
    """Flips by noise level, the areas under them, flips under the exact twin, and changed answers, with intervals."""

    def shown(name: str, share: bool = True) -> dict[str, Any]:
        return interval(averaged(table[name]), known, options, share, difference=not share)

    out: dict[str, Any] = {}
    levels = sorted({*options.flip_levels, options.sigma})
    rows = []
    for level in levels:
        names = {"lesion": _column("lesion_noise", level, options), "control": _column("control", level, options)}
        found = {key: shown(name) for key, name in names.items() if name in table}
        if found:
            rows.append({"sigma": level, **found})
    if rows:
        out["levels"] = rows
    for key, name in (("area_lesion", "area_lesion_noise"), ("area_control", "area_control")):
        if name in table:
            out[key] = shown(name)
    if table.get("area_specificity"):
        out["area_specificity"] = shown("area_specificity", False)
    if "flip_twin" in table:
        out["twin"] = shown("flip_twin")
    again = {c: {"changed": shown(f"answer_changed_{c}")} for c in FLIPS if f"answer_changed_{c}" in table}
    return out | ({"answers": again} if again else {})
