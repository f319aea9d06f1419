"""Which finding of a sentence a side, a size or another attribute is said of."""

from __future__ import annotations

from clinalign.language.change import CHANGE_OF
from clinalign.language.cues import ENDS_SCOPE, PAST, VERBS
from clinalign.language.graph import CONCEPTS
from clinalign.language.lexicon import SLOTS
from clinalign.language.parse import ABSENT, Mention, Parse

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
