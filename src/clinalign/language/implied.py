"""Claims that name no finding: "the heart is normal", "the lungs are clear", "the gallbladder is distended"."""

from __future__ import annotations

from collections.abc import Iterator

from clinalign.language.attributes import Slots, broken, modifies
from clinalign.language.graph import NORMALS, ORGAN_GROUP, STATES
from clinalign.language.parse import ABSENT, PRESENT, Mention, Parse

PARTIAL = frozenset("otherwise remaining remainder other additional new acute active else further recent".split())
"""Words that leave something out of account: "otherwise normal", "no acute fracture"."""
IMAGES = frozenset("x-ray ct mri ultrasound mammography chest abdomen head pelvis neck".split())
"""What stands for the whole image when it is called normal."""

NEGATIVES = {"margin": "positive margin", "lymph node": "lymph node metastasis"}
"""Organ -> the finding that "negative" denies of it."""

RATIOS = {"heart": (0.5, "cardiomegaly"), "cup": (0.6, "cupping")}
"""Organ of a ratio -> from which value on a finding is present: "cardiothoracic ratio of 0.58"."""

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
        if m.kind == "side" and m.value == "midline":
            if any(o.kind == "organ" and o.value == "trachea" and o.last <= m.first for o in mentions):
                yield m, "tracheal deviation", _opposite(m.status), {}, False
            continue
        if m.kind == "organ" and m.value in RATIOS:
            yield from _ratio(parsed, m, mentions)
        if m.kind != "normal":
            continue
        for organ in {o.value: o for o in judged(mentions, parsed, m)}.values():
            partial = any(word in PARTIAL for word in parsed.words[first : m.last])
            for finding, status in meanings_of(organ.value, m):
                yield m, finding, status, _slots(mentions, parsed, organ, m), partial
        if m.value == "normal" and m.status == PRESENT and _of_hardware(parsed, m, mentions):
            yield m, "hardware complication", ABSENT, {}, False


def _ratio(parsed: Parse, organ: Mention, mentions: list[Mention]) -> Iterator[Implied]:
    words = parsed.words[organ.first : organ.last]
    if "ratio" not in words and words[0] not in ("ctr", "cdr"):
        return
    limit, finding = RATIOS[organ.value]
    for m in mentions:
        if m.kind in ("number", "measurement") and 0 <= m.first - organ.last <= 4:
            value = float(m.value.split()[0]) / (100 if m.value.endswith("%") or float(m.value.split()[0]) > 1 else 1)
            yield m, finding, PRESENT if value > limit else ABSENT, _slots(mentions, parsed, organ, m), False
            return


def _slots(mentions: list[Mention], parsed: Parse, organ: Mention, judging: Mention) -> Slots:
    """The side named with the organ, and how far its state goes: "moderately enlarged"."""
    sides = tuple(s for s in mentions if s.kind == "side" and s.last == organ.first)
    if not sides:
        later = [s for s in mentions if s.kind == "side" and 0 <= s.first - judging.last <= 4]
        sides = tuple(s for s in later if "," not in parsed.words[judging.last : s.first])
    out: Slots = {"side": sides} if sides else {}
    for kind in ("severity", "size"):
        said = tuple(s for s in mentions if s.kind == kind and s.last == judging.first)
        if said and judging.value != "normal":
            out[kind] = said
    return out


def meanings_of(organ: str, m: Mention) -> list[tuple[str, str]]:
    """The findings, with their status, that a judging word says of an organ: "enlarged" of the heart."""
    if m.kind == "side" and (organ, m.value) == ("trachea", "midline"):
        return [("tracheal deviation", _opposite(m.status))]
    if m.kind != "normal":
        return []
    status = _opposite(m.status) if m.value in ("normal", "negative") else m.status
    return [(finding, status) for finding in _findings(organ, m.value)]


def _of_hardware(parsed: Parse, m: Mention, mentions: list[Mention]) -> bool:
    """Whether "intact" is said of an implant."""
    return any(f.value in ("hardware", "prosthesis", "orif") and 0 < m.first - f.last <= 2 for f in mentions)


def _opposite(status: str) -> str:
    """What "normal" said so means for the finding that it denies."""
    return {PRESENT: ABSENT, ABSENT: PRESENT}.get(status, status)


def _findings(organ: str, said: str) -> tuple[str, ...]:
    """What an organ's state means: the finding present, or those denied where the organ is normal."""
    organ = organ if organ not in IMAGES else "image"
    if said == "negative":
        return (NEGATIVES[organ],) if organ in NEGATIVES else ()
    if said not in ("normal", "abnormal"):
        return (STATES[organ, said],) if (organ, said) in STATES else ()
    if said == "abnormal" or organ not in NORMALS:
        return (f"{ORGAN_GROUP[organ]} abnormality" if organ in ORGAN_GROUP else "abnormality",)
    return NORMALS[organ]


def judged(mentions: list[Mention], parsed: Parse, normal: Mention) -> list[Mention]:
    """The organs that a "normal" or "enlarged" is said of: those before it in its clause, or the one right after."""
    organs = [o for o in mentions if o.kind in ("organ", "image", "modality")]
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
