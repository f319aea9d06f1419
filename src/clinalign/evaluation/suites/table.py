"""Systems by suites in one table: a headline score a question, each system against the baseline, tests corrected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clinalign.evaluation.metrics import patient, truth, yes_no
from clinalign.evaluation.scores import rounded
from clinalign.evaluation.statistics import holm
from clinalign.evaluation.suites import SUITES, causal, eh, hallucinogen, s_chain, suite_outcomes
from clinalign.evaluation.suites.presence import ATTACKS, UNCLEAR
from clinalign.evaluation.suites.shares import answered, correct, difference, field, share, slot, under, values
from clinalign.records import Example, Outcome

Score = Callable[[Sequence[Outcome], Sequence[Example]], dict[str, float]]


def _right(outcomes: Sequence[Outcome], examples: Sequence[Example]) -> dict[str, float]:
    return values(under(outcomes, "clean"), examples, lambda e, o: float(correct(e, o.text) is True))


def _attacked(outcomes: Sequence[Outcome], examples: Sequence[Example]) -> dict[str, float]:
    asked = under(outcomes, "clean")
    return values(asked, examples, lambda e, o: float(hallucinogen.read(e, o.text).says == truth(e)))


def _chained(outcomes: Sequence[Outcome], examples: Sequence[Example]) -> dict[str, float]:
    labels = sorted({truth(example) for example in examples})
    return values(under(outcomes, "clean"), examples, lambda e, o: float(s_chain.label(o.text, labels) == truth(e)))


def _grounded(outcomes: Sequence[Outcome], examples: Sequence[Example]) -> dict[str, float]:
    """Right, stable under the irrelevant mask, and where the finding is there turned to no when it is masked."""
    says: dict[str, dict[str, str | None]] = {}
    known = {example.id: example for example in examples}
    for outcome in outcomes:
        if outcome.example_id in known:
            text = answered(known[outcome.example_id], outcome.text)
            says.setdefault(outcome.example_id, {}).setdefault(outcome.condition, text)
    scores = {}
    for name, said in says.items():
        right = truth(known[name])
        stable = said.get(causal.CONTROL, right) == right
        turned = right == "no" or said.get(causal.TARGET, "no") == "no"
        scores[name] = float(said.get("clean") == right and stable and turned)
    return scores


def _option(outcomes: Sequence[Outcome], examples: Sequence[Example]) -> dict[str, float]:
    asked = under(outcomes, "clean")
    return values(asked, examples, lambda e, o: float(eh.letter_of(e, o) == e.answer))


HEADLINES: dict[str, tuple[str, Score]] = {
    "hallucinogen": ("right under attack", _attacked),
    "s_chain": ("right class at the end of the chain", _chained),
    "modality": ("right with text and image", _right),
    "causal": ("right, for the evidence's sake", _grounded),
    "stages": ("right", _right),
    "uncertainty": ("right", _right),
    "eh": ("right option, options shuffled", _option),
}
"""Suite -> what its headline score says, and the score by question."""


def belongs(suite: str, example: Example) -> bool:
    """Whether an example of any data set is an item of a suite; a run without any is asked the phantom counterpart."""
    fits: dict[str, bool] = {
        "hallucinogen": field(example, "kind") in ATTACKS,
        "s_chain": field(example, "kind") == "s_chain",
        "modality": bool(slot(example, "context")),
        "causal": yes_no(example) and bool(field(example, "finding")) and bool(example.images),
        "stages": bool(slot(example, "recognition")),
        "uncertainty": example.task in ("closed", "open"),
        "eh": bool(slot(example, eh.TAXON)) and bool(example.options),
    }
    return fits[suite]


def unread(suite: str, outcomes: Sequence[Outcome], examples: Sequence[Example]) -> float | None:
    """Share of the clean answers that the suite cannot read."""
    labels = sorted({truth(example) for example in examples})

    def lost(example: Example, outcome: Outcome) -> float:
        if suite == "hallucinogen":
            return float(hallucinogen.read(example, outcome.text).says == UNCLEAR)
        if suite == "s_chain":
            return float(s_chain.label(outcome.text, labels) is None)
        if suite == "eh":
            return float(eh.letter_of(example, outcome) is None)
        return float(correct(example, outcome.text) is None)

    shares = values(under(outcomes, "clean"), examples, lost)
    return sum(shares.values()) / len(shares) if shares else None


def compared(
    suite: str, systems: Mapping[str, Sequence[Outcome]], examples: Sequence[Example], *, baseline: str
) -> dict[str, Any]:
    """A row a system: `score` with its interval, `unparsable`, and against the baseline `difference` with its paired
    interval, p and Holm's `p_adjusted` over the systems of the suite."""
    headline = HEADLINES[suite][1]
    scores = {name: headline(outcomes, examples) for name, outcomes in systems.items()}
    rows: dict[str, Any] = {
        name: {"score": share(found, examples), "unparsable": unread(suite, systems[name], examples)}
        for name, found in scores.items()
    }
    for name, found in scores.items():
        if name != baseline and baseline in scores:
            rows[name]["difference"] = difference(found, scores[baseline], examples)
    adjusted = holm({name: row["difference"]["p"] for name, row in rows.items() if "difference" in row})
    for name, p in adjusted.items():
        rows[name]["difference"]["p_adjusted"] = p
    return rows


def suites_summary(
    outcomes: Sequence[Outcome], items: Mapping[str, Sequence[Example]], *, baseline: str = "base"
) -> dict[str, Any]:
    """Suite -> `headline` (what its score says), `n` and `patients` (of what is reported), `systems` (`compared`) and
    `details` (the suite's own summary by system). `items` holds the examples of every suite that was asked."""
    found: dict[str, Any] = {}
    for suite, examples in items.items():
        systems = suite_outcomes(outcomes, suite)
        reported = [e for e in examples if e.split != "dev"] if suite == "uncertainty" else examples
        found[suite] = {
            "headline": HEADLINES[suite][0],
            "n": len(reported),
            "patients": len({patient(example) for example in reported}),
            "systems": compared(suite, systems, reported, baseline=baseline),
            "details": {name: SUITES[suite](of, examples) for name, of in systems.items()},
        }
    return dict(rounded(found))
