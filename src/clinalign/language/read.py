"""What an answer says to what was asked: the value that each kind of question wants, and the words that say it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from clinalign.language.answers import cleaned, concluding, one_word, refuses
from clinalign.language.asking import Asked
from clinalign.language.claims import Claim, claims
from clinalign.language.compat import same
from clinalign.language.graph import CONCEPTS, GENERIC, ORGAN_GROUP, is_a, related
from clinalign.language.implied import meanings_of
from clinalign.language.options import letters, option_meant, option_texts
from clinalign.language.parse import ABSENT, PRESENT, UNCERTAIN, Mention, Parse, parse
from clinalign.language.unlisted import unlisted

_CORNERS = re.compile(r"b?box_2d|<\|?/?(?:box|object_ref|loc|ref)|\bx_?(?:1|min)\b|\b(?:left|top)\W{0,3}:", re.I)
"""How models write the corners of a box: Qwen's and Gemini's keys, box tokens, x1, xmin."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says to what was asked: `said` by kind of slot, and the words that say it. `away`: mentions of
    another side, size ... than the question names, each with the value that it names."""

    said: Mapping[str, str]
    where: tuple[Mention, ...] = ()
    claims: tuple[Claim, ...] = ()
    reason: str = ""
    away: tuple[tuple[Mention, str], ...] = ()


def read(asked: Asked, answer: str) -> Reading:
    """What the answer says to the question."""
    from clinalign.language import read_open

    if asked.kind == "box" and _CORNERS.search(answer):  # not x, y, w, h, and often not in pixels: the family knows
        return Reading({}, reason="box_of_corners")
    answer = cleaned(answer)
    if asked.kind == "letter":
        return _read_letter(asked, answer)
    if asked.kind == "box":
        found = re.findall(r"\[?\s*(\d+(?:\.\d+)?(?:\s*,\s*\d+(?:\.\d+)?){3})\s*\]?", answer)
        return Reading({"box": found[0]}) if len(found) == 1 else Reading({}, reason="not_said")
    if asked.kind in ("presence", "slot"):
        answer = concluding(answer)
        reading = read_presence(asked, parse(answer)) if asked.kind == "presence" else _read_slot(asked, answer)
    else:
        reading = read_open.read_open(asked, answer)
    undecided = not reading.said and reading.reason in ("", "not_said", "uncertain", "cannot_tell")
    return Reading({}, reading.where, reason="refusal") if undecided and refuses(answer) else reading


def _yesno(parsed: Parse, inverted: bool = False) -> tuple[str | None, tuple[Mention, ...], str]:
    """The yes or no of an answer, its words, and "contradictory" where it says both."""
    words = parsed.of("yesno")
    values = {m.value for m in words}
    if len(values) > 1:
        return None, tuple(words), "contradictory"
    if not values and not (inverted and len(parsed.text.split()) == 1):  # "Absent." to "Is the heart normal?"
        first = re.split(r"[,.;:!\n]", parsed.text, maxsplit=1)[0]
        whole = one_word(parsed.text) or (one_word(first) if len(first.split()) <= 4 else None)
        return whole, (), ""
    return (values.pop() if values else None), tuple(words), ""


def read_presence(asked: Asked, parsed: Parse) -> Reading:
    """Whether an answer says that the finding asked about is there, with every attribute that the question names."""
    word, where, reason = _yesno(parsed, asked.inverted)
    if reason:
        return Reading({}, where, reason=reason)
    if asked.concepts:
        return _read_concepts(asked, parsed, word, where)
    said = claims(parsed.text)
    found = about(asked, said) or _another(asked, said) or _surface(asked, parsed.text)
    decisive, statuses, away = _weigh(asked, found)
    if not found:
        status = _of_the_organ(asked, parsed)
        statuses = {status} if status else statuses
        away = _pronoun(asked, parsed) if status is None else away
    if UNCERTAIN in statuses or "maybe" in parsed.words:
        return Reading({}, where, tuple(found), "uncertain")
    yes, no = ("no", "yes") if asked.inverted else ("yes", "no")
    values = {{PRESENT: yes, ABSENT: no}[s] for s in statuses if s in (PRESENT, ABSENT)}
    if away and not values and word != "no":
        values = {no}
    if len(values) > 1 or (values and word is not None and values != {word}):
        return Reading({}, where, tuple(found), "contradictory")
    value = next(iter(values), word)
    if value is None and "partial" in statuses:
        return Reading({}, where, tuple(found), "incomplete")
    return Reading({"presence": value} if value else {}, where, tuple(decisive or found), "", away)


def _weigh(asked: Asked, found: Sequence[Claim]) -> tuple[list[Claim], set[str], tuple[tuple[Mention, str], ...]]:
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


def _relation(asked: Asked, claim: Claim) -> tuple[bool | None, list[tuple[Mention, str]]]:
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


def about(asked: Asked, said: Sequence[Claim]) -> list[Claim]:
    """The claims that decide the presence of the asked finding."""
    if asked.finding is None or not said:
        return []
    direct = [c for c in said if c.finding == asked.finding] or [c for c in said if c.finding in asked.names]
    if len(direct) == len(said) or (direct and not asked.attributes and all(c.status == ABSENT for c in direct)):
        return direct
    kinds = [c for c in said if c.status != ABSENT and c not in direct and is_a(c.finding, asked.finding)]
    if asked.finding != "device":
        kinds = [c for c in kinds if c.finding not in CONCEPTS or CONCEPTS[c.finding].group != "device"]
    if direct or kinds:
        return direct + kinds
    denied = [c for c in said if c.status == ABSENT and is_a(asked.finding, c.finding)]
    if denied or asked.finding in CONCEPTS:
        return denied
    return [c for c in said if c.status == ABSENT and c.finding in GENERIC and is_a(c.finding, asked.finding)]


def _surface(asked: Asked, answer: str) -> list[Claim]:
    """Claims of a finding that the graph lacks, by the words of the question."""
    if asked.finding is not None or not asked.stem:
        return []
    wanted = [set(c.finding.split()) for c in unlisted(asked.stem)]
    return [c for c in unlisted(answer) if any(w <= set(c.finding.split()) for w in wanted)]


def _of_the_organ(asked: Asked, parsed: Parse) -> str | None:
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


def _another(asked: Asked, said: Sequence[Claim]) -> list[Claim]:
    """Claims of another diagnosis of the same family: a squamous cell carcinoma is no adenocarcinoma."""
    own = CONCEPTS.get(asked.finding or "")
    if own is None or own.swap not in _EXCLUSIVE:
        return []
    others = [c for c in said if c.status == PRESENT and not related(c.finding, own.name) and c.finding in CONCEPTS]
    return [replace(c, status=ABSENT) for c in others if CONCEPTS[c.finding].swap == own.swap]


def _pronoun(asked: Asked, parsed: Parse) -> tuple[tuple[Mention, str], ...]:
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


def _read_concepts(asked: Asked, parsed: Parse, word: str | None, where: tuple[Mention, ...]) -> Reading:
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
        return Reading({}, where, reason="uncertain")
    said = "no" if ABSENT in statuses else "yes" if statuses else None
    if said and word and said != word:
        return Reading({}, where, reason="contradictory")
    if said == "yes" and unsaid and word is None:
        return Reading({}, where, reason="incomplete")
    value = said or word
    return Reading({"presence": value} if value else {}, where)


def _read_slot(asked: Asked, answer: str) -> Reading:
    from clinalign.language import read_open

    parsed = parse(answer)
    word, where, reason = _yesno(parsed)
    if reason:
        return Reading({}, where, reason=reason)
    kind = next((k for k in asked.truths if k != "yesno"), asked.concepts[0][0] if asked.concepts else "")
    reading = read_open.value(kind, asked, parsed, answer)
    if reading.reason == "not_said" and word is not None:
        return Reading({"yesno": word}, where)
    if reading.reason == "negated" and reading.said.get(kind) == asked.asked and word in (None, "no"):
        return Reading({"yesno": "no"}, where, reading.claims, "" if word else "negated")
    if reading.reason:
        return reading
    said = dict(reading.said) | ({"yesno": word} if word else {})
    return replace(reading, said=said, where=reading.where + where)


def _read_letter(asked: Asked, answer: str) -> Reading:
    found = letters(answer, asked.options) if asked.lettered else []
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
        meant = option_meant(answer, asked.options)
        if meant is None:
            return Reading({}, reason="refusal" if refuses(answer) else "not_said")
        return Reading({"letter": meant})
    letter = next(iter(said))
    where = [Mention("letter", letter, i, i + 1, 0, 0) for _, i in found]
    where += [Mention("option", letter, a, b, 0, 0) for got, a, b in texts if got == letter]
    return Reading({"letter": letter}, tuple(where))
