"""Measures of the text alone, by hand."""

import pytest

from clinalign.evaluation import text as T


def test_overlap_by_hand():
    """`right lung` against `The right side.`: one of two found, one of three said."""
    got = T.text_metrics("The right side.", "right lung")
    assert got["token_recall"] == 0.5 and got["token_f1"] == pytest.approx(2 / 5)
    assert got["words"] == 3 and got["exact_match"] == 0
    assert T.text_metrics("Yes.", "yes")["exact_match"] == 1
    assert T.text_metrics("", "yes") == {"words": 0, "exact_match": 0, "token_f1": 0, "token_recall": 0}


def test_words_keep_hyphens_and_drop_punctuation():
    assert T.words("Left-sided, 3.5 cm; it's so_called") == ["left-sided", "3.5", "cm", "it's", "so", "called"]


def test_repeats_needs_three_words_twice():
    assert T.repeats("there is a left left nodule there is a nodule")
    assert not T.repeats("there is a nodule and there is no effusion")


def test_word_distance_equals_the_table_by_hand():
    """a b c -> a x c d: one substitution, one insertion."""
    assert distance("a b c", "a x c d") == 2
    assert distance("", "a b") == 2 and distance("a", "") == 1
    assert distance("k i t t e n", "s i t t i n g") == 3


def test_words_of_the_claim_are_free():
    """Marked words are in capitals."""
    assert distance("a LEFT b", "a RIGHT b") == 0
    assert distance("a NO b", "a b") == 0 and distance("a b", "a NO b") == 0
    assert distance("evidence of a NODULE", "NO EVIDENCE OF A NODULE") == 0
    assert distance("evidence of a NODULE", "NODULE") == 3
    assert distance("a LEFT b", "a x b") == 1, "a claim is not free where something else stands for it"


def distance(a: str, b: str) -> int:
    return T.word_distance(*([(w.lower(), w.isupper()) for w in text.split()] for text in (a, b)))


def test_intact_ignores_the_claim_only():
    base = "The nodule lies in the left lung on this film."
    span = [base.index("left"), base.index("left") + 4]
    flipped = base.replace("left", "right")
    assert T.intact(flipped, [span[0], span[1] + 1], base, span, True)
    assert not T.intact(flipped, [span[0], span[1] + 1], base, span, False), "the claim must parse"
    assert not T.intact("Right.", [0, 5], base, span, True), "terse answers are not intact"
    two = flipped.replace("this film", "that image")
    assert T.intact(two, [span[0], span[1] + 1], base, span, True)
    three = two.replace("lies", "sits")
    assert not T.intact(three, [span[0], span[1] + 1], base, span, True)
    again = "left lung on this film left lung on this film"
    assert not T.intact(again, [0, 4], again, [0, 4], True), "repetition"
