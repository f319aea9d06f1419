"""Findings made narrower by what is said with them: an "effusion" of the knee, a "tear of the meniscus"."""

from __future__ import annotations

from dataclasses import replace

from clinalign.language.attach import Slots
from clinalign.language.graph import narrowed, related
from clinalign.language.parse import ABSENT, PRESENT, UNCERTAIN, Mention, Parse

JOINTS = frozenset("knee hip shoulder elbow wrist ankle foot hand joint patella".split())
_ELSEWHERE = {("effusion", "heart"): "pericardial effusion", ("effusion", "mastoid"): "mastoiditis"}
_LINKS = frozenset(
    ", ; suggests suggesting suggestive consistent compatible with of likely representing represents may represent "
    "reflecting reflects a an the in keeping most indicating indicates possible probable small could be to due is are "
    "left right mild moderate large trace".split()
)


def merged(parsed: Parse, mentions: list[Mention]) -> tuple[list[Mention], list[Mention]]:
    """The findings of a sentence, and all its mentions. "A or B" asserts neither; "blunting suggests an effusion" says
    one finding once; a label that its own value repeats is no claim."""
    findings = [m for m in mentions if m.kind == "finding"]
    drop: set[int] = set()
    hedged: set[int] = set()
    for n, (a, b) in enumerate(zip(findings, findings[1:])):
        between = parsed.words[a.last : b.first]
        if list(between) == ["or"] and a.status == b.status == PRESENT and a.value != b.value:
            hedged |= {n, n + 1}
        if not related(a.value, b.value):
            continue
        if between[:1] == (":",) and a.cue is None:
            drop.add(n)
        elif a.value == b.value and a.status == PRESENT and between and all(w in _LINKS for w in between):
            drop.add(n)
    if not drop and not hedged:
        return findings, mentions
    kept = []
    for n, m in enumerate(findings):
        if n not in drop:
            kept.append(replace(m, status=UNCERTAIN, cue=(m.start, m.end), cue_kind="hedge") if n in hedged else m)
    return kept, [m for m in mentions if m.kind != "finding"] + kept


def refined(parsed: Parse, m: Mention, slots: Slots, mentions: list[Mention]) -> tuple[str, Slots]:
    """The finding that a mention means where it stands, with its slots."""
    organs = [o.value for o in slots.get("organ", ()) if o.status != ABSENT or m.status == ABSENT]
    organs += [o.value for o in mentions if o.kind == "organ" and o.value not in organs and o.last <= m.first]
    word = parsed.text[m.start : m.end].lower().rstrip("s")
    if m.value == "pleural effusion" and word == "effusion":
        for organ in organs:
            if organ in JOINTS:
                return "joint effusion", slots
            if (word, organ) in _ELSEWHERE:
                return _ELSEWHERE[word, organ], slots
    finding = m.value
    for organ in organs:
        found = narrowed(finding, organ)
        if found is not None:
            return found, slots
    return finding, slots
