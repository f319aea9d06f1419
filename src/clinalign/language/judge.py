"""Is an answer right? True, False, or None where the words do not tell.

A judgement is never a guess: hedges, contradictions, refusals and answers that do not speak of the asked thing give
None with a reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from clinalign.language.asking import Asked, understand
from clinalign.language.graph import is_a
from clinalign.language.read import Reading, read


@dataclass(frozen=True, slots=True)
class Judgement:
    """`correct` is None when the answer cannot be judged. `span`: characters of the deciding words, if any.

    `slots` holds "asked" (kind of question), "said" and "truth" by kind of slot, and for reports the counts of errors.
    """

    correct: bool | None
    reason: str
    span: tuple[int, int] | None = None
    slots: dict[str, Any] = field(default_factory=dict)


def judge(
    question: str, answer: str, truth: str, task: str = "open", slots: Mapping[str, Any] | None = None
) -> Judgement:
    """Judges an answer against the ground truth.

    task: "closed", "open" or "report". `slots`: true values where the data set has them; in reports finding ->
    {"presence", "side", "zone", "size"}.
    """
    if not answer.strip():
        return Judgement(None, "empty")
    asked = understand(question, truth, task, slots)
    if asked is None:
        return Judgement(None, "question_not_understood")
    if asked.kind == "report":
        from clinalign.language.reports import judge_report

        return judge_report(answer, truth, slots)
    return decide(asked, read(asked, answer))


def decide(asked: Asked, reading: Reading) -> Judgement:
    """Compares what was said with the truth."""
    said = dict(reading.said)
    shown = {"asked": asked.kind, "said": said, "truth": dict(asked.truths)}
    span = _span(reading)
    if reading.reason:
        return Judgement(None, reading.reason, span, shown)
    if asked.kind == "slot":
        return _decide_slot(asked, said, span, shown)
    truths = {k: v for k, v in asked.truths.items() if not (asked.kind == "letter" and k == "text")}
    verdicts = [_same(kind, said.get(kind), value) for kind, value in truths.items()]
    if any(v is False for v in verdicts):
        wrong = [k for k, value in truths.items() if _same(k, said.get(k), value) is False]
        return Judgement(False, f"{wrong[0]}: said {said[wrong[0]]}, is {truths[wrong[0]]}", span, shown)
    if all(v is True for v in verdicts):
        return Judgement(True, "agrees", span, shown)
    return Judgement(None, "incomplete" if any(v for v in verdicts) else "not_said", span, shown)


def _decide_slot(asked: Asked, said: dict[str, str], span: tuple[int, int] | None, shown: dict[str, Any]) -> Judgement:
    kind = next((k for k in asked.truths if k != "yesno"), None)
    slot = next((k for k in said if k != "yesno"), None)
    value, word = said.get(slot or ""), said.get("yesno")
    if value is not None and word is not None and value != "none" and (value == asked.asked) != (word == "yes"):
        return Judgement(None, "contradictory", span, shown)
    if value is not None and kind is not None:
        verdict = _same(kind, value, asked.truths[kind])
    elif value is not None:
        verdict = ("yes" if value == asked.asked else "no") == asked.truths["yesno"]
    elif word is not None:
        verdict = word == asked.truths["yesno"]
    else:
        return Judgement(None, "not_said", span, shown)
    return Judgement(verdict, "agrees" if verdict else f"said {value or word}", span, shown)


def _same(kind: str, said: str | None, truth: str) -> bool | None:
    if said is None:
        return None
    if said == truth:
        return True
    if kind == "finding" and "none" not in (said, truth):
        if is_a(said, truth):
            return True
        if is_a(truth, said):
            return None
    if kind == "box":
        return _overlap(said, truth) >= 0.5
    return False


def _span(reading: Reading) -> tuple[int, int] | None:
    if reading.where:
        return reading.where[0].start, reading.where[0].end
    if reading.claims:
        claim = reading.claims[0]
        starts = [claim.start] + ([claim.cue[0]] if claim.cue else [])
        ends = [claim.end] + ([claim.cue[1]] if claim.cue else [])
        return min(starts), max(ends)
    return None


@lru_cache(maxsize=8192)
def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(n) for n in re.findall(r"\d+(?:\.\d+)?", text))


def _overlap(a: str, b: str) -> float:
    """Intersection over union of two boxes "[x, y, w, h]"."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = _numbers(a), _numbers(b)
    width, height = min(ax + aw, bx + bw) - max(ax, bx), min(ay + ah, by + bh) - max(ay, by)
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (aw * ah + bw * bh - shared) if shared else 0.0
