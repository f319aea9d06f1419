"""BLEU and ROUGE-L against hand-worked values and against the numbers of sacrebleu and rouge-score."""

import random

import numpy as np
import pytest

from clinalign.evaluation import statistics as S
from clinalign.evaluation.text import bleu_columns, corpus_bleu, longest_common, rouge_l

REPORTS = [
    ("The heart is enlarged and the lungs are clear", "The heart is enlarged and both lungs are clear"),
    ("There is a small nodule in the left upper zone", "A small nodule is seen in the left upper zone"),
    ("No effusion", "There is no pleural effusion or pneumothorax"),
]


def corpus(pairs):
    return float(corpus_bleu(np.array([bleu_columns(*pair) for pair in pairs]).sum(0)))


def test_bleu_equals_sacrebleu():
    """sacrebleu 2.6.0, tokenize none, smoothing none, lower case: 44.2065."""
    assert corpus(REPORTS) == pytest.approx(0.442065024397775, abs=1e-9)


def test_bleu_by_hand():
    """Five words against five, four right at the front: 4/5, 3/4, 2/3, 1/2, no brevity penalty."""
    assert corpus([("a b c d x", "a b c d e")]) == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert corpus([("a b c d", "a b c d e")]) == pytest.approx(np.exp(1 - 5 / 4))
    assert corpus([("a b c", "a b c")]) == 0, "no four words in a row"
    assert corpus([("", "a b c d")]) == 0


def test_repeated_words_are_clipped():
    assert bleu_columns("lung lung lung lung", "left lung")[:5] == [1, 0, 0, 0, 4]


def test_rouge_equals_rouge_score():
    """rouge-score 0.1.2, rougeL without stemmer."""
    expected = [0.8888888888888888, 0.8, 0.4444444444444445]
    assert [rouge_l(*pair) for pair in REPORTS] == pytest.approx(expected)


def test_rouge_by_hand():
    assert rouge_l("a small left nodule", "small nodule") == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert rouge_l("", "nodule") == rouge_l("mass", "nodule") == 0.0


def test_longest_common_subsequence_equals_the_table():
    rng = random.Random(0)
    for _ in range(300):
        a, b = (rng.choices("abcd", k=rng.randrange(0, 90)) for _ in range(2))
        row = [0] * (len(b) + 1)
        for x in a:
            row, last = [0], row
            for j, y in enumerate(b):
                row.append(last[j] + 1 if x == y else max(last[j + 1], row[j]))
        assert longest_common(a, b) == row[-1]


def test_bleu_has_an_interval_by_patient():
    columns = np.array([bleu_columns(*pair) for pair in REPORTS * 20])
    got = S.ratio_interval(columns, [f"p{n % 40}" for n in range(60)], corpus_bleu, resamples=200)
    assert got.estimate == pytest.approx(0.442065, abs=1e-6) and got.low < got.estimate < got.high
