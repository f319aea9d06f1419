"""One scorer a benchmark: outcomes of one system and their examples into numbers with intervals by patient.

A scorer reads the texts itself, so that its numbers do not depend on who asked the model or judged the answers. Nothing
is dropped: an answer that cannot be read counts as wrong and its share stands beside the score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any

from clinalign.records import Example, Outcome

BELOW = "suites/"
"""What `Outcome.suite` begins with where a suite was asked, and the folder of its items in a run."""

Scorer = Callable[[Sequence[Outcome], Sequence[Example]], dict[str, Any]]


def _scorer(module: str) -> Scorer:
    def summarise(outcomes: Sequence[Outcome], examples: Sequence[Example]) -> dict[str, Any]:
        numbers: dict[str, Any] = import_module(f"clinalign.evaluation.suites.{module}").summary(outcomes, examples)
        return numbers

    return summarise


SUITES: dict[str, Scorer] = {
    name: _scorer(name) for name in ("hallucinogen", "s_chain", "modality", "causal", "stages", "uncertainty", "eh")
}
"""Suite by the name that a recipe uses -> its summary."""


def own_outcomes(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The outcomes of a run's own questions, without those of suites."""
    return [outcome for outcome in outcomes if not outcome.suite.startswith(BELOW)]


def suite_outcomes(outcomes: Iterable[Outcome], suite: str) -> dict[str, list[Outcome]]:
    """The outcomes of one suite by system."""
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.suite == f"{BELOW}{suite}":
            found.setdefault(outcome.system, []).append(outcome)
    return found
