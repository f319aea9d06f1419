"""Tests between systems whose questions come in patients, and what a set could show at all; see `intervals`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from clinalign.errors import UsageError
from clinalign.evaluation.intervals import (
    CHUNK,
    Array,
    Interval,
    Kind,
    Labels,
    by_patient,
    effective_patients,
    mean_interval,
    pooled,
    ratio_interval,
    scored,
    standard_error,
    weights_interval,
)

EXACT_CLUSTERS = 14  # up to: all 2^G sign patterns are enumerated
__all__ = [
    "Comparison", "Interval", "Kind", "compare", "effective_patients", "holm", "mcnemar", "mean_interval",
    "minimum_detectable", "per_question", "ratio_interval", "seed_spread", "sign_flip", "weights_interval",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the same questions: mean of `a - b`, its interval, p and the smallest difference one could see."""

    difference: Interval
    p: float | None
    test: str
    minimum_detectable: float | None

    def as_dict(self) -> dict[str, Any]:
        tested = {"p": self.p, "test": self.test, "minimum_detectable": self.minimum_detectable}
        return self.difference.as_dict() | tested


def compare(
    a: Sequence[float] | Array,
    b: Sequence[float] | Array,
    patients: Labels,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
    kind: Kind = "mean",
) -> Comparison:
    """Paired comparison of two systems; `a` and `b` are [n], or [seeds, n] (averaged per question first).

    `kind` "difference" where both are shares, so that a - b lies between -1 and 1; see `mean_interval`. Questions that
    either system left unscored are left out. The test is the sign-flip test by patient; with one item a patient and 0/1
    values it is the exact McNemar test, which is the same thing enumerated.
    """
    left, right = per_question(a), per_question(b)
    if len(left) != len(right):
        raise UsageError(
            f"statistics: {len(left)} values of one system, {len(right)} of the other; pair them by question"
        )
    kept, labels = scored(left - right, patients)
    interval = mean_interval(kept, labels, level=level, resamples=resamples, seed=seed, kind=kind)
    if len(kept) == 0:
        return Comparison(interval, None, "none", None)
    single = len(np.unique(labels)) == len(labels)
    test = "sign flip by patient"
    if single and np.isin(kept, (-1, 0, 1)).all():
        p, test = mcnemar(int((kept == 1).sum()), int((kept == -1).sum())), "exact McNemar"
    else:
        p = sign_flip(kept, labels, permutations=permutations, seed=seed)
    return Comparison(interval, p, test, minimum_detectable(kept, labels))


def sign_flip(
    differences: Sequence[float] | Array, patients: Labels, *, permutations: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p of "no difference": the sign of each patient's summed difference is flipped at random.

    Exact (all patterns) up to 14 patients whose sum is not zero, otherwise `permutations` draws and (1 + k) / (1 + m).
    """
    differences, patients = scored(np.asarray(differences, float), patients)
    sums = by_patient(differences[:, None], patients)[:, 0]
    sums = sums[np.abs(sums) > 1e-12]  # a zero sum is unchanged by its sign
    if len(sums) == 0:
        return 1.0
    observed = abs(sums.sum()) - 1e-9 * max(1.0, np.abs(sums).sum())
    if len(sums) <= EXACT_CLUSTERS:
        patterns = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1
        return float((np.abs((2 * patterns - 1) @ sums) >= observed).mean())
    rng = np.random.default_rng(seed)
    extreme = 0
    for start in range(0, permutations, CHUNK):
        size = min(CHUNK, permutations - start)
        signs = rng.integers(0, 2, size=(size, len(sums)), dtype=np.int8).astype(float)
        extreme += int((np.abs(2 * (signs @ sums) - sums.sum()) >= observed).sum())
    return (1 + extreme) / (1 + permutations)


def mcnemar(only_a: int, only_b: int, patients: Sequence[Any] | None = None) -> float:
    """Exact two-sided McNemar p from the discordant counts. Refused where a patient has more than one item."""
    if patients is not None and len(set(patients)) != len(patients):
        raise UsageError("mcnemar: patients have several items, false positives reach 10-18 %; use sign_flip instead")
    discordant = only_a + only_b
    return float(stats.binomtest(only_a, discordant).pvalue) if discordant else 1.0


def holm(p_values: Mapping[Any, float | None]) -> dict[Any, float | None]:
    """Holm-adjusted p values by key (Holm 1979); None (no test) stays None and does not count as a test."""
    tested = sorted((p, i, key) for i, (key, p) in enumerate(p_values.items()) if p is not None)
    adjusted: dict[Any, float | None] = dict.fromkeys(p_values)
    running = 0.0
    for rank, (p, _, key) in enumerate(tested):
        running = max(running, min(1.0, (len(tested) - rank) * p))
        adjusted[key] = running
    return adjusted


def minimum_detectable(
    differences: Sequence[float] | Array, patients: Labels, *, power: float = 0.8, level: float = 0.95
) -> float | None:
    """Smallest true mean difference that a test at `1 - level` finds with `power`, given this set's size and spread.

    None where the two systems never differ: then nothing is known about the spread.
    """
    differences, patients = scored(np.asarray(differences, float), patients)
    sums = by_patient(np.stack([differences, np.ones_like(differences)], 1), patients)
    if len(sums) < 2:
        return None
    error = standard_error(sums, pooled)
    freedom = effective_patients(patients) - 1
    scale = stats.t.ppf(0.5 + level / 2, freedom) + stats.t.ppf(power, freedom)
    return float(scale * error) if error > 1e-12 else None


def seed_spread(values: Array) -> dict[str, Any]:
    """Variance between training seeds and within questions, apart, for `values` [seeds, n] (two-way, no replicates).

    `between_seed_variance` is what changing the seed does to the whole set's mean beyond question noise;
    `within_question_variance` is how much one question's result moves from seed to seed. Both are None for one seed.
    """
    values = np.atleast_2d(np.asarray(values, float))
    values = values[:, ~np.isnan(values).any(0)]
    seeds, n = values.shape
    means = values.mean(1) if n else np.full(seeds, np.nan)
    result: dict[str, Any] = {
        "seeds": seeds,
        "seed_means": [float(m) if n else None for m in means],
        "seed_sd": None,
        "between_seed_variance": None,
        "within_question_variance": None,
    }
    if seeds < 2 or n < 2:
        return result
    residual = values - values.mean(0) - means[:, None] + values.mean()
    within = float((residual**2).sum() / ((seeds - 1) * (n - 1)))
    between = float(means.var(ddof=1))
    result["seed_sd"] = math.sqrt(between)
    result["between_seed_variance"] = max(0.0, between - within / n)
    result["within_question_variance"] = within
    return result


def per_question(values: Sequence[float] | Array) -> Array:
    """[seeds, n] or [n] to [n]: the mean over the seeds that scored the question, nan where none did."""
    values = np.atleast_2d(np.asarray(values, float))
    scored = ~np.isnan(values)
    count = scored.sum(0)
    return np.where(count > 0, np.where(scored, values, 0).sum(0) / np.maximum(count, 1), np.nan)


def frontier(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Of (share, drift) points, which no other beats: at least as right with as little drift, and better in one."""
    return [
        not any(a >= accuracy and d <= drift and (a, d) != (accuracy, drift) for a, d in points)
        for accuracy, drift in points
    ]
