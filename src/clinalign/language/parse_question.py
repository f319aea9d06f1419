"""What a question asks for, and what its ground truth says, before any answer is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clinalign.language.attributes import CHANGE_OF
from clinalign.language.claims import claims
from clinalign.language.compat import ATTRIBUTES
from clinalign.language.graph import CONCEPTS, GENERIC, related
from clinalign.language.lexicon import SLOTS, canonical
from clinalign.language.parse import ABSENT, PRESENT, Mention, Parse, parse
from clinalign.language.wordings import Options

YES = {"yes", "y", "true", "yeah", "yes.", "yep", "present", "positive"}
NO = {"no", "n", "false", "no.", "nope", "negative"}
NONE = {"none", "absent", "nothing", "no finding", "no abnormality", "normal", "not present", "no findings", "none."}
NONE |= {"no abnormalities", "unremarkable", "no abnormality detected", "no acute abnormality", "nothing abnormal"}

_OPTION = re.compile(
    r"(?:^|(?<=[\s(]))\(?([A-H])[.):]\)?\s+(.+?)(?=\s*(?:[\n,;]|(?<=\s))\s*\(?[A-H][.):]\)?\s|\s*\n|\s*$)", re.S
)
_PRESENCE = re.compile(
    r"\b(is|are|was) there\b|\bdo(es)? (you|it|this|the|we|any)\b.*\b(see|show|contain|have|reveal|demonstrate|exhibit)"
    r"|\bdo(es)? (you|it|this|the|we|any)\b.*\b(display|depict|find|look|suffer|indicate|suggest)"
    r"|\b(can|could) .*\b(seen|see|detected|identified|observed|found|visualized)\b"
    r"|\b(is|are) .*\b(present|visible|seen|evident|absent|identified|shown|depicted|suspected|detected|noted)\b"
    r"|\bevidence of\b|\bany\b|\bpatient (have|has)\b"
)
_DEFINITE = re.compile(r"\b(the|this|that|its|these)\s+(?:(?!(?:a|an|any|show|have|has|see|contain)\b)[\w-]+\s+){0,3}$")
_IDENTITY = re.compile(r"\b(is|are|was|were) (this|these|it|that|the (image|picture|scan|study|organ|slice|view))\b")


@dataclass(frozen=True, slots=True)
class ParsedQuestion:
    """kind: "presence", "slot" (closed, one value asked), "open", "several", "letter", "box", "text" or "report".

    truths: for "open" and "slot" the true value by kind of slot; for "presence" {"presence": "yes" | "no"}; for
    "letter" {"letter": ..., "text": ...}; `lettered` is false where the options have no letters. finding: the
    finding asked about; asked: the value in a closed question;
    attributes: what a closed question says of the finding; concepts: (kind, value) asked about where it is no finding;
    identity: whether it asks what the image is, so that another value denies it; inverted: "yes" says that the finding
    is not there, as in "is the heart normal?"; organ: the organ of such a question; names: the findings that the
    question names; parts: the (kind, value) that a truth of several things consists of;
    optional: kinds of the truth that an answer may leave out, but not contradict.
    """

    kind: str
    truths: Mapping[str, str]
    finding: str | None = None
    asked: str | None = None
    options: Options = ()
    lettered: bool = True
    attributes: Mapping[str, str] = field(default_factory=dict)
    concepts: tuple[tuple[str, str], ...] = ()
    identity: bool = False
    inverted: bool = False
    organ: str | None = None
    names: frozenset[str] = field(default_factory=frozenset)
    parts: tuple[tuple[str, str], ...] = ()
    optional: frozenset[str] = frozenset()
    stem: str = ""


def parse_question(
    question: str, truth: str, task: str = "open", slots: Mapping[str, Any] | None = None
) -> ParsedQuestion | None:
    """Reads the question with its ground truth; None where it is not understood.

    `slots` are the true values where a data set has them ({"side": "left", "asked": "right"}); they win over the text.
    """
    slots = slots or {}
    if task == "report" or any(isinstance(v, Mapping) and "presence" in v for v in slots.values()):
        return ParsedQuestion("report", {})
    stem, options = split_options(question, slots)
    parsed = parse(stem)
    findings = [c.finding for c in claims(stem) if not c.implied]
    finding = next((f for f in findings if f not in GENERIC), findings[0] if findings else None)
    word = truth.strip().lower()
    if options:
        return _letter(truth, options, finding)
    either = None if slots else _either(stem, word)
    if either is not None:
        return either
    if re.fullmatch(r"\[?\s*\d+(\.\d+)?(\s*,\s*\d+(\.\d+)?){3}\s*\]?", word):
        return ParsedQuestion("box", {"box": word}, finding)
    names = frozenset(findings)
    if word in YES or word in NO:
        return _closed(stem, parsed, "yes" if word in YES else "no", finding, slots, names)
    return _open(parsed, word, truth, finding, slots, names)


def split_options(question: str, slots: Mapping[str, Any]) -> tuple[str, Options]:
    """The last question sentence and the lettered options, where there are any."""
    found = [(m.group(1), m.group(2).strip(" .,;"), m.start()) for m in _OPTION.finditer(question)]
    letters = [letter for letter, _, _ in found]
    options: Options = ()
    if len(found) >= 2 and letters == sorted(set(letters)) and letters[0] == "A":
        options = tuple((letter, text) for letter, text, _ in found)
        question = question[: found[0][2]]
    if isinstance(slots.get("options"), (list, tuple)):
        options = tuple(zip("ABCDEFGH", map(str, slots["options"]), strict=False))
    return last_question(question), options


def last_question(text: str) -> str:
    """The last sentence that ends with a question mark, or else the last sentence."""
    sentences = [s for s in re.split(r"(?<=[.?!])\s+|\n+", text.strip()) if s]
    asking = [s for s in sentences if s.endswith("?")]
    return asking[-1] if asking else sentences[-1] if sentences else text


def _letter(truth: str, options: Options, finding: str | None) -> ParsedQuestion | None:
    word = truth.strip().strip("().").strip()
    for letter, text in options:
        if word.upper() == letter or word.lower() == text.lower() or word.lower().startswith(f"{letter.lower()}. "):
            return ParsedQuestion("letter", {"letter": letter, "text": text}, finding, options=options)
    return None


_EITHER = re.compile(r"([\w-]+),?\s+or\s+(?:an?\s+|the\s+|is\s+it\s+)?([\w-]+)[^,?]*\?$")


def _either(stem: str, truth: str) -> ParsedQuestion | None:
    """ "Solid or cystic?": two options without letters, where the truth is one of them."""
    found = _EITHER.search(stem.lower())
    known = canonical(truth.strip("."))
    if found is None or truth.strip(".") not in found.groups() or (known is not None and known[0] in SLOTS):
        return None
    options = tuple(zip("AB", found.groups()))
    letter = next(letter for letter, text in options if text == truth.strip("."))
    return ParsedQuestion("letter", {"letter": letter, "text": truth.strip(".")}, options=options, lettered=False)


def _closed(
    stem: str, parsed: Parse, truth: str, finding: str | None, slots: Mapping[str, Any], names: frozenset[str]
) -> ParsedQuestion | None:
    presence = {"presence": truth}
    asked_about = [m for m in parsed.mentions if m.kind in SLOTS]
    if finding is None and not slots:
        judged = [c for c in claims(stem) if c.implied]
        if judged:
            organ = next((m.value for m in parsed.mentions if m.kind == "organ"), None)
            inverted = judged[0].status == ABSENT
            return ParsedQuestion("presence", presence, judged[0].finding, inverted=inverted, organ=organ, names=names)
    given = [kind for kind in SLOTS if isinstance(slots.get(kind), str)]
    if given and "presence" not in slots:
        kind = given[0]
        asked = slots.get("asked") or next((m.value for m in asked_about if m.kind == kind), None)
        if asked is not None:
            return ParsedQuestion("slot", {kind: str(slots[kind]), "yesno": truth}, finding, str(asked), names=names)
    attributes = _attributes(stem, finding)
    asks_presence = finding is not None and _asks_presence(stem, parsed)
    several = len(attributes) > 1 or (attributes and (not asked_about or asked_about[-1].kind not in attributes))
    several = several or _judges_an_organ(parsed, asked_about)
    if finding is not None and (slots.get("presence") or not asked_about or asks_presence or several):
        return ParsedQuestion("presence", presence, finding, attributes=attributes, names=names)
    if not asked_about:
        return ParsedQuestion("presence", presence, None, names=names, stem=stem)
    return _about_a_value(stem, asked_about, truth, finding, names)


def _judges_an_organ(parsed: Parse, asked_about: Sequence[Mention]) -> bool:
    """Whether a finding is asked of the organ named before it: "Is the aorta calcified?"."""
    first = next((m.first for m in parsed.mentions if m.kind == "finding"), 0)
    return bool(asked_about) and all(m.kind == "organ" and m.last <= first for m in asked_about)


def _about_a_value(
    stem: str, asked_about: Sequence[Mention], truth: str, finding: str | None, names: frozenset[str]
) -> ParsedQuestion:
    """A closed question about a value of a slot: "Is this an MRI?", "Is the nodule on the left?"."""
    identity = _IDENTITY.search(stem.lower()) is not None
    concepts = tuple({m.kind: (m.kind, m.value) for m in asked_about}.values())
    m = asked_about[-1]
    if finding is None and (len(concepts) > 1 or m.kind in ("organ", "location")):
        return ParsedQuestion("presence", {"presence": truth}, None, concepts=concepts, identity=identity, names=names)
    true = {m.kind: m.value} if truth == "yes" else _complement(m.kind, m.value)
    return ParsedQuestion(
        "slot", {**true, "yesno": truth}, finding, m.value, concepts=((m.kind, m.value),), names=names
    )


def _attributes(stem: str, finding: str | None) -> dict[str, str]:
    """What the question says of the finding: "a large effusion on the left" gives size and side."""
    out: dict[str, str] = {}
    for claim in claims(stem):
        if claim.finding == finding and not claim.implied:
            out |= {kind: value for kind in ATTRIBUTES if (value := claim.value(kind)) is not None}
            if claim.temporality == "new":
                out["temporality"] = "new"
    return out


def _complement(kind: str, value: str) -> dict[str, str]:
    """What "not left" says: "right"; elsewhere nothing definite."""
    pair = {"side": {"left": "right", "right": "left"}, "size": {"small": "large", "large": "small"}}.get(kind, {})
    return {kind: pair[value]} if value in pair else {}


def _asks_presence(stem: str, parsed: Parse) -> bool:
    if not _PRESENCE.search(stem.lower()):
        return False
    first = next(m for m in parsed.mentions if m.kind == "finding")
    return not _DEFINITE.search(stem[: first.start].lower()) or "presence of" in stem.lower()


def _open(
    parsed: Parse, word: str, truth: str, finding: str | None, slots: Mapping[str, Any], names: frozenset[str]
) -> ParsedQuestion | None:
    if isinstance(slots.get("change"), str):
        change = str(slots["change"])
        return ParsedQuestion("open", {"change": CHANGE_OF.get(change, change)}, finding, names=names)
    given = [kind for kind in (*SLOTS, "finding") if kind in slots]
    if len(given) == 1:
        value = slots[given[0]]
        absent = value is None or str(value) in NONE
        return ParsedQuestion("open", {given[0]: "none" if absent else str(value)}, finding, names=names)
    if word.strip(".") in NONE:
        asks = _asked_kind(parsed)
        return ParsedQuestion("open", {asks: "none"}, finding, names=names)
    if any(c.status == ABSENT for c in claims(truth)):
        return ParsedQuestion("report", {})  # a truth that denies something is judged claim by claim
    parts, said = _parts(truth), parse(truth)
    stated = parts and parts[0][0] == "finding" and parts[0][1] not in names and _more_than_slots(said)
    if len(parts) > 1 or stated:
        return ParsedQuestion("several", {"text": truth}, finding, names=names, parts=parts)
    truths = _truths(said, parsed)
    if word.isdigit() and ("how" in parsed.words or "number" in parsed.words):
        truths = {"count": word}
    if not truths or _more_than_slots(said):
        return ParsedQuestion("text", {"text": truth}, finding, names=names)
    placed = bool({"side", "zone", "location"} & truths.keys())
    return ParsedQuestion("open", truths, finding, names=names, optional=frozenset({"organ"} if placed else ()))


def _parts(truth: str) -> tuple[tuple[str, str], ...]:
    """The several findings, or organs, that a truth names."""
    found: list[str] = []
    for claim in claims(truth):
        if claim.status == PRESENT and claim.finding not in GENERIC and not claim.implied:
            if not any(related(claim.finding, other) for other in found):
                found.append(claim.finding)
    if found:
        return tuple(("finding", f) for f in found)
    said = parse(truth)
    for kind in ("zone", "location", "organ"):
        values = dict.fromkeys(m.value for m in said.of(kind) if m.status == PRESENT)
        if len(values) > 1 and not _more_than_slots(said):
            return tuple((kind, value) for value in values)
    return ()


def _truths(said: Parse, question: Parse) -> dict[str, str]:
    """The true value of each kind of slot that the truth names."""
    truths: dict[str, str] = {}
    for claim in claims(said.text):
        if claim.status != ABSENT:
            truths.setdefault("finding", claim.finding)
    for m in said.mentions:
        if m.kind in SLOTS and m.status != ABSENT:
            both = m.kind == "side" and truths.get("side", m.value) != m.value
            truths[m.kind] = "bilateral" if both else truths.get(m.kind, m.value)
    if "size" in truths and {"severe", "severity"} & set(question.words):
        truths["severity"] = truths.pop("size")
    if "finding" in truths and len(truths) > 1 and {"where", "location", "located"} & set(question.words):
        del truths["finding"]
    if "organ" in truths and "finding" in truths:
        del truths["organ"]
    return truths


_FILLER = frozenset(
    "lobe zone lung side of the in on a an region field half part is it area and view image one sided with".split()
)


def _more_than_slots(said: Parse) -> bool:
    """Whether the truth says something that the lexicon does not know, so that slots alone cannot decide."""
    covered = {i for m in said.mentions for i in range(m.first, m.last)}
    rest = [w for i, w in enumerate(said.words) if i not in covered and w.isalnum() and w not in _FILLER]
    return len(rest) > 0


def _asked_kind(parsed: Parse) -> str:
    """What an open question whose truth is "none" asks for."""
    words = set(parsed.words)
    if words & {"where", "side", "location", "located"}:
        return "side"
    if words & {"size", "big", "extensive", "extent", "large", "space"}:
        return "size"
    return "zone" if "zone" in words and "which" in words and parsed.of("finding") else "finding"


def concept(question: str, truth: str, slots: Mapping[str, Any] | None = None) -> str | None:
    """A finding with its place ("a nodule in the left upper lobe" as "left upper nodule"), or an organ; None where the
    truth says that nothing is there, or where neither names anything to be seen at a place.

    Finding and place are read from the question and from what the truth states; `slots` win over the texts.
    """
    said = truth.strip().lower().rstrip(".")
    given = {kind: str(value) for kind, value in (slots or {}).items() if isinstance(value, str)}
    if said in NONE or given.get("presence") == "no":
        return None
    asked, true = parse(last_question(question)), parse(truth)
    if said in NO and "presence" not in given and not (given.keys() & {"side", "zone"}):
        return None
    stated = _stated(true)
    finding = _finding(stated) or given.get("finding") or _finding(list(asked.mentions))
    places = [_place(kind, given, stated, asked, denied=said in NO) for kind in ("side", "zone")]
    if finding is not None:
        return " ".join(part for part in (*places, finding) if part)
    organ = next((m.value for m in [*stated, *asked.mentions] if m.kind == "organ"), None)
    return " ".join(part for part in (*places, organ) if part) if organ else None


def _stated(parsed: Parse) -> list[Mention]:
    return [m for m in parsed.mentions if m.status != ABSENT]


def _finding(mentions: list[Mention]) -> str | None:
    named = [m.value for m in mentions if m.kind == "finding"]
    return next((f for f in named if f in CONCEPTS and f not in GENERIC), None)


def _place(kind: str, given: Mapping[str, str], stated: list[Mention], asked: Parse, denied: bool) -> str:
    """A slot's true value; the question's own place counts where the truth does not deny it ("Is it left?" - "no")."""
    if kind in given:
        return given[kind]
    mine = next((m.value for m in stated if m.kind == kind), "")
    return mine or ("" if denied else next((m.value for m in asked.mentions if m.kind == kind), ""))
