"""Outcomes and measurements of one system into per-item scores, and those into intervals by patient.

An *answer flip* is a margin of the own answer over its counterfactual that is above zero on the clean image and no
longer is under a condition. Specificity is the flip in the lesion minus that in the control, item by item.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from clinalign.evaluation import statistics as S
from clinalign.evaluation.metrics import (
    ABLATIONS,
    FLIPS,
    REMOVED,
    VQA_TASKS,
    Kind,
    Metric,
    balanced_columns,
    patient,
    values,
)
from clinalign.evaluation.options import SummaryOptions
from clinalign.evaluation.text import plain
from clinalign.language.parse_question import parse_question
from clinalign.records import Example, Measurement, Outcome

Values = Mapping[str, float]
"""example id -> value, nan = not scored"""

BySeed = Mapping[int, Values]
Table = dict[str, dict[int, dict[str, float]]]
"""metric -> seed -> example id -> value, for one system."""

Margins = dict[tuple[str, str, str], float]
"""Margins by condition, system and example id."""

ById = Mapping[str, Example]
DIGITS = 6
NOISED = ("lesion_noise", "control")
SPECIFIC = {
    "specificity": ("flip_lesion_noise", "flip_control"),
    "specificity_counterfactual": ("flip_counterfactual", "flip_control"),
    "specificity_inpainted": ("flip_inpainted", "flip_control"),
    "matched_counterfactual": ("flip_counterfactual", "flip_control_counterfactual"),
    "matched_inpainted": ("flip_inpainted", "flip_control_inpainted"),
    "answers_matched_counterfactual": ("changed_counterfactual", "changed_control_counterfactual"),
    "answers_matched_inpainted": ("changed_inpainted", "changed_control_inpainted"),
}
"""Difference -> flips in the lesion, and those elsewhere that are taken from them; matched: by the same operation;
answers: of what is said, not of the margin, which knows no answer but the two that it compares."""

UNDER = {
    "flip_": FLIPS,
    "changed_": (*FLIPS, *ABLATIONS),
    "accuracy_": (*FLIPS, *ABLATIONS),
    "premise_corrected_": REMOVED,
}
"""How metrics under another condition begin, and which there are; the first are of margins, the others of answers."""


def conditions_of(metric: str) -> tuple[set[str], bool]:
    """The conditions beside the clean one that a metric is of, and whether it needs the answers under flips.

    "matched_inpainted": inpainted and control_inpainted, by margins; "right": none.
    """
    found, said = set(), False
    for part in SPECIFIC.get(metric, (metric,)):
        for prefix, those in UNDER.items():
            condition = part.removeprefix(prefix)
            if condition != part and condition in those:
                found.add(condition)
                said = said or (prefix != "flip_" and condition in FLIPS)
    return found, said


def collect(
    outcomes: Sequence[Outcome],
    measurements: Sequence[Measurement],
    known: ById,
    system: str,
    base: Mapping[str, Outcome],
    options: SummaryOptions,
    own: Sequence[Metric] = (),
) -> Table:
    """The table of `system`; `base`: the baseline's clean outcomes by example."""
    table: Table = defaultdict(lambda: defaultdict(dict))
    mine = [o for o in outcomes if o.system == system]
    clean = {(o.seed, o.example_id): o for o in mine if o.condition == "clean"}
    for outcome in mine:
        name, seed = outcome.example_id, outcome.seed
        if outcome.condition == "clean":
            scores = values(outcome, known[name], base.get(name), own)
        else:
            scores = _again(outcome, known[name], clean.get((seed, name)))
        for metric, value in scores.items():
            table[metric][seed][name] = value
    _add_measurements(table, [m for m in measurements if m.system == system and m.value is not None], options)
    for name, (lesion, elsewhere) in SPECIFIC.items():
        for seed, flips in table.get(lesion, {}).items() if elsewhere in table else ():
            control = table[elsewhere].get(seed, {})
            table[name][seed] = {e: flips[e] - control[e] for e in flips if e in control}
    _add_areas(table, options.sigma)
    return table


def _again(outcome: Outcome, example: Example, before: Outcome | None) -> dict[str, float]:
    """Scores of an answer under another condition, beside the clean one: right, and changed. Without the image the
    words count; with less evidence the claim, and the words where one of the two cannot be read."""
    condition = outcome.condition
    score = math.nan if outcome.correct is None else float(outcome.correct)
    scores = {f"accuracy_{condition}": score} if example.task in VQA_TASKS else {}
    if before is not None:
        differs = plain(before.text) != plain(outcome.text)
        left, right = before.slots.get("said"), outcome.slots.get("said")
        if condition not in ABLATIONS and left and right:
            differs = left != right
        scores[f"changed_{condition}"] = float(differs)
    if condition in REMOVED and _asked(outcome, example) in ("slot", "open"):
        scores[f"premise_corrected_{condition}"] = float("none" in (outcome.slots.get("said") or {}).values())
    return scores


def _asked(outcome: Outcome, example: Example) -> str | None:
    """The kind of the question. The judge reads none of an empty answer, which would leave silence out of a share."""
    if outcome.text.strip():
        return outcome.slots.get("asked")
    asked = parse_question(example.question, example.answer, example.task, example.slots)
    return asked.kind if asked is not None else None


def _add_measurements(table: Table, measurements: Sequence[Measurement], options: SummaryOptions) -> None:
    """Measurements under their names; margins under their condition, with the flips that they mean. The name of a level
    other than the recipe's noise ends in it."""
    before = {(m.seed, m.example_id): m.value for m in measurements if (m.name, m.condition) == ("margin", "clean")}
    for m in measurements:
        assert m.value is not None
        at = "" if m.level is None or (m.name == "margin" and m.level == options.sigma) else f"@{m.level:g}"
        name = f"margin_{m.condition}" if m.name == "margin" else m.name
        table[f"{name}{at}"][m.seed][m.example_id] = m.value
        clean = before.get((m.seed, m.example_id))
        if m.name == "margin" and m.condition != "clean" and clean is not None and clean > 0:
            table[f"flip_{m.condition}{at}"][m.seed][m.example_id] = float(_flip(clean, m.value))


def _flip(before: float, after: float) -> bool:
    """Whether an answer that is preferred to its counterfactual no longer is."""
    return before > 0 and after <= 0


def margins_of(measurements: Sequence[Measurement], sigma: float) -> Margins:
    """The margins of one noise level, of several seeds those of the first."""
    found: Margins = {}
    for m in measurements:
        if m.name == "margin" and m.value is not None and m.level in (None, sigma):
            found.setdefault((m.condition, m.system, m.example_id), m.value)
    return found


def flipped(margins: Margins, condition: str, system: str, example: str) -> bool:
    """Whether a system's answer to an example flips under a condition; false where it was not measured."""
    before, after = margins.get(("clean", system, example)), margins.get((condition, system, example))
    return before is not None and after is not None and condition != "clean" and _flip(before, after)


def _add_areas(table: Table, sigma: float) -> None:
    """Adds to the table each item's area under its flips from no noise (no flip) to the strongest level, over the
    strongest level: `area_lesion_noise`, `area_control`, and `area_specificity`, their difference."""
    for condition in NOISED:
        columns = levels_of(table, f"flip_{condition}", sigma)
        for seed in table[columns[0][1]] if len(columns) > 1 else ():
            rows = [table[column].get(seed, {}) for _, column in columns]
            for name in rows[0]:
                if all(name in row for row in rows):
                    curve, levels = [0.0, *(row[name] for row in rows)], [0.0, *(level for level, _ in columns)]
                    table[f"area_{condition}"][seed][name] = float(np.trapezoid(curve, levels) / levels[-1])
    for seed, areas in table.get("area_lesion_noise", {}).items():
        control = table.get("area_control", {}).get(seed, {})
        table["area_specificity"][seed] = {e: areas[e] - control[e] for e in areas if e in control}


def levels_of(table: Table, name: str, main: float | None = None) -> list[tuple[float, str]]:
    """The levels of a measure in order, each with its column; `main`: the level that its plain name stands for."""
    found = [(float(column.partition("@")[2]), column) for column in table if column.startswith(f"{name}@")]
    return sorted([*found, (main, name)] if main is not None and name in table else found)


def averaged(by_seed: BySeed) -> dict[str, float]:
    """Each question's mean over the seeds that scored it."""
    names, scores = matrix(by_seed)
    return dict(zip(names, S.per_question(scores), strict=True)) if names else {}


def matrix(by_seed: BySeed) -> tuple[list[str], np.ndarray]:
    """Questions in sorted order, and values [seeds, n]."""
    names = sorted({name for row in by_seed.values() for name in row})
    rows = [[row.get(name, math.nan) for name in names] for _, row in sorted(by_seed.items())]
    return names, np.array(rows, float)


def interval(scores: Values, known: ById, options: SummaryOptions, kind: Kind = "number") -> dict[str, Any]:
    """Mean of the values with its interval by patient, of the kind of their metric."""
    patients = [patient(known[name]) for name in scores]
    bounded: S.Kind = "mean" if kind == "number" else kind
    return S.mean_interval(
        list(scores.values()), patients, level=options.level, resamples=options.resamples, kind=bounded
    ).as_dict()


def compared(a: Values, b: Values, known: ById, options: SummaryOptions, kind: Kind) -> dict[str, Any] | None:
    """The paired comparison a - b of two systems on one metric; None where they share no question."""
    shared = sorted(a.keys() & b.keys())
    if not shared:
        return None
    result = S.compare(
        [a[name] for name in shared],
        [b[name] for name in shared],
        [patient(known[name]) for name in shared],
        level=options.level,
        resamples=options.resamples,
        permutations=options.permutations,
        kind="difference" if kind == "share" else "mean",
    )
    return result.as_dict()


def seeds(by_seed: BySeed) -> dict[str, Any]:
    """Spread between seeds and within questions, apart."""
    _, scores = matrix(by_seed)
    return {"values": sorted(by_seed), **(S.seed_spread(scores) if scores.size else {})}


def grouped(
    score: Values, known: ById, group: Callable[[Example], str], options: SummaryOptions
) -> dict[str, dict[str, Any]]:
    """Accuracy with its interval by group of questions."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for name, value in score.items():
        found[group(known[name])][name] = value
    return {key: interval(found[key], known, options, "share") for key in sorted(found)}


def balanced(score: Values, known: ById, options: SummaryOptions) -> dict[str, Any] | None:
    """Mean of the recall on yes and on no, with its interval; None without yes/no questions."""
    columns, patients, combine = balanced_columns(score, known)
    if not len(columns):
        return None
    behind = min(len({p for p, row in zip(patients, columns, strict=True) if row[at]}) for at in (1, 3))
    return S.ratio_interval(columns, patients, combine, level=options.level, share=True, behind=behind).as_dict()


def rounded(value: Any) -> Any:
    """Six decimals: beyond them numbers may differ between machines. Not a number becomes None."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return round(value, DIGITS) if math.isfinite(value) else None
    return value
