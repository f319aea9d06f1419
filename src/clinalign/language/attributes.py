"""What is said of a finding: its side, size and other attributes, its change over time, and what these make of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from clinalign.language.cues import ENDS_SCOPE, PAST, VERBS
from clinalign.language.graph import CONCEPTS, GENERIC, related
from clinalign.language.lexicon import SLOTS, narrowed
from clinalign.language.parse import ABSENT, PRESENT, UNCERTAIN, Mention, Parse

CHANGES = {
    "new": "new newly developed developing development appeared recurrent",
    "unchanged": "unchanged stable persistent persists persist again redemonstrated stably constant same",
    "increased": "increase increased increasing enlarging worsened worsening larger progressed progression "
    "progressive worse grown",
    "decreased": "decrease decreased decreasing smaller improved improving improvement resolving "
    "diminished reduced regressed",
    "resolved": "resolved cleared resolution disappeared gone resorbed healed",
}
"""Temporality -> words that say so."""

CHANGE_OF = {word: change for change, words in CHANGES.items() for word in words.split()}
"""Word -> temporality."""

_REACH = 8


def temporality(parsed: Parse, m: Mention, sentence: tuple[int, int]) -> str:
    """The change nearest to a finding in its own clause, or "". A finding denied with a word of ending is resolved."""
    first, last = sentence
    if m.status == ABSENT and m.cue is not None:
        cue = parsed.text[m.cue[0] : m.cue[1]].lower()
        ended = any(CHANGE_OF.get(word) == "resolved" for word in cue.split()) or "no longer" in cue or "remov" in cue
        return "resolved" if ended else ""
    for step in range(1, _REACH):
        for i in (m.first - step, m.last + step - 1):
            if first <= i < last and parsed.words[i] in CHANGE_OF and not _in_another_clause(parsed, i, m):
                change = CHANGE_OF[parsed.words[i]]
                denied = i > first and parsed.words[i - 1] in ("no", "not", "without")
                return "unchanged" if denied and change != "new" else change
    return "unchanged" if "no" in parsed.words[max(first, m.first - 6) : m.first] and m.status != ABSENT else ""


def _in_another_clause(parsed: Parse, i: int, m: Mention) -> bool:
    low, high = (i, m.first) if i < m.first else (m.last, i)
    return any(word in ENDS_SCOPE or word in (",", "and") for word in parsed.words[low:high])


BREAKS_NOUN_PHRASE = frozenset(
    ", and or of in on at with within is are was were the a an ; : to no from by shows show contains which that side "
    "half zone region has have near involving measuring without concerning suspicious suggesting consistent compatible "
    "for likely representing".split()
)

_JOINS = frozenset(", and or a an no with without versus vs over".split())
_STOPS_SHARING = BREAKS_NOUN_PHRASE | VERBS | ENDS_SCOPE
_BESIDE = frozenset("adjacent associated underlying overlying compressive accompanying".split())
_CONCLUDES = frozenset("suggesting suggests suggest consistent compatible indicating representing".split())

Slots = dict[str, tuple[Mention, ...]]


def attach(parsed: Parse, mentions: list[Mention], findings: list[Mention]) -> list[Slots]:
    """The attributes of each finding, by kind."""
    slots: list[Slots] = [{} for _ in findings]
    if not findings:
        return slots
    for m in mentions:
        if m.kind not in SLOTS or _of_a_change(parsed, m) or (m.kind == "measurement" and _earlier(parsed, m)):
            continue
        owner = _owner(parsed, m, findings)
        if owner is None:
            continue
        slots[owner][m.kind] = (*slots[owner].get(m.kind, ()), m)
        if findings[owner].last <= m.first:
            _share_back(parsed, findings, slots, owner, m)
        else:
            _share_on(parsed, findings, slots, owner, m)
    _inherit(parsed, findings, slots)
    return slots


def _owner(parsed: Parse, m: Mention, findings: list[Mention]) -> int | None:
    within = next((n for n, f in enumerate(findings) if f.first <= m.first and m.last <= f.last), None)
    if within is not None:
        return within
    following = next((n for n, f in enumerate(findings) if f.first >= m.last), None)
    before = next((n for n in range(len(findings) - 1, -1, -1) if findings[n].last <= m.first), None)
    if following is not None and modifies(parsed, m, findings[following]):
        return following
    if before is not None and not broken(parsed, findings[before].last, m.first):
        if following is not None and _opens_item(parsed, m, findings[before], findings[following]):
            return following
        return before
    if following is None:
        return None
    start = m.last
    if before is None and ":" in parsed.words[start : start + 4]:  # "Left knee: effusion"
        start = parsed.words.index(":", start) + 1
    if broken(parsed, start, findings[following].first):
        return None
    return None if _CONCLUDES & set(parsed.words[m.last : findings[following].first]) else following


def _of_a_change(parsed: Parse, m: Mention) -> bool:
    """Whether a degree is that of a change: "slightly smaller"."""
    return m.last < len(parsed.words) and parsed.words[m.last] in CHANGE_OF and m.kind == "severity"


def _earlier(parsed: Parse, m: Mention) -> bool:
    """Whether a measurement is that of an earlier image: "previously 4 cm"."""
    return any(word in PAST or word == "from" for word in parsed.words[max(0, m.first - 2) : m.first])


def _opens_item(parsed: Parse, m: Mention, before: Mention, following: Mention) -> bool:
    """Whether an attribute begins an item of its own: ", and in the left lung a mass"."""
    between = parsed.words[before.last : m.first]
    return bool(between) and between[0] in (",", "and") and "in" in between[:3] and m.kind in ("side", "zone", "organ")


def modifies(parsed: Parse, m: Mention, finding: Mention) -> bool:
    """Whether a mention stands before the finding in its noun phrase: "left pleural effusion"."""
    between = parsed.words[m.last : finding.first]
    if m.kind in ("measurement", "count") and between[:1] == ("of",):
        between = between[1:]  # "4 mm of midline shift"
    if len(between) > 5:
        return False
    if m.kind == "side" and between[:1] in (("and",), ("or",)) and between[1:2] in (("left",), ("right",)):
        between = between[2:]  # "left and right effusions"
    return not any(w in BREAKS_NOUN_PHRASE for w in between)


def broken(parsed: Parse, first: int, last: int) -> bool:
    """Whether another clause begins between two words; ", although small," is none."""
    for i in range(first, last):
        if parsed.words[i] in ENDS_SCOPE and not (
            (parsed.words[i] in ("although", "though", "albeit") and "," in parsed.words[i + 1 : i + 4])
            or (parsed.words[i] == ":" and i == first)
            or (parsed.words[i] == "which" and parsed.words[i + 1 : i + 2] in (("is",), ("are",), ("measures",)))
        ):
            return True
    return False


def _share_back(parsed: Parse, findings: list[Mention], slots: list[Slots], owner: int, m: Mention) -> None:
    """A place said after "nodule and mass" or "drusen without neovascularization" holds for both."""
    n = owner
    own = [o for said in slots[owner].values() for o in said]
    while n > 0 and m.kind not in slots[n - 1] and m.kind not in ("measurement", "count"):
        between = parsed.words[findings[n - 1].last : findings[n].first]
        joins = [word for word in between if word in _JOINS]
        rest = [word for word in between if word not in _JOINS and word != "-"]
        if not joins or len(rest) > 2 or any(word in _STOPS_SHARING for word in rest):
            return
        if any(o.first >= findings[n - 1].last and o.last <= findings[n].first for o in own):
            return  # "cardiomegaly and a large nodule in the left lung"
        if {"with", "without"} & set(joins) and (
            m.kind != "side" or "left" not in CONCEPTS[findings[n - 1].value].sides
        ):
            return
        n -= 1
        slots[n][m.kind] = (m,)


def _share_on(parsed: Parse, findings: list[Mention], slots: list[Slots], owner: int, m: Mention) -> None:
    """A side said before "effusion and atelectasis" holds for both, where nothing else is said of the second."""
    if m.kind not in ("side", "zone") or m.status != findings[owner].status:
        return
    n = owner
    while n + 1 < len(findings):
        between = parsed.words[findings[n].last : findings[n + 1].first]
        if list(between) not in (["and"], ["or"], ["/"]) or findings[n + 1].status != m.status:
            return
        n += 1
        slots[n].setdefault(m.kind, (m,))


def _inherit(parsed: Parse, findings: list[Mention], slots: list[Slots]) -> None:
    """What comes with or from a finding of the same organ lies on its side: "right hydronephrosis due to a stone"."""
    for n in range(1, len(findings)):
        before, m = findings[n - 1], findings[n]
        if "side" in slots[n] or "side" not in slots[n - 1]:
            continue
        between = parsed.words[before.last : m.first]
        if len(between) <= 4 and _BESIDE & set(between) and before.status != ABSENT:
            slots[n]["side"] = slots[n - 1]["side"]
            continue
        if m.status == ABSENT or before.status != m.status:
            continue
        joined = between[:1] == ("and",) and n > 1 and "side" in slots[n - 2]
        leads = any(word in ("with", "secondary", "due", "from", "by") for word in between) or joined
        same = any(word in ("consistent", "compatible", "representing", "keeping") for word in between)
        same = same and CONCEPTS[m.value].noun != "m"  # a disease of the whole, as ARDS is, has no side
        if leads and not any(w in ("surrounding", ";", "but") for w in between) and (same or _same_region(before, m)):
            slots[n]["side"] = slots[n - 1]["side"]


def _same_region(a: Mention, b: Mention) -> bool:
    one, other = CONCEPTS[a.value], CONCEPTS[b.value]
    return one.group == other.group and one.group in ("bone", "abdomen", "eye")


JOINTS = "knee hip shoulder elbow wrist ankle foot hand joint patella".split()
_FLUID = {"pleura": "pleural effusion", "abdomen": "ascites", "pelvis": "ascites", "peritoneum": "ascites"}
_ELSEWHERE = {("pleural effusion", "effusion", joint): "joint effusion" for joint in JOINTS}
_ELSEWHERE |= {("fluid", "fluid", joint): "joint effusion" for joint in JOINTS}
_ELSEWHERE |= {("fluid", "fluid", organ): finding for organ, finding in _FLUID.items()}
"""(finding, its word, organ) -> the finding that it is there."""

_REGION = {"lung": "lung", "pleura": "lung", "heart": "lung", "mediastinum": "lung", "brain": "brain", "eye": "retina"}
"""Group of findings -> the organ that an unspecific finding beside them is in."""

_UNSPECIFIC = frozenset("edema hemorrhage atrophy infection".split())
_SUGGESTS = frozenset(
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
        if between[:1] == (":",) or (a.value == b.value and between and _SUGGESTS & set(between)):
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
