"""Claims of a text: each finding with its assertion status and the sides, zones, sizes ... said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from clinalign.language.cues import ENDS_SCOPE
from clinalign.language.lexicon import ORGAN_GROUP, SLOTS
from clinalign.language.parse import ABSENT, PRESENT, Mention, Parse, parse

ENLARGED = {
    "heart": "cardiomegaly",
    "mediastinum": "enlarged mediastinum",
    "liver": "hepatomegaly",
    "spleen": "splenomegaly",
    "ventricle": "hydrocephalus",
}
"""Organ called enlarged -> the finding that this is."""

_PARTIAL = frozenset("otherwise remaining remainder other additional new acute active else further recent".split())
_BREAKS_NOUN_PHRASE = frozenset(
    ", and or of in on at with within is are was were the a an ; : to no from by shows show contains which that side "
    "half zone region has have near involving measuring".split()
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A finding said to be present, absent or uncertain, with its slots.

    `start`, `end`: characters of the finding's words; `cue`: characters of what negates or hedges it, if anything;
    `sentence`: characters of its sentence; `slots`: kind ("side", "zone", "size", ...) -> mentions, text order.
    `implied` is true where no finding is named ("the heart is normal"), then the range is that of the judging word;
    `partial` where the claim leaves something out of account ("otherwise", "remaining", "acute", "new").
    """

    finding: str
    status: str
    start: int
    end: int
    cue: tuple[int, int] | None
    sentence: tuple[int, int]
    mention: Mention
    slots: Mapping[str, tuple[Mention, ...]] = field(default_factory=dict)
    implied: bool = False
    partial: bool = False

    def value(self, slot: str) -> str | None:
        """The one value of a slot; left and right together are bilateral; None where unsaid or ambiguous."""
        values = {m.value for m in self.slots.get(slot, ()) if m.status == self.status or m.status == PRESENT}
        if slot == "side" and values >= {"left", "right"}:
            return "bilateral"
        return values.pop() if len(values) == 1 else None

    @property
    def side(self) -> str | None:
        return self.value("side")

    @property
    def zone(self) -> str | None:
        return self.value("zone")

    @property
    def size(self) -> str | None:
        return self.value("size")


def claims(text: str) -> list[Claim]:
    """Every claim of a text in order. Character ranges are into `text`."""
    return list(_claims(text))


@lru_cache(maxsize=16384)
def _claims(text: str) -> tuple[Claim, ...]:
    parsed = parse(text)
    out: list[Claim] = []
    for first, last in parsed.sentences:
        mentions = [m for m in parsed.mentions if first <= m.first < last]
        findings = [m for m in mentions if m.kind == "finding"]
        slots = _attach(parsed, mentions, findings)
        span = (parsed.spans[first][0], parsed.spans[last - 1][1])
        if not findings and out and slots is not None:
            _carry_over(parsed, (first, last), mentions, out)
        for n, m in enumerate(findings):
            partial = any(word in _PARTIAL for word in parsed.words[max(first, m.first - 5) : m.last])
            out.append(Claim(m.value, m.status, m.start, m.end, m.cue, span, m, slots[n], False, partial))
        out += _implied(parsed, mentions, (first, last))
    return tuple(out)


def _attach(parsed: Parse, mentions: list[Mention], findings: list[Mention]) -> list[dict[str, tuple[Mention, ...]]]:
    slots: list[dict[str, tuple[Mention, ...]]] = [{} for _ in findings]
    if not findings:
        return slots
    for m in mentions:
        if m.kind not in SLOTS:
            continue
        following = next((n for n, f in enumerate(findings) if f.first >= m.last), None)
        before = next((n for n in range(len(findings) - 1, -1, -1) if findings[n].last <= m.first), None)
        if following is not None and _modifies(parsed, m, findings[following]):
            owner = following
        elif before is not None and not _broken(parsed, findings[before].last, m.first):
            owner = before
        elif following is not None and not _broken(parsed, m.last, findings[following].first):
            owner = following
        else:
            continue
        slots[owner][m.kind] = (*slots[owner].get(m.kind, ()), m)
        if owner == before:
            _share(parsed, findings, slots, owner, m)
    return slots


def _modifies(parsed: Parse, m: Mention, finding: Mention) -> bool:
    """Whether a mention stands before the finding in its noun phrase: "left pleural effusion"."""
    between = parsed.words[m.last : finding.first]
    return len(between) <= 5 and not any(word in _BREAKS_NOUN_PHRASE for word in between)


def _broken(parsed: Parse, first: int, last: int) -> bool:
    """Whether another clause begins between two words; ", although small," is none."""
    for i in range(first, last):
        if parsed.words[i] in ENDS_SCOPE and not (
            parsed.words[i] in ("although", "though", "albeit") and "," in parsed.words[i + 1 : i + 4]
        ):
            return True
    return False


def _share(
    parsed: Parse, findings: list[Mention], slots: list[dict[str, tuple[Mention, ...]]], owner: int, m: Mention
) -> None:
    """A place said after "nodule and mass" holds for both."""
    n = owner
    while n > 0:
        between = parsed.words[findings[n - 1].last : findings[n].first]
        if not between or any(word not in (",", "and", "or", "a", "an") for word in between) or m.kind in slots[n - 1]:
            return
        n -= 1
        slots[n][m.kind] = (m,)


def _carry_over(parsed: Parse, sentence: tuple[int, int], mentions: list[Mention], out: list[Claim]) -> None:
    """ "It is on the left." says it of the finding before."""
    if parsed.words[sentence[0]] not in ("it", "this", "they", "these") or out[-1].implied:
        return
    last = out[-1]
    slots = dict(last.slots)
    for m in mentions:
        if m.kind in SLOTS:
            slots[m.kind] = (*slots.get(m.kind, ()), m)
    out[-1] = replace(last, slots=slots)


def _implied(parsed: Parse, mentions: list[Mention], sentence: tuple[int, int]) -> list[Claim]:
    """ "The heart is normal", "the lungs are clear", "the heart is enlarged": claims that name no finding."""
    first, last = sentence
    span = (parsed.spans[first][0], parsed.spans[last - 1][1])
    out = []
    for m in mentions:
        if m.kind != "normal":
            continue
        for organ in _judged(mentions, parsed, m):
            finding = ENLARGED.get(organ.value)
            if finding is None or m.value == "abnormal":
                if m.value == "enlarged":
                    continue
                finding = f"{ORGAN_GROUP[organ.value]} abnormality" if organ.value in ORGAN_GROUP else "abnormality"
            denies = (m.value == "normal") == (m.status != ABSENT)
            status = m.status if m.status not in (PRESENT, ABSENT) else ABSENT if denies else PRESENT
            sides = tuple(s for s in mentions if s.kind == "side" and s.last == organ.first)
            partial = any(word in _PARTIAL for word in parsed.words[first : m.last])
            slots = {"side": sides} if sides else {}
            out.append(Claim(finding, status, m.start, m.end, m.cue, span, m, slots, True, partial))
    return out


def _judged(mentions: list[Mention], parsed: Parse, normal: Mention) -> list[Mention]:
    """The organs that a "normal" or "enlarged" is said of: those before it in its clause, or the one right after."""
    organs = [o for o in mentions if o.kind == "organ"]
    after = [
        o for o in organs if o.first >= normal.last and _modifies(parsed, normal, o) and normal.value != "abnormal"
    ]
    if after:
        return after[:1]
    before = [o for o in organs if o.last <= normal.first and not _broken(parsed, o.last, normal.first)]
    taken = [n for n in mentions if n.kind in ("normal", "finding") and n.last <= normal.first]
    return [o for o in before if not any(n.first >= o.last for n in taken)]
