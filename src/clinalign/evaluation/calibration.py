"""Is the probability of yes right? Expected calibration error, Brier score and AUC over the yes/no questions.

The probability of an answer is that of the model between its own answer and the minimal edit of it that says the
opposite: 1 / (1 + exp(-margin)), both scored whole by teacher forcing. So it asks nothing of the wording, and a model
that answers in sentences is calibrated by the same rule as one that says one word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np

from clinalign.errors import RowError
from clinalign.evaluation import statistics as S
from clinalign.evaluation import vqa
from clinalign.evaluation.answer_pairs import AnswerPair, Choices, answer_pair, margins
from clinalign.evaluation.byquestion import Known, Values
from clinalign.evaluation.options import EvaluationOptions
from clinalign.records import Example, Outcome

BINS = 10
PROBABILITY = "p_yes"


def with_probability(
    vlm: Any,
    examples: Sequence[Example],
    outcomes: Sequence[Outcome],
    images: Mapping[str, Sequence[np.ndarray]],
    choices: Choices,
    wanted: Set[str],
    batch_size: int,
) -> list[Outcome]:
    """The outcomes; those of judged questions among `wanted` (yes/no ones) have `metrics["p_yes"]` where an edit is
    known."""
    asked: dict[str, AnswerPair] = {}
    for example, outcome in zip(examples, outcomes, strict=True):
        if example.id in wanted and outcome.correct is not None:
            try:
                asked[example.id] = answer_pair(vlm, example, outcome.text, choices, images[example.id])
            except RowError:
                continue
    found = dict(zip(asked, margins(vlm, list(asked.values()), batch_size=batch_size), strict=True))
    return [_with(o, e, found[e.id]) if e.id in found else o for e, o in zip(examples, outcomes, strict=True)]


def _with(outcome: Outcome, example: Example, margin: float) -> Outcome:
    said_yes = outcome.correct == (vqa.truth(example) == "yes")
    signed = margin if said_yes else -margin
    p = 1 / (1 + math.exp(-signed)) if signed >= 0 else math.exp(signed) / (1 + math.exp(signed))
    return replace(outcome, metrics=outcome.metrics | {PROBABILITY: p})


def calibration_summary(values: Values, known: Known, options: EvaluationOptions) -> dict[str, Any]:
    """`n`, `ece`, `brier` and `auc` with intervals, and the bins of the reliability diagram."""
    names = sorted(values)
    p = np.array([values[name] for name in names])
    yes = np.array([vqa.truth(known[name]) == "yes" for name in names], float)
    patients = [vqa.patient(known[name]) for name in names]
    settings: dict[str, Any] = {"level": options.level, "resamples": options.resamples}
    columns = bin_columns(p, yes)
    return {
        "n": len(names),
        "ece": S.ratio_interval(columns, patients, expected_error, **settings).as_dict(),
        "brier": S.mean_interval((p - yes) ** 2, patients, **settings).as_dict(),
        "auc": S.weights_interval(auc(p, yes, patients), patients, **settings).as_dict(),
        "bins": _bins(columns.sum(0)),
    }


def bin_columns(p: np.ndarray, yes: np.ndarray) -> np.ndarray:
    """[n, 3 * BINS]: in its bin of equal width, each question's one, probability and truth."""
    out = np.zeros((len(p), 3, BINS))
    at = np.minimum((p * BINS).astype(int), BINS - 1)
    out[np.arange(len(p)), :, at] = np.stack([np.ones_like(p), p, yes], axis=1)
    return out.reshape(len(p), -1)


def expected_error(sums: np.ndarray) -> np.ndarray:
    """Expected calibration error (Guo et al. 2017): mean over questions of |mean probability - share of yes| of a bin.

    0.9 and 0.7 for two questions of which one is yes, in two bins: (0.1 + 0.7) / 2 if the first is, 0.4.
    """
    counts, p, yes = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, BINS), -2, 0)
    return np.asarray(np.abs(p - yes).sum(-1) / counts.sum(-1))


def auc(p: np.ndarray, yes: np.ndarray, patients: Sequence[Any]) -> Any:
    """The area under the ROC curve as a function of patients' weights [..., G]; a tie counts one half."""
    _, group = np.unique(np.asarray(patients), return_inverse=True)
    order = np.argsort(p, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(p[order]) > 0])

    def statistic(weights: np.ndarray) -> np.ndarray:
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
