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


@pytest.mark.parametrize(
    ("answer", "truth", "same"),
    [
        ("<5 mm", ">5 mm", False),
        ("< 5 mm.", "<5mm", True),
        ("5 mm", "<5 mm", False),
        ("<= 5 mm", "≤5 mm", True),
        ("≥ 5 mm", "> 5 mm", False),
        ("5 mm", "5 cm", False),
        ("5 %", "5", False),
        ("-5 HU", "5 HU", False),
        ("−5 HU", "-5 HU", True),
        ("HER2 +", "HER2 -", False),
        ("HER2-", "HER2", False),
        ("Rh+", "Rh-", False),
        ("± 2", "2", False),
        ("3.5", "35", False),
        ("38 °C", "38 C", False),
        ("2/3", "2 3", False),
        ("Left lung.", "left lung", True),
        ("left-sided", "left sided", True),
        ("yes - clearly", "Yes, clearly", True),
        ("5 \u00b5m", "5 \u03bcm", True),
        ("Ménière", "Me\u0301nie\u0300re", True),
        ("Menière", "Ménière", False),
    ],
)
def test_exact_match_keeps_signs_comparisons_and_units(answer, truth, same):
    assert T.text_metrics(answer, truth)["exact_match"] == float(same)
    assert T.text_metrics(truth, answer)["exact_match"] == float(same)


def test_accents_in_either_form_are_the_same_words():
    assert T.words("Me\u0301nie\u0300re") == ["ménière"]
    assert T.plain("Me\u0301nie\u0300re  ") == T.plain("ménière")


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


def test_style_ignores_the_claim_only():
    base = "The nodule lies in the left lung on this film."
    span = [base.index("left"), base.index("left") + 4]
    flipped = base.replace("left", "right")
    assert T.style_preserved(flipped, [span[0], span[1] + 1], base, span, True)
    assert not T.style_preserved(flipped, [span[0], span[1] + 1], base, span, False), "the claim must parse"
    assert not T.style_preserved("Right.", [0, 5], base, span, True), "terse answers are another style"
    two = flipped.replace("this film", "that image")
    assert T.style_preserved(two, [span[0], span[1] + 1], base, span, True)
    three = two.replace("lies", "sits")
    assert not T.style_preserved(three, [span[0], span[1] + 1], base, span, True)
    again = "left lung on this film left lung on this film"
    assert not T.style_preserved(again, [0, 4], again, [0, 4], True), "repetition"
