"""Measures of an answer's text alone: length, overlap with the truth, repetition, distance to another answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

WORD = re.compile(r"[^\W_]+(?:[-'’.][^\W_]+)*")
NGRAM = 3
INTACT_DISTANCE = 2


def words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return WORD.findall(text.lower())


def text_metrics(text: str, truth: str) -> dict[str, float]:
    """`words`, and the overlap with the truth as bags of words: `exact_match`, `token_f1`, `token_recall`.

    `right lung` against `The right side.`: one word of two found, of three said: recall 1/2, F1 2/5.
    """
    said, wanted = words(text), words(truth)
    common = sum((Counter(said) & Counter(wanted)).values())
    return {
        "words": float(len(said)),
        "exact_match": float(said == wanted),
        "token_f1": 2 * common / (len(said) + len(wanted)) if common else 0.0,
        "token_recall": common / len(wanted) if wanted else 0.0,
    }


def repeats(text: str) -> bool:
    """Whether any three words in a row occur twice."""
    said = words(text)
    grams = list(zip(said, said[1:], said[2:], strict=False))
    return len(set(grams)) < len(grams)


def outside(text: str, span: Sequence[int] | None) -> list[str]:
    """The words of `text` that do not touch the character range `span`."""
    if span is None:
        return words(text)
    found = WORD.finditer(text.lower())
    return [match.group() for match in found if match.end() <= span[0] or match.start() >= span[1]]


def word_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Levenshtein distance in words."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]


def intact(text: str, span: Sequence[int] | None, base: str, base_span: Sequence[int] | None, parsed: bool) -> bool:
    """Whether an answer is still the kind of text the base model writes.

    The claim parses, no three words repeat, and outside the claim at most two words differ from the base's answer.
    """
    if not parsed or repeats(text):
        return False
    return word_distance(outside(text, span), outside(base, base_span)) <= INTACT_DISTANCE
