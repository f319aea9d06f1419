"""Answers as models write them: the part that answers, one-word answers, refusals, lettered options."""

from __future__ import annotations

import re
from functools import lru_cache

from clinalign.language.lexicon import meanings
from clinalign.language.parse import PRESENT, parse


def _listed(wordings: str) -> frozenset[str]:
    return frozenset(" ".join(wordings.split()).split("; "))


YES = _listed(
    """yes; y; true; yeah; yep; correct; positive; present; affirmative; indeed; it is; it does; there is; there are;
    they are; that is correct; that is right; this is correct; right; absolutely; certainly; definitely; of course;
    it has; yes it is; yes it does; yes there is; it is present; present yes; seen; detected; identified; visible;
    that is true; this is true; i agree; agreed; exactly; sure; it can be seen; is present; yes definitely; they do;
    the answer is yes; likely yes"""
)
NO = _listed(
    """no; n; false; nope; nay; incorrect; negative; absent; none; not present; it is not; it isn't; it does not;
    it doesn't; there is not; there isn't; there is none; there are none; none seen; none identified; none present;
    none noted; none detected; none visible; no evidence; not seen; not visible; not identified; not detected; nothing;
    there aren't; they are not; they aren't; no it is not; no it does not; no there is not; not at all; never; not
    evident; not really; definitely not; certainly not; absolutely not; i do not think so; i don't think so; that is
    incorrect; that is wrong; this is incorrect; that is false; this is false; wrong; is absent; it is absent; no sign;
    none evident; no such finding; not demonstrated; not apparent; not observed; not found; no evidence of it; no
    evidence of this; i do not see any; i see none; i don't see any; i do not see one; i don't see one; they do not;
    not that i can see; it has not; the answer is no; no signs"""
)
_BLANKED = re.compile(
    r"<(think|thinking|reasoning|scratchpad)>.*?(?:</\1>|\Z)|\A.*?</(?:think|thinking|reasoning|scratchpad)>"
    r"|</?[a-z_]+>|\\(?:boxed|text|textbf|mathbf|mathrm)\b|[*_`#$\\~|]",
    re.S | re.I,
)
_FINAL = re.compile(r"\b(?:final answer|answer|antwort|respuesta|r\u00e9ponse)\s*(?:is\b\s*:?|[:=])\s*", re.I)
_REFUSALS = re.compile(
    r"\bi('m| am) (sorry|unable|not able|not qualified)|\b(cannot|can't|can not|could not|unable to|not possible to|"
    r"impossible to|difficult to|hard to|not able to|do not|don't) (be )?"
    r"(reliably |definitively |accurately |confidently )?"
    r"(determine|determined|tell|assess|assessed|provide|answer|answered|say|know|evaluate|evaluated|interpret|diagnose|"
    r"comment|make a diagnosis|offer|give)|\bas an ai\b|\bnot enough information\b"
    r"|\binsufficient (information|data|image)"
    r"|\bconsult a\b|\bneed(ed)? more (information|images|views)"
    r"|\b(is|it is|i am|i'm) (unclear|uncertain|not clear|unsure|"
    r"not sure|indeterminate|inconclusive)\b|\bnot certain\b|\bno (definitive )?(conclusion|diagnosis) can\b"
    r"|\binconclusive\b"
    r"|\bcannot be (determined|established|ascertained)|\bimage quality (is|does|prevents)|\bnon-?diagnostic\b",
    re.I,
)
_NO_IMAGE = re.compile(
    r"\b(no image|(cannot|can't|do not|don't|unable to) (see|view|access) (an|any|the|this|your)? ?images?|"
    r"without an image|"
    r"cannot answer|no picture|image (was )?not (provided|attached)|no x-?ray (was )?(provided|attached))\b",
    re.I,
)


_EARLIER = r"(prior|previous|earlier|last|old|comparison|baseline)"
_STUDY = (
    r"(image|images|study|studies|exam|examination|examinations|radiograph|radiographs|x-?ray|film|films|scan|scans)"
)
_NO_PRIOR = re.compile(
    rf"\b(no|without an?|without) ({_EARLIER} )+{_STUDY}?\b|\b(no|nothing|without anything) to (compare|look at)\b"
    rf"|\bneeds? an? {_EARLIER} {_STUDY}\b.*\b(none|not|no)\b"
    rf"|\b{_EARLIER} {_STUDY} (is|was|are|were) (not|un)\s?(given|provided|available|shown)"
    r"|\b(cannot|can't|can not) be compared\b",
    re.I | re.S,
)


@lru_cache(maxsize=8192)
def lacks_prior(answer: str) -> bool:
    """Whether an answer says that there is no earlier image to compare with."""
    return _NO_PRIOR.search(answer) is not None


@lru_cache(maxsize=8192)
def cleaned(answer: str) -> str:
    """The answer at its own length, with blanks for thoughts, tags, boxes and marks of emphasis."""
    return _BLANKED.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), answer)


@lru_cache(maxsize=8192)
def concluding(answer: str) -> str:
    """The answer at its own length, with blanks for what stands before "Final answer:"."""
    marks = [m for m in _FINAL.finditer(answer) if answer[m.end() :].strip(" .\n")]
    return " " * marks[-1].end() + answer[marks[-1].end() :] if marks else answer


@lru_cache(maxsize=8192)
def one_word(answer: str) -> str | None:
    """yes or no where the whole answer is a wording of it: "None seen.", "It is."."""
    said = " ".join(re.sub(r"[^\w' ]+", " ", answer.lower().replace("\u2019", "'")).split())
    return "yes" if said in YES else "no" if said in NO else None


@lru_cache(maxsize=8192)
def refuses(answer: str) -> bool:
    """Whether an answer declines, or says that it cannot tell."""
    return _REFUSALS.search(answer) is not None or declines(answer)


def declines(answer: str) -> bool:
    """Whether an answer says that there is nothing to answer from."""
    return _NO_IMAGE.search(answer) is not None


Options = tuple[tuple[str, str], ...]

_WHOLE = re.compile(
    r"^\W*(?:(?:the|my|correct|best|final|right)\s+)*(?:answer|option|choice)?\s*(?:is)?\W*([A-Ha-h])\W*$"
)
_LETTERS = (
    re.compile(r"^\s*\(?([A-H])\)?\s+(?:or|and)\s"),
    re.compile(r"^[\s(\[\"']*([A-H])(?:[).:,\]\uff09]|\s+[-\u2013\u2014]\s|\s*$)"),
    re.compile(r"^[\s(\[\"']*([a-h])[).:\]\uff09]\s"),
    re.compile(
        r"\b(?:answer|option|choice|choose|select|pick|antwort|respuesta)\b(?:\s+is)?[:=]?\s+[(\[\"']*([A-H])\b", re.I
    ),
    re.compile(r"[(\[]([A-H])[)\]]"),
    re.compile(r"(?<![A-Za-z])([A-H])(?:,|\.\s|:)\s"),
    re.compile(r"(?<![A-Za-z])([A-H])[.)]?\s*$"),
)
_DENIED = re.compile(r"\b(?:no|not|without|rather than|neither|nor|instead of|isn't|never)\s+(?:\w+\s+){0,2}$", re.I)


def letters(answer: str, options: Options) -> list[tuple[str, int]]:
    """(letter, character index) of every option letter that the answer gives, in its conclusion where it has one."""
    known = {letter for letter, _ in options}
    text = concluding(answer)
    whole = _WHOLE.match(text.strip())
    if whole is not None:
        index = text.index(text.strip()) + whole.start(1)
        return [(whole.group(1).upper(), index)] if whole.group(1).upper() in known else []
    found = {
        (m.group(1).upper(), m.start(1))
        for pattern in _LETTERS
        for m in pattern.finditer(text)
        if m.group(1).isupper() or pattern is _LETTERS[2]
    }
    return sorted(((a, i) for a, i in found if a in known), key=lambda pair: pair[1])


def option_texts(answer: str, options: Options) -> list[tuple[str, int, int]]:
    """(letter, start, end) of every option's words in the answer that it does not deny, longer options first, no
    overlaps."""
    taken: list[tuple[str, int, int]] = []
    for letter, text in sorted(options, key=lambda option: -len(option[1])):
        for m in re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", answer, re.I):
            if not any(a < m.end() and m.start() < b for _, a, b in taken):
                taken.append((letter, *m.span()))
    return sorted((t for t in taken if not _denied(answer, t[1], t[2])), key=lambda item: item[1])


def _denied(answer: str, start: int, end: int) -> bool:
    """Whether the words in a range are negated or left open."""
    about = [m for m in parse(answer).mentions if m.start < end and start < m.end and m.kind != "yesno"]
    if about:
        return all(m.status != PRESENT for m in about)
    return _DENIED.search(answer[:start]) is not None


def option_meant(answer: str, options: Options) -> str | None:
    """The one option whose finding or value the answer states in other words."""
    said = {(m.kind, m.value) for m in parse(answer).mentions if m.status == PRESENT}
    meant = [letter for letter, text in options if set(meanings(text)) & said]
    return meant[0] if len(meant) == 1 else None
