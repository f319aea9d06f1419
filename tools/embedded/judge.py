"""What an answer of the embedded model says, read by the sentence patterns of the phantom text alone."""

import re

from clinalign.data.phantom.cases import KINDS, SIDES, SIZES, ZONES
from clinalign.data.phantom.text import Question

_VALUES = {"side": SIDES, "size": SIZES, "zone": ZONES}
_BOX = re.compile(r"\[(\d+), (\d+), (\d+), (\d+)\]")
_LETTER = re.compile(r"\b([A-E]), ")
_DENIED = re.compile(r"\b(no|absent)\b", re.IGNORECASE)
_RESOLVED = {"yes": ("has resolved", "no longer be seen"), "no": ("has not resolved", "still be seen")}
_NO_IMAGE = re.compile(r"\b(cannot|not able)\b")
_WORDS = re.compile(r"[a-z]+")

Claim = str | tuple[int, ...] | dict[str, str]


def said(question: Question, text: str) -> Claim | None:
    """The claim of an answer in the terms of the question's truth, or None if it makes none or more than one."""
    if question.kind in ("report", "caption"):
        return _findings(text)
    if question.kind == "box":
        found = _BOX.search(text)
        return tuple(int(number) for number in found.groups()) if found else None
    if question.kind == "options":
        found = _LETTER.search(text)
        return found.group(1) if found else None
    if question.kind == "knowledge":
        return text or None
    if question.kind == "no_image":
        return "no image" if _NO_IMAGE.search(text) else None
    if question.kind == "resolved":
        return _only({answer for answer, marks in _RESOLVED.items() if any(mark in text for mark in marks)})
    if question.kind == "compare":
        return _only({"first", "second", "both", "neither"} & set(_WORDS.findall(text.lower())))
    if question.slot == "finding":
        return "none" if text.startswith("No abnormality") else _only({kind for kind in KINDS if kind in text.lower()})
    if question.slot == "presence":
        named = question.finding is not None and question.finding in text.lower()
        return ("no" if _DENIED.search(text) else "yes") if named else None
    if question.kind == "presupposed" and re.search(r"\bno\b", text, re.IGNORECASE):
        return "none"
    return _only(set(_VALUES[question.slot]) & set(_WORDS.findall(text.lower())))


def truth(question: Question) -> Claim:
    """The same for a right answer."""
    if question.kind in ("report", "caption"):
        return {kind: claim["presence"] for kind, claim in question.slots.items()}
    if question.kind == "box":
        claim = said(question, question.full)
        assert claim is not None
        return claim
    if question.kind in ("options", "presupposed", "given", "compare", "resolved", "no_image", "knowledge"):
        return question.answer
    return str(question.slots[question.slot])


def is_right(question: Question, claim: Claim | None) -> float:
    """1 or 0; for reports and captions the share of the six findings told right, for boxes IoU >= 0.5."""
    right = truth(question)
    if claim is None:
        return 0.0
    if isinstance(right, dict) and isinstance(claim, dict):
        return sum(claim[kind] == right[kind] for kind in KINDS) / len(KINDS)
    if isinstance(right, tuple) and isinstance(claim, tuple):
        return float(overlap(right, claim) >= 0.5)
    return float(claim == right)


def _findings(text: str) -> dict[str, str] | None:
    """Each kind as "yes" or "no"; in a caption what is not named is absent."""
    told = dict.fromkeys(KINDS, "no")
    named = "abnormality" in text
    for sentence in re.split(r"(?<=\.)\s+", text.lower()):
        shown, _, denied = re.sub(r"^no ", " no ", sentence).partition(" no ")
        for kind in KINDS:
            if kind in shown:
                told[kind] = "yes"
            named = named or kind in shown or kind in denied
    return told if named else None


def _only(claims: set[str]) -> str | None:
    return next(iter(claims)) if len(claims) == 1 else None


def overlap(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(0, width) * max(0, height)
    return shared / max(1, a[2] * a[3] + b[2] * b[3] - shared)
