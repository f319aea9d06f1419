"""The checker: is every sentence of an answer carried by a fact of the trace?

A sentence is read into claims (findings, by the language room) and measures (a name and its value). It is supported
where every claim and every detail of it, which eye, which quadrants, how many, how severe, agrees with facts of the same
finding; refuted where a fact of the same finding says otherwise; unsupported in every other case, also where it cannot
be read or says a word more than its facts do. Nothing is assumed to be true for being likely.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from clinalign.agent.tools import CORNERS, Fact
from clinalign.language.claims import Claim, claims
from clinalign.language.graph import is_a
from clinalign.language.unlisted import unlisted

Status = Literal["supported", "refuted", "unsupported"]
Found = Sequence[tuple[str, Fact]]
"""Facts with the id of the trace's row that holds them."""

HALVES = ("superior", "inferior", "nasal", "temporal")
_PLACE = {"upper": "superior", "lower": "inferior", "supero": "superior", "infero": "inferior"}
_WHERE = re.compile(
    r"\b(?:(?P<corner>(?P<v>superior|inferior|upper|lower|supero|infero)[\s-]*(?P<h>nasal|temporal)(?:ly)?)"
    r"|(?P<back>(?P<h2>nasal|temporal)[\s-]+(?P<v2>superior|inferior|upper|lower)(?:ly)?(?!\s*[\s-](?:nasal|temporal)))"
    r"|(?P<half>superior|inferior|upper|lower|nasal|temporal)(?:ly)?)\b",
    re.I,
)
_ALL = re.compile(
    r"\b(?:all|each|every|any)(?: of)?(?: the)?(?: four)? quadrants?\b|\bfour quadrants\b|\bthroughout\b", re.I
)
_ONLY = re.compile(r"\b(?:only|exactly|solely|exclusively|confined|limited|restricted|alone)\b", re.I)
_EYES = re.compile(
    r"\b(?:(?P<od>right|OD)|(?P<os>left|OS)|(?P<both>both|bilateral(?:ly)?|OU|either))\b(?:\s+eyes?)?", re.I
)
_NUMBERS = dict(zip("zero one two three four five six seven eight nine ten eleven twelve".split(), range(13)))
_NUMBERS |= {"single": 1, "solitary": 1}
_NUMBER = re.compile(rf"(?<![\w.])\d+(?:\.\d+)?(?!\w)|\b(?:{'|'.join(_NUMBERS)})\b", re.I)
_MANY = re.compile(r"\b(?:multiple|several|many|numerous)\b", re.I)
_JOIN = re.compile(r"[,;]|\b(?:and|but|while|whereas|with|as well as|or|nor)\b", re.I)
_COMPARED = (
    (re.compile(r"\b(?:at least|no less than)\b|≥|>=", re.I), lambda fact, said: fact >= said),
    (re.compile(r"\b(?:at most|no more than)\b|≤|<=", re.I), lambda fact, said: fact <= said),
    (
        re.compile(r"\b(?:above|over|more than|greater than|larger than|higher than|exceed\w*)\b|>", re.I),
        lambda f, s: f > s,
    ),
    (re.compile(r"\b(?:below|under|less than|smaller than|lower than)\b|<", re.I), lambda fact, said: fact < said),
)
ALIASES = {
    "cup-to-disc ratio": r"(?:vertical )?(?:optic )?(?:cup[- ](?:to[- ])?dis[ck] ratio|c/d(?: ratio)?|cdr)",
    "cup-to-disc asymmetry": r"(?:cup[- ]to[- ]dis[ck] asymmetry|asymmetry)",
    "retinopathy grade": r"(?:(?:diabetic )?retinopathy grade|grade of (?:diabetic )?retinopathy|dr grade)",
    "glaucoma category": r"(?:glaucoma category|category of glaucoma)",
    "intraocular pressure": r"(?:intraocular pressure|iop)",
}
"""Measure -> how it is written; any other measure is written as it is named."""
_FRAME = frozenset(
    """a an the this that these those there here is are was were be been being it its they their has have had and or but while
    whereas also both as well of in on at to for by with without within from into over across through no not none any some
    neither nor seen see visible present absent found identified noted detected observed evident shown shows show showing
    demonstrates demonstrate reveals reveal contains contain displays display lie lies located situated occur occurs appear
    appears involve involves involving affect affects affecting extend extends distributed spread eye eyes image photograph
    picture photo fundus retina retinal region regions quadrant quadrants half halves area areas side sector sectors only
    exactly solely exclusively confined limited restricted alone all each every four right left od os ou bilateral bilaterally
    upper lower superior inferior nasal temporal superiorly inferiorly nasally temporally measures measured measuring
    measure equals about value number count total above below more less than least most exceeds exceeding greater larger
    smaller higher lower under over multiple several many numerous single solitary group groups lesion lesions spot spots
    signs sign evidence mm hg mmhg consistent examined study examination can could which where throughout either do does
    vertical ratio grade graded category free clear fundoscopy i we""".split()
)
_WORDS = re.compile(r"[A-Za-z]+")
_EYE_ORGANS = {"eye", "retina", "fundus", "nose", "temporal lobe", "cup", "quadrant", "region"}
_DEGREES = ("severity", "size")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of an answer, its characters in it, its status, the trace rows that carry it, and why not."""

    text: str
    start: int
    end: int
    status: Status
    evidence: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`followed`: the tools listed are those run; `complete`: there is an answer that was offered; `accepted`: both, and
    no sentence refuted, nor all of them unsupported while there are facts. `refuted`: letters that facts rule out."""

    accepted: bool
    followed: bool
    complete: bool
    sentences: tuple[Sentence, ...]
    refuted: tuple[str, ...] = ()
    feedback: str = ""


@dataclass(frozen=True, slots=True)
class _Judged:
    status: Status
    evidence: frozenset[str] = frozenset()
    reason: str = ""


@dataclass(slots=True)
class _Part:
    """A claim and the stretch of its sentence that belongs to it."""

    claim: Claim
    text: str
    joined: bool = False
    places: list[str] = field(default_factory=list)


def check_answer(
    text: str,
    letter: str | None,
    statements: Mapping[str, str],
    facts: Found,
    *,
    planned: Iterable[str],
    run: Iterable[str],
    listed: Iterable[str],
) -> Verdict:
    """Checks an answer: its text, its letter among those of `statements` (letter -> what the option states; empty: no
    options), the tools that were planned, those that ran, and those that the answer lists."""
    sentences = tuple(check_text(text, facts))
    ran = set(run)
    lists = {"planned": set(planned), "listed": set(listed)}
    faults = [
        f"tools {name} but not run: {', '.join(sorted(tools - ran))}" for name, tools in lists.items() if tools - ran
    ]
    faults += [
        f"tools run but not {name}: {', '.join(sorted(ran - tools))}" for name, tools in lists.items() if ran - tools
    ]
    followed = not faults
    complete = letter in statements if statements else bool(text.strip())
    if not complete:
        faults.append("no answer among the options" if statements else "no answer")
    refuted = tuple(name for name, said in statements.items() if _refuted(said, facts))
    if letter in refuted:
        faults.append(f"the evidence contradicts option {letter}")
    bad = [s for s in sentences if s.status == "refuted"]
    faults += [f"the evidence contradicts: {s.text} ({s.reason})" for s in bad]
    carried = not facts or any(s.status == "supported" for s in sentences)
    if complete and not bad and letter not in refuted and not carried:
        faults.append("nothing in the answer is supported by the evidence")
    return Verdict(not faults, followed, complete, sentences, refuted, "; ".join(faults))


def check_text(text: str, facts: Found) -> list[Sentence]:
    """Every sentence of a text with its status and evidence."""
    found = []
    for match in re.finditer(r"\S.*?(?:[.!?](?=\s|$)|\n|$)", text, re.S):
        sentence = match[0].strip()
        if sentence.strip(".!? "):
            judged = check_sentence(sentence, facts)
            evidence = tuple(sorted(judged.evidence))
            found.append(
                Sentence(sentence, match.start(), match.start() + len(sentence), judged.status, evidence, judged.reason)
            )
    return found


def check_sentence(sentence: str, facts: Found) -> _Judged:
    """One sentence against the facts."""
    measured, rest = _measures(sentence, facts)
    judged = [judge for judge in measured]
    spoken = claims(rest)
    strangers = [c for c in unlisted(rest) if not set(_WORDS.findall(c.finding.lower())) <= _FRAME]
    if not judged and not spoken:
        return _Judged("unsupported", reason="no claim can be read in it")
    more = _more(rest, spoken)
    if strangers or more:
        reason = f"says more than the evidence: {strangers[0].finding if strangers else more}"
        judged.append(_Judged("unsupported", reason=reason))
    parts = _parts(rest, spoken)
    judged += [_judge(part, sentence, facts) for part in parts]
    if _ALL.search(rest) is None:
        judged += _loose_numbers(rest, parts, bool(measured))
    worst = next((j for status in ("refuted", "unsupported") for j in judged if j.status == status), None)
    evidence = frozenset().union(*(j.evidence for j in judged))
    return _Judged(worst.status, evidence, worst.reason) if worst else _Judged("supported", evidence)


def _refuted(statement: str, facts: Found) -> bool:
    return any(s.status == "refuted" for s in check_text(statement, facts))


# Measures


def _measures(sentence: str, facts: Found) -> tuple[list[_Judged], str]:
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


def _measure(name: str, said: str, sentence: str, mine: Found) -> _Judged:
    if not mine:
        return _Judged("unsupported", reason=f"{name} was not measured")
    eye, many = _eye(said) or _eye(sentence), len({fact.laterality for _, fact in mine}) > 1
    here = [(row, fact) for row, fact in mine if not eye or fact.laterality == eye]
    if not here or (many and not eye):
        return _Judged("unsupported", reason=f"{name} was not measured in this eye")
    rows = frozenset(row for row, _ in here)
    values = {fact.value for _, fact in here}
    if any(isinstance(value, str) for value in values):
        words = re.sub(r"^\W*(?:is|was|:|=)?\s*", "", said).strip(" .").lower()
        agrees = bool(words) and words in {str(value).lower() for value in values}
        leftover = not words
    else:
        numbers = [match[0] for match in _NUMBER.finditer(said)]
        denied = re.search(r"\b(?:not|never|no)\b", said, re.I) is not None
        leftover = len(numbers) != 1 or denied or bool(_strange(said))
        agrees = not leftover and all(_fits(said, numbers[0], float(value)) for value in values if value is not None)
    if leftover:
        return _Judged("unsupported", reason=f"what is said of the {name} cannot be read")
    shown = ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
    return _Judged("supported", rows) if agrees else _Judged("refuted", rows, f"the {name} is {shown}")


def _fits(said: str, number: str, value: float) -> bool:
    """Whether a value is what is said of it, to the decimals that are said."""
    spoken = _number(number)
    for pattern, holds in _COMPARED:
        if pattern.search(said):
            return bool(holds(value, spoken))
    decimals = len(number.partition(".")[2])
    return abs(value - spoken) <= 0.5 * 10**-decimals + 1e-9 if decimals else abs(value - spoken) < 1e-9


def _number(text: str) -> float:
    return float(_NUMBERS[text.lower()]) if text.lower() in _NUMBERS else float(text)


# Findings


def _parts(text: str, spoken: Sequence[Claim]) -> list[_Part]:
    """Each claim with its stretch of the sentence: cut where a comma or a joining word stands between two claims."""
    ordered = sorted(spoken, key=lambda c: (c.start, c.end))
    parts, start = [], 0
    for i, claim in enumerate(ordered):
        stop, joined = len(text), False
        if i + 1 < len(ordered) and ordered[i + 1].start >= claim.end:
            between = text[claim.end : ordered[i + 1].start]
            joins = list(_JOIN.finditer(between))
            stop = claim.end + (joins[0 if len(joins) == 1 else -1].start() if joins else 0)
            joined = bool(joins) and not _strange_between(between)
        parts.append(_Part(claim, text[start:stop], joined))
        start = stop
    for part, after in reversed(list(zip(parts, parts[1:]))):
        if part.joined and not _WHERE.search(part.text) and not _ALL.search(part.text):
            part.text += " " + _tail(after.text)
    return parts


def _strange_between(between: str) -> bool:
    """Whether two claims are joined by more than a comma or an "and"."""
    return bool(re.sub(r"\b(?:and|or|nor|no|as well as|the|any)\b|[,\s]", "", between, flags=re.I))


def _tail(text: str) -> str:
    """The words of a stretch that say where."""
    return " ".join(
        m[0] for m in re.finditer(f"{_ONLY.pattern}|{_ALL.pattern}|{_WHERE.pattern}|[,]|\\band\\b", text, re.I)
    )


def _judge(part: _Part, sentence: str, facts: Found) -> _Judged:
    claim = part.claim
    same = [(row, fact) for row, fact in facts if fact.value is None and _same(claim, fact)]
    eye = _eye(part.text) or _eye(sentence)
    here = [(row, fact) for row, fact in same if not eye or fact.laterality == eye]
    if eye == "OU" and {fact.laterality for _, fact in same} >= {"OD", "OS"}:
        here = same
    if not here:
        other = frozenset(row for row, _ in same)
        wrong_eye = bool(same) and eye in ("OD", "OS") and {f.laterality for _, f in same} <= {"OD", "OS"}
        if wrong_eye and claim.status == "present":
            return _Judged("refuted", other, f"{claim.finding}: the image shows the other eye")
        return _Judged("unsupported", other, f"{claim.finding} was not looked for" if not same else "not in this eye")
    judged = [_agrees(part, row, fact) for row, fact in here]
    if claim.status == "present" and eye != "OU":
        best = next((j for s in ("supported", "refuted", "unsupported") for j in judged if j.status == s), judged[0])
        return best
    worst = next((j for s in ("refuted", "unsupported", "supported") for j in judged if j.status == s), judged[0])
    return _Judged(worst.status, frozenset().union(*(j.evidence for j in judged)), worst.reason)


def _same(claim: Claim, fact: Fact) -> bool:
    """Whether a fact decides a claim: a kind of it that is there, or anything of which it is a kind."""
    if fact.finding == claim.finding:
        return True
    return is_a(fact.finding, claim.finding) if fact.status == "present" else is_a(claim.finding, fact.finding)


def _agrees(part: _Part, row: str, fact: Fact) -> _Judged:
    claim, rows = part.claim, frozenset({row})
    if claim.temporality:
        return _Judged("unsupported", rows, f"{claim.temporality}: nothing earlier was seen")
    if claim.status == "uncertain":
        return _Judged("supported" if fact.status == "present" else "unsupported", rows, "left open")
    if claim.slots.get("measurement"):
        return _Judged("unsupported", rows, f"{claim.finding} was not measured")
    elsewhere = _elsewhere(claim)
    if elsewhere:
        return _Judged("unsupported", rows, f"nothing tells of the {elsewhere}")
    place = _placed(part.text, fact)
    if claim.status == "absent":
        inside = place in ("", "agrees", "touches")
        if fact.status == "absent" or place == "differs":
            return _Judged("supported", rows)
        return _Judged("refuted" if inside else "unsupported", rows, f"{claim.finding} is there")
    if fact.status == "absent":
        return _Judged("refuted", rows, f"{claim.finding} is not there")
    if place in ("differs", "touches"):
        return _Judged("refuted", rows, f"{claim.finding} lies {'; '.join(fact.corners)}")
    if place == "unknown":
        return _Judged("unsupported", rows, f"where {claim.finding} lies is not known")
    return _degree(part, row, fact) or _Judged("supported", rows)


def _degree(part: _Part, row: str, fact: Fact) -> _Judged | None:
    """What is wrong with the number or severity that a claim states, if anything."""
    claim, rows = part.claim, frozenset({row})
    for kind in _DEGREES:
        for mention in claim.slots.get(kind, ()):
            if mention.value != fact.severity:
                status: Status = (
                    "refuted" if fact.severity and mention.value in ("mild", "moderate", "severe") else "unsupported"
                )
                return _Judged(status, rows, f"{claim.finding}: {mention.value} is not what was found")
    text = _ALL.sub(" ", part.text)
    number = next(iter(_NUMBER.finditer(text)), None)
    if number is not None and fact.count is not None and _number(number[0]) != fact.count:
        return _Judged("refuted", rows, f"{fact.count} of {claim.finding} were found")
    if number is not None and fact.count is None or (_MANY.search(text) and (fact.count or 0) < 2):
        return _Judged("unsupported", rows, f"how many of {claim.finding} there are is not known")
    return None


def _placed(text: str, fact: Fact) -> Literal["", "agrees", "touches", "differs", "unknown"]:
    """Where a claim puts a finding, against where it lies: not said; all of it right; right in part; wrong; not known."""
    if _ALL.search(text):
        said, halves = set(CORNERS), set(HALVES)
        only, whole = True, True
    else:
        said, halves = _places(text)
        only, whole = bool(_ONLY.search(text)), False
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


def _places(text: str) -> tuple[set[str], set[str]]:
    """The quadrants and the halves that a text names."""
    said, halves = set(), set()
    for m in _WHERE.finditer(text):
        vertical, horizontal = m["v"] or m["v2"], m["h"] or m["h2"]
        if vertical:
            said.add(f"{_PLACE.get(vertical.lower(), vertical.lower())} {horizontal.lower()}")
        else:
            halves.add(_PLACE.get(m["half"].lower(), m["half"].lower()))
    return said, halves


def _elsewhere(claim: Claim) -> str:
    """A place in the eye that a claim names and no fact knows, such as the macula."""
    names = [m.value for kind in ("location", "organ") for m in claim.slots.get(kind, ())]
    return next((n for n in names if n not in _EYE_ORGANS and not _WHERE.search(n)), "")


def _eye(text: str) -> str:
    """OD, OS, OU (both), or "" where no eye is named or two are."""
    named = {"OD" if m["od"] else "OS" if m["os"] else "OU" for m in _EYES.finditer(text)}
    return named.pop() if len(named) == 1 else "OU" if named == {"OD", "OS"} else ""


# Words beyond the evidence


def _more(text: str, spoken: Sequence[Claim]) -> str:
    """The first word that is neither part of a claim nor of the frame of a sentence; "" where there is none."""
    taken = [(c.start, c.end) for c in spoken] + [c.cue for c in spoken if c.cue]
    taken += [(m.start, m.end) for c in spoken for mentions in c.slots.values() for m in mentions]
    for m in _WORDS.finditer(text):
        if not any(a <= m.start() and m.end() <= b for a, b in taken) and _stranger(m[0]):
            return m[0]
    return ""


def _strange(text: str) -> str:
    return next((m[0] for m in _WORDS.finditer(text) if _stranger(m[0])), "")


def _stranger(word: str) -> bool:
    low = word.lower()
    return low not in _FRAME and low not in _NUMBERS and not _WHERE.fullmatch(low) and low not in ("supero", "infero")


def _loose_numbers(text: str, parts: Sequence[_Part], measured: bool) -> list[_Judged]:
    """Numbers of a sentence that belong to no claim."""
    inside = sum(len(_NUMBER.findall(part.text)) for part in parts)
    loose = len(_NUMBER.findall(text)) > inside or any(len(_NUMBER.findall(p.text)) > 1 for p in parts)
    return [_Judged("unsupported", reason="a number that nothing was measured for")] if loose else []
