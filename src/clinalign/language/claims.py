"""Claims of a text: each finding with its assertion status and everything that is said of it; findings that the concept
graph does not know by their own words; claims that contradict each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import combinations

from clinalign.language.attributes import attach, disjoined, refined, repeated, temporality
from clinalign.language.graph import CONCEPTS, DATA, is_a
from clinalign.language.implied import PARTIAL, implied
from clinalign.language.lexicon import SLOTS, singular
from clinalign.language.parse import ABSENT, PRESENT, UNCERTAIN, Mention, Parse, asserted, parse


@dataclass(frozen=True, slots=True)
class Claim:
    """A finding said to be present, absent or uncertain, with its slots.

    `start`, `end`: characters of the finding's words; `cue`: characters of what negates or hedges it, if anything;
    `sentence`: characters of its sentence; `slots`: kind ("side", "zone", "size", "measurement" in mm, ...) ->
    mentions, text order. `implied` is true where no finding is named ("the heart is normal"), then the range is
    that of the judging word; `partial` where the claim leaves something out of account ("otherwise", "remaining",
    "acute", "new"). `temporality`: new, unchanged, increased, decreased, resolved, history or "". `section`:
    history, indication or technique where the claim stands in a section that reports nothing of this image: then it
    is uncertain.
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
    temporality: str = ""
    section: str = ""

    def value(self, slot: str) -> str | None:
        """The one value of a slot; left and right together are bilateral; None where unsaid or ambiguous."""
        values = {m.value for m in self.slots.get(slot, ()) if m.status == self.status or m.status == PRESENT}
        if slot == "side" and ("bilateral" in values or values >= {"left", "right"}):
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

    @property
    def measurement(self) -> str | None:
        """The one measurement, lengths in mm: "4 cm" is "40 mm"."""
        return self.value("measurement")

    @property
    def about_now(self) -> bool:
        """Whether the claim is about this image, and not about the patient's history or the question asked."""
        return not self.section and self.temporality != "history"


def claims(text: str) -> list[Claim]:
    """Every claim of a text in order. Character ranges are into `text`."""
    return list(_claims(text))


@lru_cache(maxsize=16384)
def _claims(text: str) -> tuple[Claim, ...]:
    parsed = parse(text)
    out: list[Claim] = []
    at = 0
    for (first, last), section in zip(parsed.sentences, parsed.sections):
        mentions = []
        while at < len(parsed.mentions) and parsed.mentions[at].first < last:
            mentions.append(parsed.mentions[at])
            at += 1
        found = _sentence(parsed, mentions, (first, last), section) if mentions else []
        if not found and out:
            _carry_over(parsed, (first, last), mentions, out)
        out += found
    return tuple(out)


def _sentence(parsed: Parse, mentions: list[Mention], sentence: tuple[int, int], section: str) -> list[Claim]:
    first, last = sentence
    span = (parsed.spans[first][0], parsed.spans[last - 1][1])
    findings = disjoined(parsed, [m for m in mentions if m.kind == "finding"])
    slots = attach(parsed, mentions, findings)
    again = repeated(parsed, findings)
    out: list[Claim] = []
    for n, m in enumerate(findings):
        if n in again:
            slots[n + 1] = slots[n] | slots[n + 1]
            continue
        partial = any(word in PARTIAL for word in parsed.words[max(first, m.first - 5) : m.last])
        finding = refined(parsed, m, slots[n], mentions)
        status, change = _over_time(parsed, m, finding, sentence)
        own = slots[n]
        if status == PRESENT != m.status:  # what is said of an operation in the history holds
            own = {kind: tuple(replace(s, status=PRESENT) for s in said) for kind, said in own.items()}
        claim = Claim(finding, status, m.start, m.end, m.cue, span, m, own, False, partial, change, section)
        out += _contrasted(claim)
    for m, finding, status, own, partial in implied(parsed, mentions, findings, sentence):
        out.append(Claim(finding, status, m.start, m.end, m.cue, span, m, own, True, partial, "", section))
    if section:
        change = "history" if section == "history" else ""
        out = [replace(c, status=UNCERTAIN, temporality=change) for c in out if section != "technique"]
    return out


def _over_time(parsed: Parse, m: Mention, finding: str, sentence: tuple[int, int]) -> tuple[str, str]:
    """Status and change of a finding; one of the history is left open, an operation has been done."""
    if not m.cue_kind.startswith("history"):
        return m.status, temporality(parsed, m, sentence)
    done = finding in CONCEPTS and CONCEPTS[finding].family == "surgery"
    return (PRESENT, "") if done else (UNCERTAIN, "history")


def _contrasted(claim: Claim) -> list[Claim]:
    """ "On the right, none on the left" makes two claims, and so does "moderate right and trace left effusions"."""
    sides = claim.slots.get("side", ())
    degrees = [m for kind in ("size", "severity") for m in claim.slots.get(kind, ())]
    if [s.value for s in sides] in (["left", "right"], ["right", "left"]) and len(degrees) == 2:
        return [replace(claim, slots=_with(claim, side)) for side in sides]
    away = tuple(s for s in sides if s.status == ABSENT)
    if claim.status != PRESENT or not away or len(away) == len(sides):
        return [claim]
    here = {**claim.slots, "side": tuple(s for s in sides if s.status != ABSENT)}
    there = {"side": tuple(replace(s, status=PRESENT) for s in away)}
    return [replace(claim, slots=here), replace(claim, status=ABSENT, cue=away[0].cue, slots=there, temporality="")]


def _with(claim: Claim, side: Mention) -> dict[str, tuple[Mention, ...]]:
    """The slots of a claim that go with one of its sides: the degree before it, or else the nearest."""
    degrees = [m for kind in ("size", "severity") for m in claim.slots.get(kind, ())]
    mine = min(degrees, key=lambda m: (m.first > side.first, abs(m.first - side.first)))
    rest = {kind: said for kind, said in claim.slots.items() if kind not in ("side", "size", "severity")}
    return {**rest, "side": (side,), mine.kind: (mine,)}


def _carry_over(parsed: Parse, sentence: tuple[int, int], mentions: list[Mention], out: list[Claim]) -> None:
    """ "It is on the left.", "Measures 3 cm." say it of the finding before."""
    opening = parsed.words[sentence[0]]
    if opening not in ("it", "this", "they", "these", "measures", "measuring", "located") or out[-1].implied:
        return
    last = out[-1]
    over = [c for c in parsed.cues if c.kind == "negation_after" and sentence[0] <= c.first < sentence[1]]
    if over and last.status == PRESENT:
        cue = parsed.spans[over[0].first][0], parsed.spans[over[0].last - 1][1]
        out[-1] = replace(last, status=ABSENT, cue=cue, temporality="resolved")
        return
    slots = dict(last.slots)
    for m in mentions:
        if m.kind in SLOTS:
            slots[m.kind] = (*slots.get(m.kind, ()), m)
    out[-1] = replace(last, slots=slots)


_PLACES = ("side", "zone", "location", "organ", "level")


def contradictions(text: str) -> list[tuple[Claim, Claim]]:
    """The pairs of claims of a text that cannot both be true: a finding said to be there and denied at one place."""
    said = [c for c in claims(text) if c.about_now and c.temporality != "new"]
    return [pair for a, b in combinations(said, 2) for pair in [_clash(a, b)] if pair is not None]


def _clash(a: Claim, b: Claim) -> tuple[Claim, Claim] | None:
    """The present and the absent claim, where the one denies the other."""
    if {a.status, b.status} != {PRESENT, ABSENT}:
        return None
    there, denied = (a, b) if a.status == PRESENT else (b, a)
    if denied.partial or not is_a(there.finding, denied.finding) or denied.finding == "abnormality":
        return None
    for kind in _PLACES:
        one, other = there.value(kind), denied.value(kind)
        if one is not None and other is not None and one != other:
            return None
    limits = ("size", "severity", "measurement", "count")
    return None if any(denied.value(kind) is not None for kind in limits) else (there, denied)


def changed_claims(before: str, after: str) -> int:
    """How many findings have another status or other attributes in one text than in the other."""
    one, other = (Counter(_shown(c) for c in claims(text)) for text in (before, after))
    return len({finding for finding, *_ in (one - other) | (other - one)})


def _shown(claim: Claim) -> tuple[object, ...]:
    slots = sorted((kind, m.value, m.status) for kind, said in claim.slots.items() for m in said)
    return claim.finding, claim.status, tuple(slots)


_OPENS = frozenset(
    "no without shows show showing reveals reveal demonstrates demonstrate demonstrating with for of is are was were "
    "possible probable likely suspected and or , : there a an the represents suggests".split()
)
_SEEN = frozenset("is are was were seen noted present identified visible evident , and or in of with on at".split())
_LONGEST = 4
_SHORT_ANSWER = 5


@lru_cache(maxsize=1)
def general() -> frozenset[str]:
    """Words of general English and of the frame of a report, which are no clinical words."""
    return frozenset((DATA / "general.txt").read_text(encoding="utf-8").split())


def unlisted(text: str) -> list[Claim]:
    """Claims of findings outside the concept graph: noun phrases of clinical words in the place of a finding."""
    parsed = parse(text)
    taken = _covered(parsed)
    out = []
    for (first, last), section in zip(parsed.sentences, parsed.sections):
        i = first
        while i < last:
            after = _phrase_end(parsed, i, last, taken)
            if after == i:
                i += 1
                continue
            if _stands_for_a_finding(parsed, i, after, first, last):
                out.append(_claim(parsed, i, after, (first, last), section))
            i = after
    return out


def _covered(parsed: Parse) -> frozenset[int]:
    covered = {i for m in parsed.mentions for i in range(m.first, m.last)}
    return frozenset(covered | {i for cue in parsed.cues for i in range(cue.first, cue.last)})


def _clinical(word: str) -> bool:
    return len(word) > 2 and word.isalpha() and word not in general() and singular(word) not in general()


def _phrase_end(parsed: Parse, i: int, last: int, taken: frozenset[int]) -> int:
    after = i
    while after < last and after - i < _LONGEST and after not in taken and _clinical(parsed.words[after]):
        after += 1
    return after


def _stands_for_a_finding(parsed: Parse, i: int, after: int, first: int, last: int) -> bool:
    """Whether a phrase is what a sentence speaks of: alone, after "no" or "shows", or before "is seen"."""
    if parsed.words[after - 1].endswith(("ly", "ed", "ing")):
        return False
    if last - first <= _SHORT_ANSWER:
        return True
    opens = i == first or parsed.words[i - 1] in _OPENS or any(m.last == i for m in parsed.mentions)
    return opens and (after >= last or parsed.words[after] in _SEEN)


def _claim(parsed: Parse, i: int, after: int, sentence: tuple[int, int], section: str) -> Claim:
    name = " ".join(singular(word) for word in parsed.words[i:after])
    bare = Mention("unlisted", name, parsed.spans[i][0], parsed.spans[after - 1][1], i, after)
    mine = [m for m in parsed.mentions if sentence[0] <= m.first < sentence[1]]
    m = asserted(parsed, bare, mine, sentence)
    sides = tuple(s for s in mine if s.kind == "side")
    span = (parsed.spans[sentence[0]][0], parsed.spans[sentence[1] - 1][1])
    slots = {"side": sides} if sides else {}
    return Claim(name, m.status, m.start, m.end, m.cue, span, m, slots, section=section)


def coverage(text: str) -> float:
    """Share of the clinical words of a text that the lexicon understands; 1.0 of a text without any."""
    parsed = parse(text)
    taken = _covered(parsed)
    known = sum(parsed.words[i].isalpha() and parsed.words[i] not in general() for i in taken)
    unknown = sum(_clinical(word) for i, word in enumerate(parsed.words) if i not in taken)
    return known / (known + unknown) if known + unknown else 1.0
