"""Measures of an answer's text alone: length, overlap with the truth (BLEU and ROUGE-L as well, on lower-case words
without punctuation), repetition, distance to another answer."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

WORD = re.compile(r"[^\W_]+(?:[-'’.][^\W_]+)*")
EXACT = re.compile(
    r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*"  # numbers and words, 5mm in two
    r"|[<>]=?|[≤≥=≠±+%‰°~≈/]"
    r"|(?<![^\W_])-(?=[.\d])|(?<=[^\W_])-(?![^\W_])"  # the sign of -5 and of Rh-, not a hyphen or a dash
)
SAME = str.maketrans({"−": "-", "≤": "<=", "≥": ">=", "\u00b5": "\u03bc", "’": "'", "\u2010": "-", "\u2011": "-"})
NGRAM = 3
STYLE_DISTANCE = 2


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


def style_preserved(
    text: str, span: Sequence[int] | None, base: str, base_span: Sequence[int] | None, parsed: bool
) -> bool:
    """Whether an answer is still the kind of text the base model writes.

    The claim parses, no three words repeat, and outside the claim at most two words differ from the base's answer.
    """
    if not parsed or repeats(text):
        return False
    return word_distance(marked(text, span), marked(base, base_span)) <= STYLE_DISTANCE


ORDER = 4


def bleu_columns(text: str, truth: str) -> list[float]:
    """What one answer adds to corpus BLEU: hits of 1 to 4 words, its own numbers of them, its length, the truth's."""
    said, wanted = words(text), words(truth)
    hits, totals = [], []
    for n in range(1, ORDER + 1):
        left, right = (Counter(zip(*(w[i:] for i in range(n)), strict=False)) for w in (said, wanted))
        hits.append(float((left & right).total()))
        totals.append(float(left.total()))
    return [*hits, *totals, float(len(said)), float(len(wanted))]


def corpus_bleu(sums: np.ndarray) -> np.ndarray:
    """BLEU-4 (Papineni et al. 2002) of summed columns [..., 10], between 0 and 1, without smoothing.

    "the left lung shows a nodule" against "the left lung has a nodule": precisions 5/6, 3/5, 1/4 and 0/3, so 0.
    """
    hits, totals, said, wanted = sums[..., :ORDER], sums[..., ORDER : 2 * ORDER], sums[..., -2], sums[..., -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(totals > 0, hits / np.maximum(totals, 1), 0.0)
        brevity = np.where(said >= wanted, 1.0, np.exp(1 - wanted / np.maximum(said, 1e-9)))
        return np.asarray(brevity * np.exp(np.log(precision).mean(-1)))


def rouge_l(text: str, truth: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004), without stemming.

    "a small left nodule" against "small nodule": 2 words in order: recall 1, precision 1/2, F1 2/3.
    """
    said, wanted = words(text), words(truth)
    common = longest_common(said, wanted)
    return 2 * common / (len(said) + len(wanted)) if common else 0.0


def longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, as bit operations on one integer (Hyyro 2004)."""
    at: dict[str, int] = {}
    for i, word in enumerate(b):
        at[word] = at.get(word, 0) | 1 << i
    full = (1 << len(b)) - 1
    row = full
    for word in a:
        hit = row & at.get(word, 0)
        row = (row + hit) | (row & ~hit)
        row &= full
    return len(b) - row.bit_count()
