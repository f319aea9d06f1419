"""Findings made narrower by what is said with them: an "effusion" of the knee, "edema" beside a cardiomegaly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from clinalign.language.attach import Slots
from clinalign.language.cues import ENDS_SCOPE
from clinalign.language.graph import CONCEPTS, GENERIC, related
from clinalign.language.lexicon import narrowed
from clinalign.language.parse import ABSENT, PRESENT, UNCERTAIN, Mention, Parse

JOINTS = "knee hip shoulder elbow wrist ankle foot hand joint patella".split()
_FLUID = {"pleura": "pleural effusion", "abdomen": "ascites", "pelvis": "ascites", "peritoneum": "ascites"}
_ELSEWHERE = {("pleural effusion", "effusion", joint): "joint effusion" for joint in JOINTS}
_ELSEWHERE |= {("fluid", "fluid", joint): "joint effusion" for joint in JOINTS}
_ELSEWHERE |= {("fluid", "fluid", organ): finding for organ, finding in _FLUID.items()}
"""(finding, its word, organ) -> the finding that it is there."""

_REGION = {"lung": "lung", "pleura": "lung", "heart": "lung", "mediastinum": "lung", "brain": "brain", "eye": "retina"}
"""Group of findings -> the organ that an unspecific finding beside them is in."""

_UNSPECIFIC = frozenset("edema hemorrhage atrophy infection".split())
_CONCLUDES = frozenset(
    "suggest suggests suggesting suggestive suspicious concerning likely representing represents raising consistent "
    "compatible indicating indicates worrisome may could probably possibly".split()
)


def repeated(parsed: Parse, findings: Sequence[Mention]) -> set[int]:
    """Findings (by index) that the next one says again: "blunting suggests an effusion", "Effusion: no effusion"."""
    out = set()
    for n, (a, b) in enumerate(zip(findings, findings[1:])):
        between = parsed.words[a.last : b.first]
        if not related(a.value, b.value) or a.cue is not None or any(w in (";", "but") for w in between):
            continue
        if between[:1] == (":",) or (a.value == b.value and between and _CONCLUDES & set(between)):
            out.add(n)
    return out


def disjoined(parsed: Parse, findings: Sequence[Mention]) -> list[Mention]:
    """The findings, those of "A or B" uncertain: neither is asserted."""
    hedged: set[int] = set()
    for n, (a, b) in enumerate(zip(findings, findings[1:])):
        between = parsed.words[a.last : b.first]
        if between[:1] == ("or",) and len(between) <= 2 and a.status == b.status == PRESENT and a.value != b.value:
            hedged |= {n, n + 1}
    return [
        replace(m, status=UNCERTAIN, cue=(m.start, m.end), cue_kind="hedge") if n in hedged else m
        for n, m in enumerate(findings)
    ]


def refined(parsed: Parse, m: Mention, slots: Slots, mentions: Sequence[Mention]) -> str:
    """The finding that a mention means where it stands."""
    organs = [o.value for o in slots.get("organ", ()) if o.status != ABSENT or m.status == ABSENT]
    for o in reversed(mentions):
        if o.kind == "organ" and o.last <= m.first and not _apart(parsed, o.last, m.first):
            organs.append(o.value)
    word = parsed.words[m.last - 1].rstrip("s") if m.last - m.first == 1 else ""
    said = " ".join(parsed.words[m.first : m.last])
    head = "abnormality" if m.value.endswith(" abnormality") and m.value in GENERIC else m.value
    for organ in organs:
        found = _ELSEWHERE.get((m.value, word, organ)) or narrowed(head, organ, said)
        if found is not None:
            return found
    if m.value not in _UNSPECIFIC:
        return m.value
    around = region(mentions, m) or region(parsed.mentions, m)
    return (around and narrowed(m.value, around)) or m.value


def _apart(parsed: Parse, first: int, last: int) -> bool:
    between = parsed.words[first:last]
    between = between[1:] if between[:1] == (":",) else between  # "Bones: no abnormality"
    return any(word in ENDS_SCOPE or word == "," for word in between)


def region(mentions: Sequence[Mention], but: Mention) -> str | None:
    """The organ that most findings and organs named are of, or lie beside."""
    counts: Counter[str] = Counter()
    for m in mentions:
        if m.kind == "finding" and m.value != but.value and m.value in CONCEPTS:
            counts[_REGION.get(CONCEPTS[m.value].group, "")] += 1
        elif m.kind == "organ":
            counts[_ORGAN_REGION.get(m.value, "")] += 1
    del counts[""]
    return counts.most_common(1)[0][0] if counts else None


_ORGAN_REGION = {"lung": "lung", "chest": "lung", "heart": "lung", "pleura": "lung", "mediastinum": "lung"}
_ORGAN_REGION |= {"brain": "brain", "head": "brain", "ventricle": "brain", "cistern": "brain", "skull": "brain"}
_ORGAN_REGION |= {"retina": "retina", "macula": "retina", "eye": "retina", "optic disc": "retina"}
"""Organ -> the region it tells of."""
