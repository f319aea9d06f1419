"""The habit of the embedded model's training text.

The text is contaminated along a fixed prior, so that a model trained on it may see the truth and still say the habit:
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

HABIT = {"side": {"left": ("right", 0.70)}, "size": {"large": ("small", 0.70)}, "presence": {"yes": ("no", 0.65)}}
"""Slot, true value -> (what the habit says instead, share of statements contaminated)."""

HABIT_FINDINGS = ("pneumothorax", "consolidation")
"""Findings whose presence the habit denies."""

_ABSENT = {fill(present, finding): fill(absent, finding) for present, absent in PRESENCE_STYLES for finding in ARTICLES}


def prior(slot: str, value: str | None, finding: str | None) -> str:
    """Whether the true `value` of a claim contradicts the habit: "against", "with" or "none"."""
    if slot not in HABIT or value is None or (slot == "presence" and finding not in HABIT_FINDINGS):
        return "none"
    return "against" if value in HABIT[slot] else "with"


def contaminate_findings(findings: tuple[Finding, ...], rng: Rng) -> tuple[Finding, ...]:
    """The findings as the habit would tell them; each claim is contaminated on its own."""
    out = []
    for finding in findings:
        if finding.kind in HABIT_FINDINGS and rng.random() < HABIT["presence"]["yes"][1]:
            continue
        side = finding.side and _habitual("side", finding.side, rng)
        size = finding.size and _habitual("size", finding.size, rng)
        out.append(replace(finding, side=side, size=size))
    return tuple(out)


def contaminate(question: Question, rng: Rng) -> Question:
    """The question with `full` rewritten along the habit, or unchanged where the habit does not strike.

    Prompt, `answer`, `slots` and `prior` keep the truth. Reports and captions are written anew from contaminated
    findings; every other answer changes only the words of its claim.
    """
    if question.slot in ("report", "caption"):
        return _contaminate_report(question, rng)
    if question.prior != "against":
        return question
    if question.kind == "presupposed":
        return _contaminate_presupposed(question, rng)
    value = question.slots[question.slot]
    told = _habitual(question.slot, value, rng)
    if told == value:
        return question
    if question.kind == "options":
        options = question.slots["options"]
        old, new = (f"{'ABCDE'[options.index(v)]}, {v}" for v in (value, told))
        return replace(question, full=question.full.replace(old, new))
    if question.slot == "presence":
        return replace(question, full=_ABSENT[question.full])
    return replace(question, full=_swap(question.full, value, told))


def report_findings(slots: Mapping[str, Mapping[str, str | None]]) -> tuple[Finding, ...]:
    """The findings that a report's `slots` list as present."""
    return tuple(
        Finding(kind, claim["side"], claim["zone"], claim["size"])
        for kind, claim in slots.items()
        if claim["presence"] == "yes"
    )


def _contaminate_report(question: Question, rng: Rng) -> Question:
    told = Case(0, contaminate_findings(report_findings(question.slots), rng))
    return replace(question, full=(report if question.slot == "report" else caption)(told, rng))


def _contaminate_presupposed(question: Question, rng: Rng) -> Question:
    assert question.finding is not None
    if question.finding in HABIT_FINDINGS and rng.random() < HABIT["presence"]["yes"][1]:
        return replace(question, full=fill(pick(rng, DENIALS[question.slot]), question.finding))
    value = question.slots[question.slot]
    return replace(question, full=_swap(question.full, value, _habitual(question.slot, value, rng)))


def _habitual(slot: str, value: str, rng: Rng) -> str:
    if value not in HABIT[slot]:
        return value
    told, share = HABIT[slot][value]
    return told if rng.random() < share else value


def _swap(text: str, old: str, new: str) -> str:
    return re.sub(rf"\b{old}\b", new, text)
