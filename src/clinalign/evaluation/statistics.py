"""Intervals and tests for questions that come in patients: never treat ten questions about one image as ten patients.

Values are one number a question (`nan` = not scored, left out and visible in `n`), `patients` one label a question.
All randomness is drawn from `seed` and depends only on the number of patients, so two systems on the same questions
share their resamples and the same input gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from clinalign.errors import UsageError

Array = np.ndarray
Labels = Sequence[Any] | np.ndarray
FEW_CLUSTERS = 30  # below: cluster-t; the percentile bootstrap covers 88 % with nine clusters
EXACT_CLUSTERS = 14  # up to: all 2^G sign patterns are enumerated
CHUNK = 512


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its interval; `low` and `high` are None where fewer than two patients carry a value."""

    estimate: float | None
    low: float | None
    high: float | None
    n: int
    patients: int
    method: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


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


def _mean(sums: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., 0] / sums[..., 1]


def mean_interval(
    values: Sequence[float] | Array,
    patients: Labels,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    share: bool = False,
) -> Interval:
    """Mean over questions with an interval clustered by patient; patients may have different numbers of questions.

    `share`: the values are shares of something. Where all are 0, or all 1, there is no spread to resample and the
    interval is the exact binomial bound with patients as the trials, instead of a point.
    """
    values, patients = _scored(np.asarray(values, float), patients)
    columns = np.stack([values, np.ones_like(values)], axis=1)
    interval = ratio_interval(columns, patients, _mean, level=level, resamples=resamples, seed=seed)
    if share and interval.low == interval.high and interval.estimate in (0.0, 1.0):
        reach = float(((1 - level) / 2) ** (1 / interval.patients))
        low, high = (reach, 1.0) if interval.estimate == 1 else (0.0, 1 - reach)
        return replace(interval, low=low, high=high, method="exact")
    if share and interval.low is not None and interval.high is not None:
        return replace(interval, low=max(0.0, interval.low), high=min(1.0, interval.high))
    return interval


def ratio_interval(
    columns: Array,
    patients: Labels,
    combine: Callable[[Array], Array],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Interval of `combine(column sums)`, e.g. a ratio of sums; `columns` [n, K], `combine` maps [..., K] to [...].

    With 30 patients or more: bootstrap over patients, percentiles widened for the finite number of patients (Hesterberg
    2015, "expanded percentile"). With fewer: delete-one-patient jackknife standard error and a t quantile. Both count
    patients as the effective number `effective_patients`, which is lower where patients have unequal question counts.
    """
    sums = _by_patient(np.asarray(columns, float), patients)
    return weights_interval(
        lambda weights: combine(weights @ sums), patients, level=level, resamples=resamples, seed=seed
    )


def weights_interval(
    statistic: Callable[[Array], Array],
    patients: Labels,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The same for any statistic of how often each patient counts, weights [..., G] in sorted order, to [...]."""
    n, count = len(patients), len(np.unique(np.asarray(patients)))
    estimate = float(statistic(np.ones(count))) if count else math.nan
    if count < 2 or not math.isfinite(estimate):
        return Interval(estimate if math.isfinite(estimate) else None, None, None, n, count, "none")
    alpha = 1 - level
    effective = effective_patients(patients)
    quantile = float(stats.t.ppf(1 - alpha / 2, effective - 1))
    if count < FEW_CLUSTERS:
        half = quantile * _spread(statistic(1 - np.eye(count)))
        return Interval(estimate, estimate - half, estimate + half, n, count, "cluster-t")
    draws = np.concatenate([statistic(weights) for weights in _resamples(count, resamples, seed)])
    tail = stats.norm.cdf(-math.sqrt(effective / (effective - 1)) * quantile)
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high), n, count, "cluster bootstrap")


def compare(
    a: Sequence[float] | Array,
    b: Sequence[float] | Array,
    patients: Labels,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Paired comparison of two systems; `a` and `b` are [n], or [seeds, n] (averaged per question first).

    Questions that either system left unscored are left out. The test is the sign-flip test by patient; with one item a
    patient and 0/1 values it is the exact McNemar test, which is the same thing enumerated.
    """
    difference = per_question(a) - per_question(b)
    kept, labels = _scored(difference, patients)
    interval = mean_interval(kept, labels, level=level, resamples=resamples, seed=seed)
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
    differences, patients = _scored(np.asarray(differences, float), patients)
    sums = _by_patient(differences[:, None], patients)[:, 0]
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
    differences, patients = _scored(np.asarray(differences, float), patients)
    sums = _by_patient(np.stack([differences, np.ones_like(differences)], 1), patients)
    if len(sums) < 2:
        return None
    error = _jackknife(sums, _mean)
    freedom = effective_patients(patients) - 1
    scale = stats.t.ppf(0.5 + level / 2, freedom) + stats.t.ppf(power, freedom)
    return float(scale * error) if error > 1e-12 else None


def effective_patients(patients: Labels) -> float:
    """G / (1 + CV^2) of the questions a patient, at least 2 (Carter, Schnepel & Steigerwald 2017)."""
    sizes = np.unique(np.asarray(patients), return_counts=True)[1]
    return max(2.0, float(sizes.sum() ** 2 / (sizes**2).sum()))


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


def _scored(values: Array, patients: Labels) -> tuple[Array, Array]:
    labels = np.asarray(patients)
    if len(labels) != len(values):
        raise UsageError(f"statistics: {len(values)} values but {len(labels)} patients; give one patient a question")
    keep = ~np.isnan(values)
    return values[keep], labels[keep]


def _by_patient(columns: Array, patients: Labels) -> Array:
    """Column sums per patient, [G, K], patients in sorted order so that the order of questions does not matter."""
    if len(columns) == 0:
        return np.zeros((0, columns.shape[1]))
    _, index = np.unique(np.asarray(patients), return_inverse=True)
    return np.stack([np.bincount(index, weights=column) for column in columns.T], axis=1)


def _jackknife(sums: Array, combine: Callable[[Array], Array]) -> float:
    """Delete-one-patient standard error."""
    return _spread(combine(sums.sum(0) - sums))


def _spread(left: Array) -> float:
    """Jackknife standard error from the statistic with each patient left out."""
    left = left[np.isfinite(left)]
    return float(np.sqrt((len(left) - 1) / len(left) * ((left - left.mean()) ** 2).sum())) if len(left) > 1 else 0.0


def _resamples(count: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each patient is drawn in each resample, in chunks of [<= 512, count]."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        drawn = rng.integers(0, count, size=(size, count)) + np.arange(size)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(float)
