"""Lettered options in an answer: the letters it gives and the option texts it repeats."""

from __future__ import annotations

import re

from clinalign.language.answers import concluding
from clinalign.language.lexicon import meanings
from clinalign.language.parse import PRESENT, parse

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
