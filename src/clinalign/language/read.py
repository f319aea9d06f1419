"""What an answer says to what was asked: the value that each kind of question wants, and the words that say it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from clinalign.language.asking import Asked
from clinalign.language.claims import Claim, claims
from clinalign.language.cues import ARTICLES
from clinalign.language.graph import CONCEPTS, GENERIC, is_a
from clinalign.language.options import letters, option_texts
from clinalign.language.parse import ABSENT, PRESENT, UNCERTAIN, Mention, Parse, parse

_REFUSALS = re.compile(
    r"\b(i('m| am) (sorry|unable|not able)|(cannot|can't|unable to|not possible to|impossible to|difficult to) "
    r"(determine|tell|"
    r"assess|provide|answer|say|be determined)|as an ai|not enough information|consult a)\b",
    re.I,
)
_BLIND = re.compile(
    r"\b(no image|(cannot|can't|do not|don't) see (an|any|the) image|without an image|cannot answer)\b", re.I
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says to what was asked: `said` by kind of slot, and the words that say it."""

    said: Mapping[str, str]
    where: tuple[Mention, ...] = ()
    claims: tuple[Claim, ...] = ()
    reason: str = ""


def read(asked: Asked, answer: str) -> Reading:
    """What the answer says to the question."""
    parsed = parse(answer)
    if asked.kind == "letter":
        return _read_letter(asked, answer)
    if asked.kind == "box":
        found = re.findall(r"\[?\s*(\d+(?:\.\d+)?(?:\s*,\s*\d+(?:\.\d+)?){3})\s*\]?", answer)
        return Reading({"box": found[0]}) if len(found) == 1 else Reading({}, reason="not_said")
    if asked.kind == "text":
        return _read_text(asked, answer, parsed)
    if asked.kind == "presence":
        reading = _read_presence(asked, parsed, answer)
    elif asked.kind == "slot":
        reading = _read_slot(asked, parsed, answer)
    else:
        reading = _read_open(asked, parsed, answer)
    if not reading.said and not reading.reason and _REFUSALS.search(answer):
        return Reading({}, reason="refusal")
    return reading


def _yesno(parsed: Parse) -> tuple[str | None, tuple[Mention, ...], str]:
    words = parsed.of("yesno")
    values = {m.value for m in words}
    if len(values) > 1:
        return None, tuple(words), "contradictory"
    return (values.pop() if values else None), tuple(words), ""


def _read_presence(asked: Asked, parsed: Parse, answer: str) -> Reading:
    word, where, reason = _yesno(parsed)
    if reason:
        return Reading({}, where, reason=reason)
    if asked.concept is not None:
        about = [m for m in parsed.mentions if (m.kind, m.value) == asked.concept]
        statuses = {m.status for m in about}
        found: tuple[Claim, ...] = ()
    else:
        found = tuple(_about(asked, claims(answer)))
        statuses = {c.status for c in found}
    if UNCERTAIN in statuses or "maybe" in parsed.words:
        return Reading({}, where, found, "uncertain")
    if len(statuses) > 1:
        return Reading({}, where, found, "contradictory")
    yes, no = ("no", "yes") if asked.inverted else ("yes", "no")
    status = {PRESENT: yes, ABSENT: no, None: None}[next(iter(statuses), None)]
    if status is not None and word is not None and status != word:
        return Reading({}, where, found, "contradictory")
    value = status or word
    return Reading({"presence": value} if value else {}, where, found)


def _about(asked: Asked, said: list[Claim]) -> list[Claim]:
    """The claims that decide the presence of the asked finding."""
    if asked.finding is None:
        return []
    direct = [c for c in said if c.finding in asked.names or c.finding == asked.finding]
    specific = [c for c in direct if c.finding == asked.finding] or direct
    if specific:
        return specific
    group = asked.finding.removesuffix(" abnormality")
    narrower = [
        c
        for c in said
        if c.status == PRESENT
        and (is_a(c.finding, asked.finding) or (c.finding in CONCEPTS and CONCEPTS[c.finding].group == group))
    ]
    return narrower or [c for c in said if c.status == ABSENT and is_a(asked.finding, c.finding)]


def _read_slot(asked: Asked, parsed: Parse, answer: str) -> Reading:
    word, where, reason = _yesno(parsed)
    if reason:
        return Reading({}, where, reason=reason)
    kind = next((k for k in asked.truths if k != "yesno"), asked.concept[0] if asked.concept else "")
    reading = _value(kind, asked, parsed, answer)
    if reading.reason == "not_said" and word is not None:
        return Reading({"yesno": word}, where)
    if reading.reason == "negated" and reading.said.get(kind) == asked.asked and word in (None, "no"):
        return Reading({"yesno": "no"}, where, reading.claims, "" if word else "negated")
    if reading.reason:
        return reading
    said = dict(reading.said) | ({"yesno": word} if word else {})
    return Reading(said, reading.where + where, reading.claims)


def _read_open(asked: Asked, parsed: Parse, answer: str) -> Reading:
    said: dict[str, str] = {}
    where: list[Mention] = []
    denials: list[Claim] = []
    reasons = []
    for kind in asked.truths:
        reading = _value(kind, asked, parsed, answer)
        if reading.reason:
            reasons.append(reading.reason)
            continue
        said |= reading.said
        where += reading.where
        denials += reading.claims
    reason = next((r for r in reasons if r != "not_said"), "") if not said else ""
    return Reading(said, tuple(where), tuple(denials), reason)


def _value(kind: str, asked: Asked, parsed: Parse, answer: str) -> Reading:
    """The one value that an answer gives a slot, "none" where it denies the finding."""
    if kind == "finding":
        return _finding(asked, answer)
    denied = [c for c in _about(asked, claims(answer)) if c.status == ABSENT] if asked.finding else []
    if denied and not any(c.status == PRESENT for c in _about(asked, claims(answer))):
        return Reading({kind: "none"}, (), tuple(denied))
    mentions = parsed.of(kind)
    said = [m for m in mentions if m.status == PRESENT]
    if not said:
        stated = [c for c in _about(asked, claims(answer)) if c.status == PRESENT]
        if stated and asked.truths.get(kind) == "none":
            return Reading({kind: "present"}, (), tuple(stated))
        if any(m.status == UNCERTAIN for m in mentions):
            return Reading({}, tuple(mentions), reason="uncertain")
        if mentions and len({m.value for m in mentions}) == 1:
            return Reading({kind: mentions[0].value}, tuple(mentions), reason="negated")
        return Reading({}, reason="not_said")
    values = {m.value for m in said}
    if len(values) > 1:
        own = [
            m
            for c in claims(answer)
            if c.finding == asked.finding
            for m in c.slots.get(kind, ())
            if m.status == PRESENT
        ]
        if own and len({m.value for m in own}) < len(values):
            said, values = own, {m.value for m in own}
    if kind == "side" and values >= {"left", "right"}:
        return Reading({kind: "bilateral"}, tuple(said))
    if len(values) > 1:
        return Reading({}, tuple(said), reason="several_values")
    return Reading({kind: said[0].value}, tuple(said))


def _finding(asked: Asked, answer: str) -> Reading:
    said = claims(answer)
    present = [c for c in said if c.status == PRESENT]
    specific = [c for c in present if c.finding not in GENERIC] or present
    specific = [c for c in specific if not (c.finding in GENERIC and asked.truths["finding"] == "none")]
    if not specific:
        if any(c.status == UNCERTAIN for c in said):
            return Reading({}, reason="uncertain")
        denied = tuple(c for c in said if c.status == ABSENT and (c.finding in GENERIC or c.implied))
        return Reading({"finding": "none"}, (), denied) if denied else Reading({}, reason="not_said")
    values = {c.finding for c in specific}
    where = tuple(c.mention for c in specific)
    if len(values) > 1:
        return Reading({}, where, reason="several_values")
    return Reading({"finding": specific[0].finding}, where, tuple(specific))


def _read_letter(asked: Asked, answer: str) -> Reading:
    found = letters(answer, asked.options)
    texts = option_texts(answer, asked.options)
    by_letter, by_text = {a for a, _ in found}, {a for a, _, _ in texts}
    if len(by_letter) > 1:
        return Reading({}, reason="several_values")
    if not by_letter and len(by_text) > 1:
        return Reading({}, reason="several_values")
    if by_letter and by_text and not by_letter <= by_text:
        return Reading({}, reason="contradictory")
    said = by_letter or by_text
    if not said:
        return Reading({}, reason="not_said")
    letter = next(iter(said))
    where = [Mention("letter", letter, i, i + 1, 0, 0) for _, i in found]
    where += [Mention("option", letter, a, b, 0, 0) for got, a, b in texts if got == letter]
    return Reading({"letter": letter}, tuple(where))


_UNANSWERABLE = {"no image", "not answerable", "unanswerable", "cannot tell", "cannot be determined", "no answer"}


def _read_text(asked: Asked, answer: str, parsed: Parse) -> Reading:
    """A truth that the lexicon does not know: right where the answer contains it word for word, else not judged.

    Where the truth is that there is no answer, every answer that is no refusal is wrong.
    """
    truth = asked.truths["text"]
    if truth.strip().lower().rstrip(".") in _UNANSWERABLE:
        refused = _REFUSALS.search(answer) or _BLIND.search(answer)
        return Reading({"text": truth if refused else "an answer"})
    wanted = [w for w in parse(truth).words if w.isalnum() and w not in ARTICLES]
    at = [i for i, w in enumerate(parsed.words) if w.isalnum() and w not in ARTICLES]
    words = [parsed.words[i] for i in at]
    if not wanted:
        return Reading({}, reason="cannot_tell")
    for i in range(len(words) - len(wanted) + 1):
        if words[i : i + len(wanted)] == wanted:
            before = parsed.words[parsed.sentence(at[i])[0] : at[i]]
            negated = any(w in ("no", "not", "without", "cannot") for w in before)
            return Reading({}, reason="negated") if negated else Reading({"text": truth})
    return Reading({}, reason="cannot_tell")
