"""BLEU and ROUGE-L on lower-case words without punctuation, as sums over answers so that intervals can be clustered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from clinalign.evaluation.text import words

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
