"""What a question asks for, and what its ground truth says, before any answer is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clinalign.language.claims import claims
from clinalign.language.graph import GENERIC
from clinalign.language.lexicon import SLOTS
from clinalign.language.parse import ABSENT, Parse, parse

YES = {"yes", "y", "true", "yeah", "yes.", "yep"}
NO = {"no", "n", "false", "no.", "nope"}
NONE = {"none", "absent", "nothing", "no finding", "no abnormality", "normal", "not present", "no findings", "none."}

_OPTION = re.compile(
    r"(?:^|(?<=[\s(]))\(?([A-H])[.):]\)?\s+(.+?)(?=\s*(?:[\n,;]|(?<=\s))\s*\(?[A-H][.):]\)?\s|\s*\n|\s*$)", re.S
)
_PRESENCE = re.compile(
    r"\b(is|are|was) there\b|\bdo(es)? (you|it|this|the|we|any)\b.*\b(see|show|contain|have|reveal|demonstrate|exhibit)"
    r"|\bdo(es)? (you|it|this|the|we|any)\b.*\b(display|depict|find|look)"
    r"|\b(can|could) .*\b(seen|see|detected|identified|observed|found|visualized)\b"
    r"|\b(is|are) .*\b(present|visible|seen|evident|absent|identified|shown|depicted|suspected|detected)\b"
    r"|\bevidence of\b|\bany\b"
)
_DEFINITE = re.compile(r"\b(the|this|that|its|these)\s+(?:[\w-]+\s+){0,3}$")


@dataclass(frozen=True, slots=True)
class Asked:
    """kind: "presence", "slot" (closed, one value asked), "open", "letter", "box", "text" or "report".

    truths: for "open" and "slot" the true value by kind of slot; for "presence" {"presence": "yes" | "no"}; for
    "letter" {"letter": ..., "text": ...}. finding: the finding asked about; asked: the value in a closed question;
    concept: (kind, value) asked about where it is no finding; inverted: "yes" says that the finding is not there, as in
    "is the heart normal?"; names: the findings that the question names.
    """

    kind: str
    truths: Mapping[str, str]
    finding: str | None = None
    asked: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    concept: tuple[str, str] | None = None
    inverted: bool = False
    names: frozenset[str] = field(default_factory=frozenset)


def understand(question: str, truth: str, task: str = "open", slots: Mapping[str, Any] | None = None) -> Asked | None:
    """Reads the question with its ground truth; None where it is not understood.

    `slots` are the true values where a data set has them ({"side": "left", "asked": "right"}); they win over the text.
    """
    slots = slots or {}
    if task == "report" or any(isinstance(v, Mapping) and "presence" in v for v in slots.values()):
        return Asked("report", {})
    stem, options = split_options(question, slots)
    parsed = parse(stem)
    findings = [m.value for m in parsed.of("finding")]
    finding = next((f for f in findings if f not in GENERIC), findings[0] if findings else None)
    word = truth.strip().lower()
    if options:
        return _letter(truth, options, finding)
    if re.fullmatch(r"\[?\s*\d+(\.\d+)?(\s*,\s*\d+(\.\d+)?){3}\s*\]?", word):
        return Asked("box", {"box": word}, finding)
    names = frozenset(findings)
    if word in YES or word in NO:
        return _closed(stem, parsed, "yes" if word in YES else "no", finding, slots, names)
    return _open(parsed, word, truth, finding, slots, names)


def split_options(question: str, slots: Mapping[str, Any]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The last question sentence and the lettered options, where there are any."""
    found = [(m.group(1), m.group(2).strip(" .,;"), m.start()) for m in _OPTION.finditer(question)]
    letters = [letter for letter, _, _ in found]
    options: tuple[tuple[str, str], ...] = ()
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


def _letter(truth: str, options: tuple[tuple[str, str], ...], finding: str | None) -> Asked | None:
    word = truth.strip().strip("().").strip()
    for letter, text in options:
        if word.upper() == letter or word.lower() == text.lower() or word.lower().startswith(f"{letter.lower()}. "):
            return Asked("letter", {"letter": letter, "text": text}, finding, options=options)
    return None


def _closed(
    stem: str, parsed: Parse, truth: str, finding: str | None, slots: Mapping[str, Any], names: frozenset[str]
) -> Asked | None:
    asked_about = [m for m in parsed.mentions if m.kind in SLOTS]
    judged = [c for c in claims(stem) if c.implied] if finding is None and not slots else []
    if judged:
        inverted = judged[0].mention.value == "normal"
        return Asked("presence", {"presence": truth}, judged[0].finding, inverted=inverted, names=names)
    given = [kind for kind in SLOTS if isinstance(slots.get(kind), str)]
    if given and "presence" not in slots:
        kind = given[0]
        asked = slots.get("asked") or next((m.value for m in asked_about if m.kind == kind), None)
        if asked is not None:
            return Asked("slot", {kind: str(slots[kind]), "yesno": truth}, finding, str(asked), names=names)
    if finding is not None and (slots.get("presence") or not asked_about or _asks_presence(stem, parsed)):
        return Asked("presence", {"presence": truth}, finding, names=names)
    if asked_about:
        m = asked_about[-1]
        if finding is None and m.kind in ("organ", "location"):
            return Asked("presence", {"presence": truth}, None, concept=(m.kind, m.value), names=names)
        true = {m.kind: m.value} if truth == "yes" else _complement(m.kind, m.value)
        return Asked("slot", {**true, "yesno": truth}, finding, m.value, concept=(m.kind, m.value), names=names)
    return Asked("presence", {"presence": truth}, finding, names=names)


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
) -> Asked | None:
    given = [kind for kind in (*SLOTS, "finding") if kind in slots]
    if len(given) == 1:
        value = slots[given[0]]
        absent = value is None or str(value) in NONE
        return Asked("open", {given[0]: "none" if absent else str(value)}, finding, names=names)
    if word in NONE:
        asks = _asked_kind(parsed)
        return Asked("open", {asks: "none"}, finding, names=names)
    said = parse(truth)
    truths: dict[str, str] = {}
    for m in said.mentions:
        if m.kind in (*SLOTS, "finding") and m.status != ABSENT:
            truths.setdefault(m.kind, m.value)
    if "finding" in truths and any(w in parsed.words for w in ("where", "location", "located")):
        del truths["finding"]
    if len(truths) > 1 and "organ" in truths and ({"side", "zone", "finding"} & truths.keys()):
        del truths["organ"]
    if word.isdigit() and ("how" in parsed.words or "number" in parsed.words):
        truths = {"count": word}
    if not truths or _more_than_slots(said):
        return Asked("text", {"text": truth}, finding, names=names)
    return Asked("open", truths, finding, names=names)


_FILLER = frozenset(
    "lobe zone lung side of the in on a an region field half part is it area and view image one".split()
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
