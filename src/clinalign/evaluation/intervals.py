"""Intervals of numbers that come in patients: never treat ten questions about one image as ten patients.

Values are one number a question (`nan` = not scored, left out and visible in `n`), `patients` one label a question.
All randomness is drawn from `seed` and depends only on the number of patients, so two systems on the same questions
share their resamples and the same input gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from clinalign.errors import UsageError

Array = np.ndarray
Labels = Sequence[Any] | np.ndarray
Kind = Literal["mean", "share", "difference"]
SHARE, DIFFERENCE = "Korn-Graubard", "Bonett-Price"
FEW_CLUSTERS = 30  # below: cluster-t; the percentile bootstrap covers 88 % with nine clusters
CHUNK = 512


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its interval; `low` and `high` are None where fewer than two patients carry a value, or where
    all of them agree on a value without bounds."""

    estimate: float | None
    low: float | None
    high: float | None
    n: int
    patients: int
    method: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def mean_interval(
    values: Sequence[float] | Array,
    patients: Labels,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    kind: Kind = "mean",
) -> Interval:
    """Mean over questions with an interval clustered by patient; patients may have different numbers of questions.

    `kind`: what the values are, and so what the interval cannot leave. "share": between 0 and 1, see `share_bounds`;
    "difference" of two such: between -1 and 1, see `difference_bounds`; "mean": any number, see `weights_interval`.
    Values outside their range are a `UsageError`.
    """
    values, patients = scored(np.asarray(values, float), patients)
    sums = by_patient(np.stack([values, np.ones_like(values)], axis=1), patients)
    n, count = len(values), len(sums)
    if kind == "mean" or count < 2:
        return weights_interval(lambda w: pooled(w @ sums), patients, level=level, resamples=resamples, seed=seed)
    if values.min() < (-1e-9 if kind == "share" else -1 - 1e-9) or values.max() > 1 + 1e-9:
        raise UsageError(f"statistics: {values.min():g} to {values.max():g} is no {kind}; use kind='mean'")
    # Patients who differ less than questions drawn at random would do so by luck alone: never below the latter.
    estimate, variance = (
        float(pooled(sums.sum(0))),
        max(standard_error(sums, pooled) ** 2, float(values.var()) / max(1, n - 1)),
    )
    if kind == "share":
        return Interval(estimate, *share_bounds(estimate, variance, count, level), n, count, SHARE)
    differing = float((values**2).mean())
    return Interval(estimate, *difference_bounds(estimate, differing, variance, count, level), n, count, DIFFERENCE)


def share_bounds(estimate: float, variance: float, patients: int, level: float = 0.95) -> tuple[float, float]:
    """Korn & Graubard's interval (Survey Methodology 1998) of anything between 0 and 1 with a clustered `variance`.

    The exact binomial interval (Clopper-Pearson) at the effective number of questions n = p (1 - p) / variance, scaled
    by (z / t)^2 with patients - 1 degrees of freedom. Without any spread the patients are the trials. By hand: p = 1
    for ten patients gives 0.025 ** (1 / 10) as the lower bound.
    """
    alpha, freedom = 1 - level, patients - 1
    trials = float(patients)
    if variance > 1e-12 and 0 < estimate < 1:
        shrink = stats.norm.ppf(alpha / 2) / stats.t.ppf(alpha / 2, freedom)
        trials = estimate * (1 - estimate) / variance * shrink**2
    hits, misses = estimate * trials, (1 - estimate) * trials
    low = float(stats.beta.ppf(alpha / 2, hits, misses + 1)) if hits > 0 else 0.0
    high = float(stats.beta.ppf(1 - alpha / 2, hits + 1, misses)) if misses > 0 else 1.0
    return low, high


def difference_bounds(
    estimate: float, differing: float, variance: float, patients: int, level: float = 0.95
) -> tuple[float, float]:
    """Bonett & Price's interval (J. Educ. Behav. Stat. 2012) of a mean paired difference with a clustered `variance`.

    A question for each system is added to the effective number n of questions (the variance of one question over
    `variance`): with d = n * estimate / (n + 2) and q = (n * differing + 2) / (n + 2), d -+ t sqrt((q - d^2) / (n + 2))
    with patients - 1 degrees of freedom. `differing` is the mean square of the differences, for answers right or wrong
    the share of questions on which the systems differ. Without any spread the patients are the questions, so that two
    systems that never differ on 60 patients are known to within 0.046.
    """
    single = differing - estimate**2
    trials = single / variance if variance > 1e-12 and single > 1e-12 else float(patients)
    centre = trials * estimate / (trials + 2)
    spread = (trials * differing + 2) / (trials + 2) - centre**2
    half = float(stats.t.ppf(0.5 + level / 2, patients - 1)) * math.sqrt(spread / (trials + 2))
    return max(-1.0, min(centre - half, estimate)), min(1.0, max(centre + half, estimate))


def ratio_interval(
    columns: Array,
    patients: Labels,
    combine: Callable[[Array], Array],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    share: bool = False,
    behind: int | None = None,
) -> Interval:
    """Interval of `combine(column sums)`, e.g. a ratio of sums; `columns` [n, K], `combine` maps [..., K] to [...]."""
    sums = by_patient(np.asarray(columns, float), patients)
    return weights_interval(
        lambda w: combine(w @ sums), patients, level=level, resamples=resamples, seed=seed, share=share, behind=behind
    )


def weights_interval(
    statistic: Callable[[Array], Array],
    patients: Labels,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    share: bool = False,
    behind: int | None = None,
) -> Interval:
    """Interval of any statistic of how often each patient counts, weights [..., G] in sorted order, to [...].

    `share`: it lies between 0 and 1 (an AUC, a calibration error): `share_bounds` with the variance of the jackknife
    that leaves out one patient, and `behind` patients (default: all; of an AUC the fewer of those with a positive and
    those with a negative). Otherwise, with 30 patients or more: bootstrap over patients, percentiles widened for the
    finite number of patients (Hesterberg 2015, "expanded percentile"); with fewer: jackknife standard error and a t
    quantile. Both count patients as the effective number `effective_patients`, lower where patients have unequal
    question counts. There is no interval where one patient decides whether there is a value at all, nor, but for
    shares, where all patients agree exactly.
    """
    n, count = len(patients), len(np.unique(np.asarray(patients)))
    estimate = float(statistic(np.ones(count))) if count else math.nan
    if count < 2 or not math.isfinite(estimate):
        return Interval(estimate if math.isfinite(estimate) else None, None, None, n, count, "none")
    left = np.concatenate([statistic(weights) for weights in _left_out(count)])
    error = _spread(left)
    if not np.isfinite(left).all() or (behind is not None and behind < 2):
        return Interval(estimate, None, None, n, count, "none")
    if share:
        return Interval(estimate, *share_bounds(estimate, error**2, behind or count, level), n, count, SHARE)
    if error <= 1e-12 * max(1.0, abs(estimate)):
        return Interval(estimate, None, None, n, count, "none")
    alpha = 1 - level
    effective = effective_patients(patients)
    quantile = float(stats.t.ppf(1 - alpha / 2, effective - 1))
    if count < FEW_CLUSTERS:
        half = quantile * error
        return Interval(estimate, estimate - half, estimate + half, n, count, "cluster-t")
    draws = np.concatenate([statistic(weights) for weights in _resamples(count, resamples, seed)])
    tail = stats.norm.cdf(-math.sqrt(effective / (effective - 1)) * quantile)
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high), n, count, "cluster bootstrap")


def effective_patients(patients: Labels) -> float:
    """G / (1 + CV^2) of the questions a patient, at least 2 (Carter, Schnepel & Steigerwald 2017)."""
    sizes = np.unique(np.asarray(patients), return_counts=True)[1]
    return max(2.0, float(sizes.sum() ** 2 / (sizes**2).sum()))


def scored(values: Array, patients: Labels) -> tuple[Array, Array]:
    """Values and labels of the questions that have a value; unequal lengths are a `UsageError`."""
    labels = np.asarray(patients)
    if len(labels) != len(values):
        raise UsageError(f"statistics: {len(values)} values but {len(labels)} patients; give one patient a question")
    keep = ~np.isnan(values)
    return values[keep], labels[keep]


def by_patient(columns: Array, patients: Labels) -> Array:
    """Column sums per patient, [G, K], patients in sorted order so that the order of questions does not matter."""
    if len(columns) != len(patients):
        raise UsageError(
            f"statistics: {len(columns)} questions but {len(patients)} patients; give one patient a question"
        )
    if len(columns) == 0:
        return np.zeros((0, columns.shape[1]))
    _, index = np.unique(np.asarray(patients), return_inverse=True)
    return np.stack([np.bincount(index, weights=column) for column in columns.T], axis=1)


def pooled(sums: Array) -> Array:
    """Sum over count of [..., 2]: the mean over questions."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., 0] / sums[..., 1]


def standard_error(sums: Array, combine: Callable[[Array], Array]) -> float:
    """Delete-one-patient standard error."""
    return _spread(combine(sums.sum(0) - sums))


def _spread(left: Array) -> float:
    """Jackknife standard error from the statistic with each patient left out."""
    left = left[np.isfinite(left)]
    return float(np.sqrt((len(left) - 1) / len(left) * ((left - left.mean()) ** 2).sum())) if len(left) > 1 else 0.0


def _left_out(count: int) -> Iterator[Array]:
    """Weights that leave out one patient each, in chunks of [<= 512, count]."""
    for start in range(0, count, CHUNK):
        own = np.arange(start, min(count, start + CHUNK))
        weights = np.ones((len(own), count))
        weights[np.arange(len(own)), own] = 0
        yield weights


def _resamples(count: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each patient is drawn in each resample, in chunks of [<= 512, count]."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        drawn = rng.integers(0, count, size=(size, count)) + np.arange(size)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(float)
