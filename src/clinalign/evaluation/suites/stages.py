"""Stage replacement (ClinHallu, arXiv 2606.14697): which share of the errors is seeing, knowing, reasoning?

The question is asked again with the right recognition in the prompt (`given_recognition`), with the right knowledge
(`given_knowledge`), and with both (`given_both`). An error that the recognition mends was one of seeing; one that the
knowledge mends, of knowing; one that only both mend, of both; one that stays with both, of reasoning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clinalign.evaluation.suites.shares import correct, share, slot, under, values
from clinalign.records import Example, Outcome

REPLACED = {
    "given_recognition": ("recognition",),
    "given_knowledge": ("knowledge",),
    "given_both": ("recognition", "knowledge"),
}
"""Condition -> the slots whose text stands before the question."""
STAGES = ("seeing", "knowing", "seeing and knowing", "reasoning")


def prompt(example: Example, condition: str) -> str:
    """The question as it is asked under a condition: the right stages first, then the question unchanged."""
    given = [str(slot(example, name)) for name in REPLACED.get(condition, ()) if slot(example, name)]
    return " ".join([*given, example.question])


def summary(outcomes: Sequence[Outcome], examples: Sequence[Example]) -> dict[str, Any]:
    """`accuracy` by condition, `errors` (how many), the `shares` of errors by stage, which add up to 1, and `broken`:
    right answers that each replacement made wrong. An answer that cannot be judged counts as wrong."""
    right = {c: values(under(outcomes, c), examples, _right) for c in ("clean", *REPLACED)}
    errors = [n for n, value in right["clean"].items() if value < 1 and all(n in right[c] for c in REPLACED)]
    stage = {name: _stage(*(right[c][name] for c in REPLACED)) for name in errors}
    hits = {name for name, value in right["clean"].items() if value == 1}
    return {
        "accuracy": {c: share(found, examples) for c, found in right.items() if found},
        "errors": len(errors),
        "shares": {s: share({n: float(own == s) for n, own in stage.items()}, examples) for s in STAGES},
        "broken": {
            c: share({n: 1.0 - value for n, value in right[c].items() if n in hits}, examples) for c in REPLACED
        },
    }


def _right(example: Example, outcome: Outcome) -> float:
    return float(correct(example, outcome.text) is True)


def _stage(recognition: float, knowledge: float, both: float) -> str:
    """The stage of an error from what mends it (scores of the three replacements)."""
    if recognition == 1:
        return STAGES[0]
    if knowledge == 1:
        return STAGES[1]
    return STAGES[2] if both == 1 else STAGES[3]
