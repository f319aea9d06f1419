"""What the suites share: values by question, averaged over seeds, into intervals clustered by patient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from clinalign.evaluation import statistics as S
from clinalign.evaluation.metrics import patient, truth
from clinalign.language.judge import judge
from clinalign.records import Example, Outcome

Values = Mapping[str, float]
"""example id -> value"""

LEVEL = 0.95
OPPOSITE = {"yes": "no", "no": "yes"}


def field(example: Example, name: str) -> Any:
    """What an example declares under a name (kind, finding, slots, full, ...), or None."""
    return getattr(example, name)


def slot(example: Example, name: str) -> Any:
    """One of the declared `slots` of an example, or None."""
    return (field(example, "slots") or {}).get(name)


def under(outcomes: Iterable[Outcome], condition: str) -> list[Outcome]:
    """The outcomes of one condition."""
    return [outcome for outcome in outcomes if outcome.condition == condition]


def values(
    outcomes: Iterable[Outcome], examples: Sequence[Example], score: Callable[[Example, Outcome], float | None]
) -> dict[str, float]:
    """Each question's score, averaged over its seeds; a score of None is no value."""
    known = {example.id: example for example in examples}
    scores: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        value = score(known[outcome.example_id], outcome) if outcome.example_id in known else None
        if value is not None:
            scores[outcome.example_id].append(float(value))
    return {name: sum(found) / len(found) for name, found in scores.items()}


def share(
    scores: Values, examples: Sequence[Example], *, level: float = LEVEL, kind: S.Kind = "share"
) -> dict[str, Any]:
    """Mean of the scores with its interval by patient."""
    patients = _patients(scores, examples)
    return S.mean_interval(list(scores.values()), patients, level=level, kind=kind).as_dict()


def difference(a: Values, b: Values, examples: Sequence[Example], *, level: float = LEVEL) -> dict[str, Any]:
    """Mean of a - b over the questions that have both, with a paired interval and test by patient."""
    names = [name for name in a if name in b]
    left, right = (np.array([side[name] for name in names], float) for side in (a, b))
    return S.compare(left, right, _patients(names, examples), level=level, kind="difference").as_dict()


def area(scores: Values, positive: Values, examples: Sequence[Example], *, level: float = LEVEL) -> dict[str, Any]:
    """Area under the ROC curve of `scores` for `positive` (0 or 1) with its interval by patient; a tie counts half."""
    return areas({"": scores}, {"": positive}, examples, level=level)


def areas(
    scores: Mapping[str, Values],
    positive: Mapping[str, Values],
    examples: Sequence[Example],
    *,
    level: float = LEVEL,
) -> dict[str, Any]:
    """Mean over labels of the area under the ROC curve (macro-AUROC), with its interval by patient.

    `scores` and `positive` (0 or 1): label -> example id -> value. A label of which all or none is positive has no
    area and is left out, unless it is the only one; a tie counts half.
    """
    from clinalign.evaluation.calibration import auc

    asked = {label: [name for name in of if name in positive[label]] for label, of in scores.items()}
    both = {label: names for label, names in asked.items() if len({positive[label][name] for name in names}) == 2}
    both = both or {label: names for label, names in asked.items() if len(asked) == 1}
    patients = _patients([name for names in both.values() for name in names], examples)
    everybody = np.unique(np.asarray(patients))
    parts, behind = [], len(everybody)
    for label, names in both.items():
        theirs = _patients(names, examples)
        score, side = (np.array([of[label][name] for name in names], float) for of in (scores, positive))
        behind = min(behind, *(len({p for p, s in zip(theirs, side, strict=True) if s == value}) for value in (0, 1)))
        parts.append((auc(score, side, theirs), np.searchsorted(everybody, np.unique(np.asarray(theirs)))))

    def mean(weights: np.ndarray) -> np.ndarray:
        return np.mean([statistic(weights[..., at]) for statistic, at in parts], axis=0)

    if not parts:
        return S.mean_interval([], [], level=level, kind="share").as_dict()
    return S.weights_interval(mean, patients, level=level, share=True, behind=behind).as_dict()


Combine = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""True positives, false positives and false negatives [..., classes] into one number [...]."""


def macro_f1(hits: np.ndarray, extra: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """Mean of the classes' F1. A class that is neither true nor said counts as 0, as scikit-learn has it."""
    return np.asarray(_ratio(2 * hits, 2 * hits + extra + missed).mean(-1))


def micro_f1(hits: np.ndarray, extra: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """F1 of the classes' counts added up: a frequent class weighs more."""
    return _ratio(2 * hits.sum(-1), (2 * hits + extra + missed).sum(-1))


def balanced_accuracy(hits: np.ndarray, extra: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """Mean over the classes that are true of anything of the share of them that is found."""
    true = hits + missed
    return _ratio((_ratio(hits, true)).sum(-1), (true > 0).sum(-1))


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(b > 0, a / np.maximum(b, 1e-12), 0.0))


def of_counts(
    counts: np.ndarray, patients: Sequence[str], combine: Combine = macro_f1, *, level: float = LEVEL
) -> dict[str, Any]:
    """`combine` of `counts` [n, classes, 3] (true positive, false positive, false negative), clustered by patient."""
    n, classes, _ = counts.shape

    def combined(sums: np.ndarray) -> np.ndarray:
        return combine(*np.moveaxis(sums.reshape(*sums.shape[:-1], classes, 3), -1, 0))

    return S.ratio_interval(counts.reshape(n, -1), patients, combined, level=level, share=True).as_dict()


def correct(example: Example, text: str) -> bool | None:
    """Whether an answer is right by the rules of `language`; None where they cannot tell."""
    if not text.strip():
        return None
    slots = dict(field(example, "slots") or {})
    return judge(example.question, text, example.answer, task=example.task, slots=slots).correct


def answered(example: Example, text: str) -> str | None:
    """What an answer to a yes/no question says, yes or no; None where it cannot be read."""
    right = correct(example, text) if truth(example) in OPPOSITE else None
    return None if right is None else truth(example) if right else OPPOSITE[truth(example)]


def _patients(names: Iterable[str], examples: Sequence[Example]) -> list[str]:
    known = {example.id: example for example in examples}
    return [patient(known[name]) for name in names]
