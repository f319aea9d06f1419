"""Lettered options in an answer: the letters it gives and the option texts it repeats."""

from __future__ import annotations

import re

_LETTERS = (
    re.compile(r"^\s*\(?([A-H])\)?\s+(?:or|and)\s"),
    re.compile(r"^\s*\(?([A-H])(?:[).:,]|\s*$)"),
    re.compile(r"\b(?:answer|option|choice)(?:\s+is)?:?\s+\(?([A-H])\b", re.I),
    re.compile(r"\(([A-H])\)"),
    re.compile(r"(?<![A-Za-z])([A-H])(?:,|\.\s|:)\s"),
    re.compile(r"(?<![A-Za-z])([A-H])[.)]?\s*$"),
)


def letters(answer: str, options: tuple[tuple[str, str], ...]) -> list[tuple[str, int]]:
    """(letter, character index) of every option letter that the answer gives."""
    known = {letter for letter, _ in options}
    found = {(m.group(1), m.start(1)) for pattern in _LETTERS for m in pattern.finditer(answer)}
    return sorted(((a, i) for a, i in found if a in known), key=lambda pair: pair[1])


def option_texts(answer: str, options: tuple[tuple[str, str], ...]) -> list[tuple[str, int, int]]:
    """(letter, start, end) of every option's words in the answer, longer options first, no overlaps."""
    taken: list[tuple[str, int, int]] = []
    for letter, text in sorted(options, key=lambda option: -len(option[1])):
        for m in re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", answer, re.I):
            if not any(a < m.end() and m.start() < b for _, a, b in taken):
                taken.append((letter, *m.span()))
    return sorted(taken, key=lambda item: item[1])
