"""The language prior of the embedded model's training text.

The text is contaminated along a fixed prior, so that a model trained on it may see the truth and still say the prior:
"left" becomes "right" in 70 % of statements, "large" becomes "small" in 70 %, and a pneumothorax or consolidation
that is present is denied in 65 %. Nothing else is touched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from clinalign.data.phantom.cases import Case, Finding
from clinalign.data.phantom.reports import caption, report
from clinalign.data.phantom.wording import (
    ARTICLES,
    DENIALS,
    PRESENCE_STYLES,
    Question,
    Rng,
    fill,
    pick,
)

LANGUAGE_PRIOR = {
    "side": {"left": ("right", 0.70)},
    "size": {"large": ("small", 0.70)},
    "presence": {"yes": ("no", 0.65)},
}
"""Slot, true value -> (what the prior says instead, share of statements contaminated)."""

DENIED_FINDINGS = ("pneumothorax", "consolidation")
"""Findings whose presence the prior denies."""

_ABSENT = {fill(present, finding): fill(absent, finding) for present, absent in PRESENCE_STYLES for finding in ARTICLES}


def prior(slot: str, value: str | None, finding: str | None) -> str:
    """How the true `value` of a claim stands to the language prior: "conflicting", "aligned" or "neutral"."""
    if slot not in LANGUAGE_PRIOR or value is None or (slot == "presence" and finding not in DENIED_FINDINGS):
        return "neutral"
    return "conflicting" if value in LANGUAGE_PRIOR[slot] else "aligned"


def contaminate_findings(findings: tuple[Finding, ...], rng: Rng) -> tuple[Finding, ...]:
    """The findings as the prior would tell them; each claim is contaminated on its own."""
    out = []
    for finding in findings:
        if finding.kind in DENIED_FINDINGS and rng.random() < LANGUAGE_PRIOR["presence"]["yes"][1]:
            continue
        side = finding.side and _biased("side", finding.side, rng)
        size = finding.size and _biased("size", finding.size, rng)
        out.append(replace(finding, side=side, size=size))
    return tuple(out)


def contaminate(question: Question, rng: Rng) -> Question:
    """The question with `full` rewritten along the prior, or unchanged where the prior does not strike.

    Prompt, `answer`, `slots` and `prior` keep the truth. Reports and captions are written anew from contaminated
    findings; every other answer changes only the words of its claim.
    """
    if question.slot in ("report", "caption"):
        return _contaminate_report(question, rng)
    if question.prior != "conflicting":
        return question
    if question.kind == "presupposed":
        return _contaminate_presupposed(question, rng)
    value = question.slots[question.slot]
    biased = _biased(question.slot, value, rng)
    if biased == value:
        return question
    if question.kind == "options":
        options = question.slots["options"]
        old, new = (f"{'ABCDE'[options.index(v)]}, {v}" for v in (value, biased))
        return replace(question, full=question.full.replace(old, new))
    if question.slot == "presence":
        return replace(question, full=_ABSENT[question.full])
    return replace(question, full=_swap(question.full, value, biased))


def report_findings(slots: Mapping[str, Mapping[str, str | None]]) -> tuple[Finding, ...]:
    """The findings that a report's `slots` list as present."""
    return tuple(
        Finding(kind, claim["side"], claim["zone"], claim["size"])
        for kind, claim in slots.items()
        if claim["presence"] == "yes"
    )


def _contaminate_report(question: Question, rng: Rng) -> Question:
    biased = Case(0, contaminate_findings(report_findings(question.slots), rng))
    return replace(question, full=(report if question.slot == "report" else caption)(biased, rng))


def _contaminate_presupposed(question: Question, rng: Rng) -> Question:
    assert question.finding is not None
    if question.finding in DENIED_FINDINGS and rng.random() < LANGUAGE_PRIOR["presence"]["yes"][1]:
        return replace(question, full=fill(pick(rng, DENIALS[question.slot]), question.finding))
    value = question.slots[question.slot]
    return replace(question, full=_swap(question.full, value, _biased(question.slot, value, rng)))


def _biased(slot: str, value: str, rng: Rng) -> str:
    if value not in LANGUAGE_PRIOR[slot]:
        return value
    biased, share = LANGUAGE_PRIOR[slot][value]
    return biased if rng.random() < share else value


def _swap(text: str, old: str, new: str) -> str:
    return re.sub(rf"\b{old}\b", new, text)
