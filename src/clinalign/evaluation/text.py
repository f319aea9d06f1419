"""Measures of an answer's text alone: length, overlap with the truth, repetition, distance to another answer."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

WORD = re.compile(r"[^\W_]+(?:[-'’.][^\W_]+)*")
EXACT = re.compile(
    r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*"  # numbers and words, 5mm in two
    r"|[<>]=?|[≤≥=≠±+%‰°~≈/]"
    r"|(?<![^\W_])-(?=[.\d])|(?<=[^\W_])-(?![^\W_])"  # the sign of -5 and of Rh-, not a hyphen or a dash
)
SAME = str.maketrans({"−": "-", "≤": "<=", "≥": ">=", "\u00b5": "\u03bc", "’": "'", "\u2010": "-", "\u2011": "-"})
NGRAM = 3
INTACT_DISTANCE = 2


def words(text: str) -> list[str]:
    """Lower-case words without punctuation, accents in one form (NFC)."""
    return WORD.findall(unicodedata.normalize("NFC", text).lower())


def plain(text: str) -> str:
    """Lower case, single blanks, accents in one form (NFC): the form in which two answers are the same."""
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def exact(text: str) -> list[str]:
    """What an exact match compares: words, numbers, and the signs, comparisons and units that change what they mean.

    Case, spacing and punctuation do not count: `<5mm.` is `< 5 mm`, but neither `> 5 mm`, `5 mm`, nor `< 5 cm`.
    """
    return EXACT.findall(unicodedata.normalize("NFC", text).translate(SAME).lower())


def text_metrics(text: str, truth: str) -> dict[str, float]:
    """`words`, `exact_match` (see `exact`), and the overlap as bags of words: `token_f1`, `token_recall`.

    `right lung` against `The right side.`: one word of two found, of three said: recall 1/2, F1 2/5.
    """
    said, wanted = words(text), words(truth)
    common = sum((Counter(said) & Counter(wanted)).values())
    return {
        "words": float(len(said)),
        "exact_match": float(exact(text) == exact(truth)),
        "token_f1": 2 * common / (len(said) + len(wanted)) if common else 0.0,
        "token_recall": common / len(wanted) if wanted else 0.0,
    }


def repeats(text: str) -> bool:
    """Whether any three words in a row occur twice."""
    said = words(text)
    grams = list(zip(said, said[1:], said[2:], strict=False))
    return len(set(grams)) < len(grams)


def marked(text: str, span: Sequence[int] | None) -> list[tuple[str, bool]]:
    """The words of `text`, and whether each touches the character range `span`."""
    found = WORD.finditer(text.lower())
    return [(m.group(), span is not None and m.start() < span[1] and span[0] < m.end()) for m in found]


def word_distance(a: Sequence[tuple[str, bool]], b: Sequence[tuple[str, bool]]) -> int:
    """Levenshtein distance in words, where marked words come and go for free.

    A marked word may still match an unmarked one, because the claim may take more words on one side than on the other
    ("no evidence of a nodule" against "evidence of a" + "nodule").
    """
    row = [0]
    for _, free in b:
        row.append(row[-1] + (not free))
    for left, left_free in a:
        previous, row[0] = row[0], row[0] + (not left_free)
        for j, (right, right_free) in enumerate(b, 1):
            change = left != right and not (left_free and right_free)
            previous, row[j] = row[j], min(row[j] + (not left_free), row[j - 1] + (not right_free), previous + change)
    return row[-1]


def intact(text: str, span: Sequence[int] | None, base: str, base_span: Sequence[int] | None, parsed: bool) -> bool:
    """Whether an answer is still the kind of text the base model writes.

    The claim parses, no three words repeat, and outside the claim at most two words differ from the base's answer.
    """
    if not parsed or repeats(text):
        return False
    return word_distance(marked(text, span), marked(base, base_span)) <= INTACT_DISTANCE
