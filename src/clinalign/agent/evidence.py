"""One sentence against the facts: its measures and claims, each with every detail that is said of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from clinalign.agent.tools import CORNERS, Fact
from clinalign.agent.words import (
    ALIASES,
    ALL,
    COMPARED,
    DEGREES,
    EYE_ORGANS,
    FRAME,
    HALVES,
    JOIN,
    MANY,
    NUMBER,
    ONLY,
    WHERE,
    WORDS,
    eye_named,
    places,
    strange,
    stranger,
    value_of,
)
from clinalign.language.claims import Claim, claims, unlisted
from clinalign.language.graph import is_a

Status = Literal["supported", "refuted", "unsupported"]
Found = Sequence[tuple[str, Fact]]
"""Facts with the id of the trace's row that holds them."""


@dataclass(frozen=True, slots=True)
class Judged:
    status: Status
    evidence: frozenset[str] = frozenset()
    reason: str = ""


@dataclass(slots=True)
class Part:
    """A claim and the stretch of its sentence that belongs to it."""

    claim: Claim
    text: str
    joined: bool = False


def check_sentence(sentence: str, facts: Found) -> Judged:
    """One sentence against the facts."""
    measured, rest = _measures(sentence, facts)
    judged = [judge for judge in measured]
    spoken = claims(rest)
    strangers = [c for c in unlisted(rest) if not set(WORDS.findall(c.finding.lower())) <= FRAME]
    if not judged and not spoken:
        return Judged("unsupported", reason="no claim can be read in it")
    more = _more(rest, spoken)
    if strangers or more:
        reason = f"says more than the evidence: {strangers[0].finding if strangers else more}"
        judged.append(Judged("unsupported", reason=reason))
    parts = _parts(rest, spoken)
    judged += [_judge(part, sentence, facts) for part in parts]
    if ALL.search(rest) is None:
        judged += _loose_numbers(rest, parts, bool(measured))
    worst = next((j for status in ("refuted", "unsupported") for j in judged if j.status == status), None)
    evidence = frozenset().union(*(j.evidence for j in judged))
    return Judged(worst.status, evidence, worst.reason) if worst else Judged("supported", evidence)


# Measures


def _measures(sentence: str, facts: Found) -> tuple[list[Judged], str]:
    """What a sentence says of measures, and the sentence with these words blanked."""
    names = dict.fromkeys([*ALIASES, *(fact.finding for _, fact in facts if fact.value is not None)])
    judged, rest = [], sentence
    starts = sorted(
        (m.start(), m.end(), n)
        for n in names
        for m in re.finditer(rf"\b{ALIASES.get(n, re.escape(n))}(?!\w)", sentence, re.I)
    )
    for i, (start, end, name) in enumerate(starts):
        if i and start < starts[i - 1][1]:
            continue
        until = starts[i + 1][0] if i + 1 < len(starts) else len(sentence)
        mine = [(row, fact) for row, fact in facts if fact.finding == name]
        tail = sentence[end:until]
        cut = re.search(
            r"[;,]|\b(?:and|but|while|whereas|with)\b(?!\s*(?:the\s+)?(?:left|right|OD|OS)?\s*(?:eye)?\s*[\d.])",
            tail,
            re.I,
        )
        said = tail[: cut.start()] if cut else tail
        judged.append(_measure(name, said, sentence, mine))
        rest = rest[:start] + " " * (end + len(said) - start) + rest[end + len(said) :]
    return judged, rest


def _measure(name: str, said: str, sentence: str, mine: Found) -> Judged:
    if not mine:
        return Judged("unsupported", reason=f"{name} was not measured")
    eye, many = eye_named(said) or eye_named(sentence), len({fact.laterality for _, fact in mine}) > 1
    here = [(row, fact) for row, fact in mine if not eye or fact.laterality == eye]
    if not here or (many and not eye):
        return Judged("unsupported", reason=f"{name} was not measured in this eye")
    rows = frozenset(row for row, _ in here)
    values = {fact.value for _, fact in here}
    if any(isinstance(value, str) for value in values):
        words = re.sub(r"^\W*(?:is|was|:|=)?\s*", "", said).strip(" .").lower()
        agrees = bool(words) and words in {str(value).lower() for value in values}
        leftover = not words
    else:
        numbers = [match[0] for match in NUMBER.finditer(said)]
        denied = re.search(r"\b(?:not|never|no)\b", said, re.I) is not None
        leftover = len(numbers) != 1 or denied or bool(strange(said))
        agrees = not leftover and all(_fits(said, numbers[0], float(value)) for value in values if value is not None)
    if leftover:
        return Judged("unsupported", reason=f"what is said of the {name} cannot be read")
    shown = ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
    return Judged("supported", rows) if agrees else Judged("refuted", rows, f"the {name} is {shown}")


def _fits(said: str, number: str, value: float) -> bool:
    """Whether a value is what is said of it, to the decimals that are said."""
    spoken = value_of(number)
    for pattern, holds in COMPARED:
        if pattern.search(said):
            return bool(holds(value, spoken))
    decimals = len(number.partition(".")[2])
    return abs(value - spoken) <= 0.5 * 10**-decimals + 1e-9 if decimals else abs(value - spoken) < 1e-9


# Findings


def _parts(text: str, spoken: Sequence[Claim]) -> list[Part]:
    """Each claim with its stretch of the sentence: cut where a comma or a joining word stands between two claims."""
    ordered = sorted(spoken, key=lambda c: (c.start, c.end))
    parts, start = [], 0
    for i, claim in enumerate(ordered):
        stop, joined = len(text), False
        if i + 1 < len(ordered) and ordered[i + 1].start >= claim.end:
            between = text[claim.end : ordered[i + 1].start]
            joins = list(JOIN.finditer(between))
            stop = claim.end + (joins[0 if len(joins) == 1 else -1].start() if joins else 0)
            joined = bool(joins) and not _strange_between(between)
        parts.append(Part(claim, text[start:stop], joined))
        start = stop
    for part, after in reversed(list(zip(parts, parts[1:]))):
        if part.joined and not WHERE.search(part.text) and not ALL.search(part.text):
            part.text += " " + _tail(after.text)
    return parts


def _strange_between(between: str) -> bool:
    """Whether two claims are joined by more than a comma or an "and"."""
    return bool(re.sub(r"\b(?:and|or|nor|no|as well as|the|any)\b|[,\s]", "", between, flags=re.I))


def _tail(text: str) -> str:
    """The words of a stretch that say where."""
    return " ".join(
        m[0] for m in re.finditer(f"{ONLY.pattern}|{ALL.pattern}|{WHERE.pattern}|[,]|\\band\\b", text, re.I)
    )


def _judge(part: Part, sentence: str, facts: Found) -> Judged:
    claim = part.claim
    same = [(row, fact) for row, fact in facts if fact.value is None and _same(claim, fact)]
    eye = eye_named(part.text) or eye_named(sentence)
    here = [(row, fact) for row, fact in same if not eye or fact.laterality == eye]
    if eye == "OU" and {fact.laterality for _, fact in same} >= {"OD", "OS"}:
        here = same
    if not here:
        other = frozenset(row for row, _ in same)
        wrong_eye = bool(same) and eye in ("OD", "OS") and {f.laterality for _, f in same} <= {"OD", "OS"}
        if wrong_eye and claim.status == "present":
            return Judged("refuted", other, f"{claim.finding}: the image shows the other eye")
        return Judged("unsupported", other, f"{claim.finding} was not looked for" if not same else "not in this eye")
    judged = [_agrees(part, row, fact) for row, fact in here]
    if claim.status == "present" and eye != "OU":
        best = next((j for s in ("supported", "refuted", "unsupported") for j in judged if j.status == s), judged[0])
        return best
    worst = next((j for s in ("refuted", "unsupported", "supported") for j in judged if j.status == s), judged[0])
    return Judged(worst.status, frozenset().union(*(j.evidence for j in judged)), worst.reason)


def _same(claim: Claim, fact: Fact) -> bool:
    """Whether a fact decides a claim: a kind of it that is there, or anything of which it is a kind."""
    if fact.finding == claim.finding:
        return True
    return is_a(fact.finding, claim.finding) if fact.status == "present" else is_a(claim.finding, fact.finding)


def _agrees(part: Part, row: str, fact: Fact) -> Judged:
    claim, rows = part.claim, frozenset({row})
    if claim.temporality:
        return Judged("unsupported", rows, f"{claim.temporality}: nothing earlier was seen")
    if claim.status == "uncertain":
        return Judged("supported" if fact.status == "present" else "unsupported", rows, "left open")
    if claim.slots.get("measurement"):
        return Judged("unsupported", rows, f"{claim.finding} was not measured")
    elsewhere = _elsewhere(claim)
    if elsewhere:
        return Judged("unsupported", rows, f"nothing tells of the {elsewhere}")
    place = _placed(part.text, fact)
    if claim.status == "absent":
        inside = place in ("", "agrees", "touches")
        if fact.status == "absent" or place == "differs":
            return Judged("supported", rows)
        return Judged("refuted" if inside else "unsupported", rows, f"{claim.finding} is there")
    if fact.status == "absent":
        return Judged("refuted", rows, f"{claim.finding} is not there")
    if place in ("differs", "touches"):
        return Judged("refuted", rows, f"{claim.finding} lies {'; '.join(fact.corners)}")
    if place == "unknown":
        return Judged("unsupported", rows, f"where {claim.finding} lies is not known")
    return _degree(part, row, fact) or Judged("supported", rows)


def _degree(part: Part, row: str, fact: Fact) -> Judged | None:
    """What is wrong with the number or severity that a claim states, if anything."""
    claim, rows = part.claim, frozenset({row})
    for kind in DEGREES:
        for mention in claim.slots.get(kind, ()):
            if mention.value != fact.severity:
                status: Status = (
                    "refuted" if fact.severity and mention.value in ("mild", "moderate", "severe") else "unsupported"
                )
                return Judged(status, rows, f"{claim.finding}: {mention.value} is not what was found")
    text = ALL.sub(" ", part.text)
    number = next(iter(NUMBER.finditer(text)), None)
    if number is not None and fact.count is not None and value_of(number[0]) != fact.count:
        return Judged("refuted", rows, f"{fact.count} of {claim.finding} were found")
    if number is not None and fact.count is None or (MANY.search(text) and (fact.count or 0) < 2):
        return Judged("unsupported", rows, f"how many of {claim.finding} there are is not known")
    return None


def _placed(text: str, fact: Fact) -> Literal["", "agrees", "touches", "differs", "unknown"]:
    """Where a claim puts a finding, against where it lies: not said; all of it right; right in part; wrong; not
    known."""
    if ALL.search(text):
        said, halves = set(CORNERS), set(HALVES)
        only, whole = True, True
    else:
        said, halves = places(text)
        only, whole = bool(ONLY.search(text)), False
    if not said and not halves:
        return ""
    if not fact.corners:
        return "unknown" if fact.status == "present" else "differs"
    there = set(fact.corners)
    sides = {half for corner in there for half in corner.split()}
    if whole:
        return "agrees" if there == said else "touches"
    inside = said <= there and halves <= sides
    if only:
        inside = inside and (
            there <= said if said and not halves else sides == halves | {h for c in said for h in c.split()}
        )
    return "agrees" if inside else "touches" if said & there or halves & sides else "differs"


def _elsewhere(claim: Claim) -> str:
    """A place in the eye that a claim names and no fact knows, such as the macula."""
    names = [m.value for kind in ("location", "organ") for m in claim.slots.get(kind, ())]
    return next((n for n in names if n not in EYE_ORGANS and not WHERE.search(n)), "")


def _more(text: str, spoken: Sequence[Claim]) -> str:
    """The first word that is neither part of a claim nor of the frame of a sentence; "" where there is none."""
    taken = [(c.start, c.end) for c in spoken] + [c.cue for c in spoken if c.cue]
    taken += [(m.start, m.end) for c in spoken for mentions in c.slots.values() for m in mentions]
    for m in WORDS.finditer(text):
        if not any(a <= m.start() and m.end() <= b for a, b in taken) and stranger(m[0]):
            return m[0]
    return ""


def _loose_numbers(text: str, parts: Sequence[Part], measured: bool) -> list[Judged]:
    """Numbers of a sentence that belong to no claim."""
    inside = sum(len(NUMBER.findall(part.text)) for part in parts)
    loose = len(NUMBER.findall(text)) > inside or any(len(NUMBER.findall(p.text)) > 1 for p in parts)
    return [Judged("unsupported", reason="a number that nothing was measured for")] if loose else []
