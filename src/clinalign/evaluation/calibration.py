"""Is the probability of yes right? Expected calibration error, Brier score and AUC over the yes/no questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clinalign.evaluation import statistics as S
from clinalign.evaluation.metrics import patient, truth
from clinalign.evaluation.options import SummaryOptions
from clinalign.evaluation.scores import ById, BySeed, matrix

BINS = 10


def calibration_summary(by_seed: BySeed, known: ById, options: SummaryOptions) -> dict[str, Any]:
    """`n`, `ece`, `brier` and `auc` with intervals, and the bins of the reliability diagram.

    Of several seeds each number is the mean of the seeds' own: averaged first, their probabilities would be those of an
    ensemble that nobody asked; a seed without any probability has none. A patient counts as often in every seed. The
    bins hold the answers of all seeds.
    """
    names, by_row = matrix(by_seed)
    # left out as a whole: it would leave the mean of every resample without a number
    measured = ~np.isnan(by_row).all(axis=1)
    by_row = by_row[measured] if measured.any() else by_row[:1]
    yes = np.array([truth(known[name]) == "yes" for name in names], float)
    patients = [patient(known[name]) for name in names]
    columns = np.concatenate([bin_columns(p, yes) for p in by_row], axis=1)
    areas = [auc(p, yes, patients) for p in by_row]
    sides = [len({who for who, is_yes in zip(patients, yes, strict=True) if is_yes == side}) for side in (0, 1)]

    def error(sums: np.ndarray) -> np.ndarray:
        return np.asarray(expected_error(sums.reshape(*sums.shape[:-1], len(by_row), 3 * BINS)).mean(-1))

    def area(weights: np.ndarray) -> np.ndarray:
        return np.asarray(np.mean([one(weights) for one in areas], axis=0))

    pooled = S.weights_interval(area, patients, level=options.level, share=True, behind=min(sides))
    brier = S.per_question((by_row - yes) ** 2)
    return {
        "n": len(names),
        "ece": S.ratio_interval(columns, patients, error, level=options.level, share=True).as_dict(),
        "brier": S.mean_interval(brier, patients, level=options.level, kind="share").as_dict(),
        "auc": pooled.as_dict(),
        "bins": _bins(columns.sum(0).reshape(len(by_row), -1).sum(0)),
    }


def bin_columns(p: np.ndarray, yes: np.ndarray) -> np.ndarray:
    """[n, 3 * BINS]: in its bin of equal width, each question's one, probability and truth; without one, zeros."""
    out, asked = np.zeros((len(p), 3, BINS)), np.flatnonzero(~np.isnan(p))
    at = np.minimum((p[asked] * BINS).astype(int), BINS - 1)
    out[asked, :, at] = np.stack([np.ones(len(asked)), p[asked], yes[asked]], axis=1)
    return out.reshape(len(p), -1)


def expected_error(sums: np.ndarray) -> np.ndarray:
    """Expected calibration error (Guo et al. 2017): mean over questions of |mean probability - share of yes| of a bin.

    0.9 and 0.7 for two questions of which one is yes, in two bins: (0.1 + 0.7) / 2 if the first is, 0.4.
    """
    counts, p, yes = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, BINS), -2, 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(p - yes).sum(-1) / counts.sum(-1))


def auc(p: np.ndarray, yes: np.ndarray, patients: Sequence[Any]) -> Any:
    """The area under the ROC curve as a function of patients' weights [..., G]; a tie counts one half, a question
    without a probability not at all; not a number where none has one."""
    _, group = np.unique(np.asarray(patients), return_inverse=True)
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]
    starts = np.flatnonzero(np.r_[True, np.diff(p[order]) > 0])

    def statistic(weights: np.ndarray) -> np.ndarray:
        if not len(order):
            return np.full(weights.shape[:-1], np.nan)
        each = weights[..., group[order]]
        right, wrong = (np.add.reduceat(each * side, starts, axis=-1) for side in (yes[order], 1 - yes[order]))
        below = np.cumsum(wrong, axis=-1) - wrong / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((right * below).sum(-1) / (right.sum(-1) * wrong.sum(-1)))

    return statistic


def _bins(sums: np.ndarray) -> list[dict[str, float]]:
    counts, p, yes = sums.reshape(3, BINS)
    return [
        {
            "low": n / BINS,
            "high": (n + 1) / BINS,
            "n": int(counts[n]),
            "confidence": float(p[n] / counts[n]),
            "observed": float(yes[n] / counts[n]),
        }
        for n in range(BINS)
        if counts[n]
    ]
