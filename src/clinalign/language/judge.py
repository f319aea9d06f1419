"""Is an answer right? True, False, or None where the words do not tell.

A judgement is never a guess: hedges, contradictions, refusals and answers that do not speak of the asked thing give
None with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clinalign.language.claims import claims
from clinalign.language.compat import same
from clinalign.language.parse_answer import ParsedAnswer, parse_answer
from clinalign.language.parse_question import ParsedQuestion, parse_question
from clinalign.language.reports import compare, facts


@dataclass(frozen=True, slots=True)
class Judgement:
    """`correct` is None when the answer cannot be judged. `span`: characters of the deciding words, if any.

    `slots` holds "asked" (kind of question), "said" and "truth" by kind of slot, and for reports the counts of errors.
    """

    correct: bool | None
    reason: str
    span: tuple[int, int] | None = None
    slots: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """correct or incorrect; incomplete (part of the truth, or less than it); abstained (a refusal, or nothing but
        possibilities); undecided (contradictory, several values, or words that the rules do not know)."""
        if self.correct is not None:
            return "correct" if self.correct else "incorrect"
        return VERDICTS.get(self.reason, "undecided")


INCOMPLETE = "incomplete"
VERDICTS = {INCOMPLETE: "incomplete", "refusal": "abstained", "uncertain": "abstained", "empty": "abstained"}
"""Reason -> verdict, where no answer is counted right or wrong."""


def judge(
    question: str, answer: str, truth: str, task: str = "open", slots: Mapping[str, Any] | None = None
) -> Judgement:
    """Judges an answer against the ground truth.

    task: "closed", "open" or "report". `slots`: true values where the data set has them; in reports finding ->
    {"presence", "side", "zone", "size"}.
    """
    if not answer.strip():
        return Judgement(None, "empty")
    asked = parse_question(question, truth, task, slots)
    if asked is None:
        return Judgement(None, "question_not_understood")
    if asked.kind == "report":
        return judge_report(answer, truth, slots)
    return decide(asked, parse_answer(asked, answer))


def judge_report(answer: str, truth: str, slots: Mapping[str, Any] | None = None) -> Judgement:
    """Right when no claim contradicts the reference and no finding of the reference is left out."""
    own, reference = claims(answer), facts(truth, slots)
    if not own:
        return Judgement(None, "no_claims")
    if not reference:
        return Judgement(None, "reference_without_claims")
    errors, omitted = compare(own, reference)
    counts = {kind: sum(f.kind == kind for f in errors) for kind in ("slot", "invented", "denied")}
    shown: dict[str, Any] = {"asked": "report", **counts, "omitted": len(omitted), "claims": len(own)}
    if errors:
        first = errors[0]
        at = first.mention or first.claim.mention
        return Judgement(False, f"{first.kind}: {first.claim.finding}", (at.start, at.end), shown)
    if omitted:
        return Judgement(False, f"omitted: {omitted[0].finding}", None, shown)
    return Judgement(True, "agrees", None, shown)


def decide(asked: ParsedQuestion, reading: ParsedAnswer) -> Judgement:
    """Compares what was said with the truth."""
    said = dict(reading.said)
    truth = dict(asked.truths) if asked.kind != "several" else {"parts": ", ".join(v for _, v in asked.parts)}
    shown = {"asked": asked.kind, "said": said, "truth": truth}
    span = _span(reading)
    if reading.reason:
        return Judgement(None, reading.reason, span, shown)
    if asked.kind == "slot":
        return _decide_slot(asked, said, span, shown)
    truths = {k: v for k, v in truth.items() if not (asked.kind == "letter" and k == "text")}
    truths = {k: v for k, v in truths.items() if k in said or k not in asked.optional}
    verdicts = {k: same(k, said[k], v) if k in said else None for k, v in truths.items()}
    verdicts |= {k: True for k in asked.optional & verdicts.keys() if verdicts[k] is None}
    wrong = [k for k, verdict in verdicts.items() if verdict is False]
    if wrong:
        return Judgement(False, f"{wrong[0]}: said {said[wrong[0]]}, is {truths[wrong[0]]}", span, shown)
    if all(verdicts.values()):
        return Judgement(True, "agrees", span, shown)
    return Judgement(None, INCOMPLETE if said else "not_said", span, shown)


def _decide_slot(
    asked: ParsedQuestion, said: dict[str, str], span: tuple[int, int] | None, shown: dict[str, Any]
) -> Judgement:
    kind = next((k for k in asked.truths if k != "yesno"), None)
    slot = next((k for k in said if k != "yesno"), None)
    value, word = said.get(slot or ""), said.get("yesno")
    if value is not None and word is not None and value != "none" and not _fits(slot, value, asked.asked, word):
        return Judgement(None, "contradictory", span, shown)
    if value is not None and kind is not None:
        verdict = same(kind, value, asked.truths[kind])
        if verdict is None and slot == "side" and asked.truths["yesno"] == "yes":
            verdict = value == "bilateral" or None
        elif verdict is None and word is not None:
            verdict = word == asked.truths["yesno"]
    elif value is not None:
        verdict = ("yes" if value == asked.asked else "no") == asked.truths["yesno"]
    elif word is not None:
        verdict = word == asked.truths["yesno"]
    else:
        return Judgement(None, "not_said", span, shown)
    if verdict is None:
        return Judgement(None, INCOMPLETE, span, shown)
    return Judgement(verdict, "agrees" if verdict else f"said {value or word}", span, shown)


def _fits(slot: str | None, value: str, asked: str | None, word: str) -> bool:
    """Whether a yes or no goes with the value named beside it."""
    agrees = same(slot or "", value, asked or "")
    return agrees is None or agrees == (word == "yes")


def _span(reading: ParsedAnswer) -> tuple[int, int] | None:
    if reading.where:
        return reading.where[0].start, reading.where[0].end
    if reading.claims:
        claim = reading.claims[0]
        starts = [claim.start] + ([claim.cue[0]] if claim.cue else [])
        ends = [claim.end] + ([claim.cue[1]] if claim.cue else [])
        return min(starts), max(ends)
    return None
