"""Values by seed and question into intervals by patient."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from clinalign.evaluation import statistics as S
from clinalign.evaluation import vqa
from clinalign.evaluation.options import EvaluationOptions
from clinalign.records import Example

Values = Mapping[str, float]
"""example id -> value, nan = not scored"""

BySeed = Mapping[int, Values]
Table = dict[str, dict[int, dict[str, float]]]
"""metric -> seed -> example id -> value, for one system."""

Known = Mapping[str, Example]
DIGITS = 6


def averaged(by_seed: BySeed) -> dict[str, float]:
    """Each question's mean over the seeds that scored it."""
    names, values = matrix(by_seed)
    return dict(zip(names, S.per_question(values), strict=True)) if names else {}


def matrix(by_seed: BySeed) -> tuple[list[str], np.ndarray]:
    """Questions in sorted order, and values [seeds, n]."""
    names = sorted({name for row in by_seed.values() for name in row})
    rows = [[row.get(name, math.nan) for name in names] for _, row in sorted(by_seed.items())]
    return names, np.array(rows, float)


def interval(
    values: Values, known: Known, options: EvaluationOptions, share: bool = False, *, difference: bool = False
) -> dict[str, Any]:
    """Mean of the values with its interval by patient; `share`: they are shares of something, `difference`: of two."""
    patients = [vqa.patient(known[name]) for name in values]
    kind: S.Kind = "share" if share else "difference" if difference else "mean"
    return S.mean_interval(
        list(values.values()), patients, level=options.level, resamples=options.resamples, kind=kind
    ).as_dict()


def seeds(by_seed: BySeed) -> dict[str, Any]:
    """Spread between seeds and within questions, apart."""
    _, values = matrix(by_seed)
    return {"values": sorted(by_seed), **(S.seed_spread(values) if values.size else {})}


def groups(
    score: Values, known: Known, group: Callable[[Example], str], options: EvaluationOptions
) -> dict[str, dict[str, Any]]:
    """Accuracy with its interval by group of questions."""
    grouped: dict[str, dict[str, float]] = defaultdict(dict)
    for name, value in score.items():
        grouped[group(known[name])][name] = value
    return {key: interval(grouped[key], known, options, True) for key in sorted(grouped)}


def balanced(score: Values, known: Known, options: EvaluationOptions) -> dict[str, Any] | None:
    """Mean of the recall on yes and on no, with its interval; None without yes/no questions."""
    columns, patients, combine = vqa.balanced_columns(score, known)
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
