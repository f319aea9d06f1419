"""What is measured of one system's answers to the clean questions: a value a question and metric, nan = not scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from clinalign.evaluation.text import intact
from clinalign.language.judge import VERDICTS
from clinalign.records import Example, Outcome

NAN = math.nan
VQA_TASKS = ("closed", "open")
PRIORS = {
    "conflicting": "accuracy_against_prior",
    "aligned": "accuracy_with_prior",
    "neutral": "accuracy_uncontaminated",
}

SHARES = (
    "accuracy",
    "accuracy_closed",
    "accuracy_open",
    "accuracy_against_prior",
    "accuracy_with_prior",
    "accuracy_uncontaminated",
    "accuracy_report",
    "yes_rate",
    "intact",
    "unanswered",
    "unparsable",
    "incomplete",
    "abstained",
    "judge_failed",
    "truncated",
    "exact_match",
)
MEANS = ("words", "token_f1", "token_recall", "rouge_l", "coverage")
"""Metrics that are means over questions; `balanced_accuracy` and `bleu` are not."""

JUDGE_FAILED = "judge_failed"
"""How the reason of an outcome begins whose judge gave no verdict that can be used."""


def values(outcome: Outcome, example: Example, base: Outcome | None) -> dict[str, float]:
    """Every metric that one answer has a value for. `base`: the baseline's answer to the same question, if any."""
    score = NAN if outcome.correct is None else float(outcome.correct)
    empty = not outcome.text.strip()
    failed = outcome.reason.startswith(JUDGE_FAILED)
    verdict = VERDICTS.get(outcome.reason) if outcome.correct is None and not empty else None
    got = {
        "unanswered": float(empty),
        "unparsable": float(outcome.correct is None and not empty and not failed and verdict is None),
        "incomplete": float(verdict == "incomplete"),
        "abstained": float(verdict == "abstained"),
        **({} if outcome.judge == "rules" else {"judge_failed": float(failed)}),
        **outcome.metrics,
    }
    if example.task not in VQA_TASKS:
        return got | {f"accuracy_{example.task}": score}
    got |= {"accuracy": score, f"accuracy_{example.task}": score}
    prior = PRIORS.get(example.prior)
    if prior:
        got[prior] = score
    if yes_no(example) and outcome.correct is not None:
        got["yes_rate"] = float(outcome.correct == (truth(example) == "yes"))
    if base is not None:
        span, base_span = outcome.slots.get("span"), base.slots.get("span")
        got["intact"] = float(intact(outcome.text, span, base.text, base_span, outcome.correct is not None))
    return got


def truth(example: Example) -> str:
    """The short ground truth, normalised."""
    return example.answer.strip().strip(".").lower()


def yes_no(example: Example) -> bool:
    """Whether the question is answered by yes or no."""
    return example.task == "closed" and truth(example) in ("yes", "no")


def kind(example: Example) -> str:
    """The kind of the question: the data set's own name for it where there is one, otherwise the task."""
    return example.kind or example.task


def balanced_columns(
    outcomes: Mapping[str, float], examples: Mapping[str, Example]
) -> tuple[np.ndarray, list[str], Callable[[np.ndarray], np.ndarray]]:
    """Columns, patients and combination for `statistics.ratio_interval`: mean of the recall on yes and on no.

    `outcomes` maps an example id to its score; unscored and non-yes/no questions are left out.
    """
    rows, patients = [], []
    for name, score in outcomes.items():
        example = examples[name]
        if yes_no(example) and not math.isnan(score):
            positive = truth(example) == "yes"
            rows.append([score * positive, float(positive), score * (not positive), float(not positive)])
            patients.append(patient(example))
    return np.array(rows, float).reshape(-1, 4), patients, _balanced


def _balanced(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return (sums[..., 0] / sums[..., 1] + sums[..., 2] / sums[..., 3]) / 2


def patient(example: Example) -> str:
    """The cluster of a question: its patient, or where none is known its first image, or itself."""
    return example.patient_id or (example.images[0] if example.images else example.id)
