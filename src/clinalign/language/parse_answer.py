"""What an answer says to what was asked: the value that each kind of question wants, and the words that say it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from clinalign.language.claims import Claim, claims, unlisted
from clinalign.language.compat import same
from clinalign.language.graph import CONCEPTS, ORGAN_GROUP, related
from clinalign.language.implied import meanings_of
from clinalign.language.parse import ABSENT, PRESENT, UNCERTAIN, Mention, Parse, parse
from clinalign.language.parse_open import ParsedAnswer, about, parse_open_answer, value_of
from clinalign.language.parse_question import ParsedQuestion
from clinalign.language.wordings import cleaned, concluding, letters, one_word, option_meant, option_texts, refuses

_CORNERS = re.compile(r"b?box_2d|<\|?/?(?:box|object_ref|loc|ref)|\bx_?(?:1|min)\b|\b(?:left|top)\W{0,3}:", re.I)
"""How models write the corners of a box: Qwen's and Gemini's keys, box tokens, x1, xmin."""

_BOTH = re.compile(
    r"\b(?:yes\W{1,3}(?:(?:and|or|but)\W{1,3})?no|no\W{1,3}(?:(?:and|or|but)\W{1,3})?yes)(?=\W*(?:[.,;:!?)]|$))", re.I
)
"""Yes and no in one breath, and nothing that the "no" could deny: "yes, and no effusion" is none."""


def parse_answer(asked: ParsedQuestion, answer: str) -> ParsedAnswer:
    """What the answer says to the question."""
    if asked.kind == "box" and _CORNERS.search(answer):  # not x, y, w, h, and often not in pixels: the family knows
        return ParsedAnswer({}, reason="box_of_corners")
    answer = cleaned(answer)
    if asked.kind == "letter":
        return _parse_letter(asked, answer)
    if asked.kind == "box":
        found = re.findall(r"\[?\s*(\d+(?:\.\d+)?(?:\s*,\s*\d+(?:\.\d+)?){3})\s*\]?", answer)
        return ParsedAnswer({"box": found[0]}) if len(found) == 1 else ParsedAnswer({}, reason="not_said")
    if asked.kind in ("presence", "slot"):
        answer = concluding(answer)
        reading = parse_presence(asked, parse(answer)) if asked.kind == "presence" else _parse_slot(asked, answer)
    else:
        reading = parse_open_answer(asked, answer)
    undecided = not reading.said and reading.reason in ("", "not_said", "uncertain", "cannot_tell")
    return ParsedAnswer({}, reading.where, reason="refusal") if undecided and refuses(answer) else reading


def _yesno(parsed: Parse, inverted: bool = False) -> tuple[str | None, tuple[Mention, ...], str]:
    """The yes or no of an answer, its words, and "contradictory" where it says both."""
    words = parsed.of("yesno")
    values = {m.value for m in words}
    if len(values) > 1 or _BOTH.search(parsed.text):
        return None, tuple(words), "contradictory"
    if not values and not (inverted and len(parsed.text.split()) == 1):  # "Absent." to "Is the heart normal?"
        first = re.split(r"[,.;:!\n]", parsed.text, maxsplit=1)[0]
        whole = one_word(parsed.text) or (one_word(first) if len(first.split()) <= 4 else None)
        return whole, (), ""
    return (values.pop() if values else None), tuple(words), ""


def parse_presence(asked: ParsedQuestion, parsed: Parse) -> ParsedAnswer:
    """Whether an answer says that the finding asked about is there, with every attribute that the question names."""
    word, where, reason = _yesno(parsed, asked.inverted)
    if reason:
        return ParsedAnswer({}, where, reason=reason)
    if asked.concepts:
        return _parse_concepts(asked, parsed, word, where)
    said = claims(parsed.text)
    found = about(asked, said) or _another(asked, said) or _surface(asked, parsed.text)
    decisive, statuses, away = _weigh(asked, found)
    if not found:
        status = _of_the_organ(asked, parsed)
        statuses = {status} if status else statuses
        away = _pronoun(asked, parsed) if status is None else away
    if UNCERTAIN in statuses or "maybe" in parsed.words:
        return ParsedAnswer({}, where, tuple(found), "uncertain")
    yes, no = ("no", "yes") if asked.inverted else ("yes", "no")
    values = {{PRESENT: yes, ABSENT: no}[s] for s in statuses if s in (PRESENT, ABSENT)}
    if away and not values and word != "no":
        values = {no}
    if len(values) > 1 or (values and word is not None and values != {word}):
        return ParsedAnswer({}, where, tuple(found), "contradictory")
    value = next(iter(values), word)
    if value is None and "partial" in statuses:
        return ParsedAnswer({}, where, tuple(found), "incomplete")
    return ParsedAnswer({"presence": value} if value else {}, where, tuple(decisive or found), "", away)


def _weigh(
    asked: ParsedQuestion, found: Sequence[Claim]
) -> tuple[list[Claim], set[str], tuple[tuple[Mention, str], ...]]:
    """The claims that decide, their statuses, and what they say of another place or size than was asked for.

    "partial": the finding is there, but an attribute that the question names is left unsaid.
    """
    decisive, statuses = [], set()
    away: list[tuple[Mention, str]] = []
    elsewhere: list[Claim] = []
    for claim in found:
        relation, differing = _relation(asked, claim)
        if relation is False:
            if claim.status == PRESENT:
                away += differing
                elsewhere.append(claim)
            continue
        if claim.status == PRESENT and relation is None:
            statuses.add("partial")
            continue
        statuses.add(claim.status)
        decisive.append(claim)
    if statuses & {PRESENT, "partial"}:
        away = []
    return decisive or elsewhere, statuses, tuple(away)


def _relation(asked: ParsedQuestion, claim: Claim) -> tuple[bool | None, list[tuple[Mention, str]]]:
    """Whether a claim has every attribute asked for; None where it leaves one unsaid, False where one is another, with
    the mentions that say so."""
    complete: bool | None = True
    differing: list[tuple[Mention, str]] = []
    for kind, wanted in asked.attributes.items():
        if kind == "temporality":
            complete = complete if claim.temporality == wanted else None
            if claim.temporality in ("unchanged", "history"):
                return False, []
            continue
        said = claim.value(kind)
        agrees = None if said is None else same(kind, said, wanted)
        if said == "bilateral" and kind == "side":
            agrees = True  # on both sides is on the left
        if agrees is False:
            differing += [(m, wanted) for m in claim.slots[kind] if m.status != ABSENT or claim.status == ABSENT]
        complete = complete if agrees else None
    return (False, differing) if differing else (complete, [])


def _surface(asked: ParsedQuestion, answer: str) -> list[Claim]:
    """Claims of a finding that the graph lacks, by the words of the question."""
    if asked.finding is not None or not asked.stem:
        return []
    wanted = [set(c.finding.split()) for c in unlisted(asked.stem)]
    return [c for c in unlisted(answer) if any(w <= set(c.finding.split()) for w in wanted)]


def _of_the_organ(asked: ParsedQuestion, parsed: Parse) -> str | None:
    """The status that "it is deviated" gives the finding, where the question names the organ."""
    if asked.organ is None:
        return None
    if asked.inverted and any(_ails(asked.organ, c) for c in claims(parsed.text)):
        return PRESENT
    if any(m.kind == "organ" for m in parsed.mentions):
        return None
    for m in parsed.mentions:
        for finding, status in meanings_of(asked.organ, m):
            if finding == asked.finding:
                return status
    return None


def _ails(organ: str, claim: Claim) -> bool:
    """Whether a claim says that something is wrong with an organ."""
    concept = CONCEPTS.get(claim.finding)
    if claim.status != PRESENT or concept is None or concept.group == "device":
        return False
    return concept.organ == organ or organ in concept.normal or concept.group == ORGAN_GROUP.get(organ)


_EXCLUSIVE = frozenset({"carcinoma", "breast cancer", "brain tumor", "skin tumor"})
"""Families of diagnoses of which one rules out the others."""


def _another(asked: ParsedQuestion, said: Sequence[Claim]) -> list[Claim]:
    """Claims of another diagnosis of the same family: a squamous cell carcinoma is no adenocarcinoma."""
    own = CONCEPTS.get(asked.finding or "")
    if own is None or own.family not in _EXCLUSIVE:
        return []
    others = [c for c in said if c.status == PRESENT and not related(c.finding, own.name) and c.finding in CONCEPTS]
    return [replace(c, status=ABSENT) for c in others if CONCEPTS[c.finding].family == own.family]


def _pronoun(asked: ParsedQuestion, parsed: Parse) -> tuple[tuple[Mention, str], ...]:
    """Another side or size than asked for in an answer that names no finding: "On the right."."""
    if any(m.kind == "finding" for m in parsed.mentions):
        return ()
    said = [m for m in parsed.mentions if m.kind in asked.attributes and m.status == PRESENT]
    values = {(m.kind, m.value) for m in said}
    if values & set(asked.attributes.items()) or ("side", "bilateral") in values:
        return ()
    return tuple(
        (m, asked.attributes[m.kind]) for m in said if same(m.kind, m.value, asked.attributes[m.kind]) is False
    )


def _parse_concepts(asked: ParsedQuestion, parsed: Parse, word: str | None, where: tuple[Mention, ...]) -> ParsedAnswer:
    """Whether an answer says that the image is, or shows, what the question names."""
    statuses: set[str] = set()
    unsaid = False
    for kind, wanted in asked.concepts:
        mentions = [m for m in parsed.mentions if m.kind == kind]
        about = [m for m in mentions if m.value == wanted]
        if about:
            statuses |= {m.status for m in about}
        elif (asked.identity or kind != "organ") and any(
            m.status == PRESENT and same(kind, m.value, wanted) is False for m in mentions
        ):
            statuses.add(ABSENT)
        else:
            unsaid = True
    if UNCERTAIN in statuses:
        return ParsedAnswer({}, where, reason="uncertain")
    said = "no" if ABSENT in statuses else "yes" if statuses else None
    if said and word and said != word:
        return ParsedAnswer({}, where, reason="contradictory")
    if said == "yes" and unsaid and word is None:
        return ParsedAnswer({}, where, reason="incomplete")
    value = said or word
    return ParsedAnswer({"presence": value} if value else {}, where)


def _parse_slot(asked: ParsedQuestion, answer: str) -> ParsedAnswer:
    parsed = parse(answer)
    word, where, reason = _yesno(parsed)
    if reason:
        return ParsedAnswer({}, where, reason=reason)
    kind = next((k for k in asked.truths if k != "yesno"), asked.concepts[0][0] if asked.concepts else "")
    reading = value_of(kind, asked, parsed, answer)
    if reading.reason == "not_said" and word is not None:
        return ParsedAnswer({"yesno": word}, where)
    if reading.reason == "negated" and reading.said.get(kind) == asked.asked and word in (None, "no"):
        return ParsedAnswer({"yesno": "no"}, where, reading.claims, "" if word else "negated")
    if reading.reason:
        return reading
    said = dict(reading.said) | ({"yesno": word} if word else {})
    return replace(reading, said=said, where=reading.where + where)


def _parse_letter(asked: ParsedQuestion, answer: str) -> ParsedAnswer:
    found = letters(answer, asked.options) if asked.lettered else []
    texts = option_texts(answer, asked.options)
    by_letter, by_text = {a for a, _ in found}, {a for a, _, _ in texts}
    if len(by_letter) > 1:
        return ParsedAnswer({}, reason="several_values")
    if not by_letter and len(by_text) > 1:
        return ParsedAnswer({}, reason="several_values")
    if by_letter and by_text and not by_letter <= by_text:
        return ParsedAnswer({}, reason="contradictory")
    said = by_letter or by_text
    if not said:
        meant = option_meant(answer, asked.options)
        if meant is None:
            return ParsedAnswer({}, reason="refusal" if refuses(answer) else "not_said")
        return ParsedAnswer({"letter": meant})
    letter = next(iter(said))
    where = [Mention("letter", letter, i, i + 1, 0, 0) for _, i in found]
    where += [Mention("option", letter, a, b, 0, 0) for got, a, b in texts if got == letter]
    return ParsedAnswer({"letter": letter}, tuple(where))
