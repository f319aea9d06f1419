"""Claims that name no finding: "the heart is normal", "the lungs are clear", "the gallbladder is distended"."""

from __future__ import annotations

from collections.abc import Iterator

from clinalign.language.attach import Slots, broken, modifies
from clinalign.language.graph import NORMALS, ORGAN_GROUP, STATES
from clinalign.language.parse import ABSENT, PRESENT, Mention, Parse

_PARTIAL = frozenset("otherwise remaining remainder other additional new acute active else further recent".split())
_JUDGED_BY_SIZE = ("enlarged", "abnormal", "normal")

Implied = tuple[Mention, str, str, Slots, bool]


def implied(
    parsed: Parse, mentions: list[Mention], findings: list[Mention], sentence: tuple[int, int]
) -> Iterator[Implied]:
    """(judging word, finding, status, slots, partial) of every organ that is judged."""
    first, last = sentence
    taken = {i for f in findings for i in range(f.first, f.last)}
    for m in mentions:
        if m.first in taken:
            continue
        if m.kind == "side" and m.value == "midline" and m.status in (PRESENT, ABSENT):
            if any(o.kind == "organ" and o.value == "trachea" and o.last <= m.first for o in mentions):
                yield m, "tracheal deviation", ABSENT if m.status == PRESENT else PRESENT, {}, False
            continue
        if m.kind != "normal":
            continue
        for organ in judged(mentions, parsed, m):
            finding = _finding(organ.value, m.value)
            if finding is None:
                continue
            denies = (m.value == "normal") == (m.status != ABSENT)
            status = m.status if m.status not in (PRESENT, ABSENT) else ABSENT if denies else PRESENT
            partial = any(word in _PARTIAL for word in parsed.words[first : m.last])
            yield m, finding, status, _slots(mentions, parsed, organ, m), partial


def _slots(mentions: list[Mention], parsed: Parse, organ: Mention, judging: Mention) -> Slots:
    """The side named with the organ, and how far its state goes: "moderately enlarged"."""
    sides = tuple(s for s in mentions if s.kind == "side" and s.last == organ.first)
    out: Slots = {"side": sides} if sides else {}
    if not sides and judging.value != "normal":
        later = tuple(s for s in mentions if s.kind == "side" and 0 <= s.first - judging.last <= 2)
        out |= {"side": later} if later else {}
    for kind in ("severity", "size"):
        said = tuple(s for s in mentions if s.kind == kind and s.last == judging.first)
        if said and judging.value != "normal":
            out[kind] = said
    return out


def _finding(organ: str, said: str) -> str | None:
    """What an organ's state means: the finding present, or denied where the organ is normal."""
    if said not in ("normal", "abnormal"):
        return STATES.get((organ, said))
    if said == "abnormal" or organ not in NORMALS:
        return f"{ORGAN_GROUP[organ]} abnormality" if organ in ORGAN_GROUP else "abnormality"
    return NORMALS[organ]


def judged(mentions: list[Mention], parsed: Parse, normal: Mention) -> list[Mention]:
    """The organs that a "normal" or "enlarged" is said of: those before it in its clause, or the one right after."""
    organs = [o for o in mentions if o.kind == "organ"]
    after = [o for o in organs if o.first >= normal.last and modifies(parsed, normal, o) and normal.value != "abnormal"]
    if after:
        return after[:1]
    before = [o for o in organs if o.last <= normal.first and not _apart(parsed, o.last, normal.first)]
    taken = [n for n in mentions if n.kind in ("normal", "finding") and n.last <= normal.first]
    return [o for o in before if not any(n.first >= o.last for n in taken)]


def _apart(parsed: Parse, first: int, last: int) -> bool:
    """Whether another clause begins between an organ and its judgement; a label's colon is none: "Heart: normal"."""
    if ":" in parsed.words[first:last] and ";" not in parsed.words[first:last]:
        colon = parsed.words.index(":", first)
        return broken(parsed, first, colon) or broken(parsed, colon + 1, last)
    return broken(parsed, first, last)
