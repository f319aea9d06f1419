"""The scorer behind published tables: its golden values hold, and none of its faults is in ours."""

import math

import pytest

from clinalign.evaluation import peers as L
from clinalign.evaluation.text import text_metrics, words
from clinalign.language import judge


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("None", "0"),
        ("X-ray", "x ray"),
        ("left lung,right lung", "left lung right lung"),
        ("1,000 cells", "1000 cells"),
        ("3.5 cm", "3.5 cm"),
        ("Dont know", "don't know"),
        ("The ten lesions of an organ", "10 lesions of organ"),
        ("left-sided , right-sided", "left sided right sided"),
        ("a- b -c", "b c"),
    ],
)
def test_normaliser_golden_values(text, expected):
    assert L.normalise(text) == expected


def test_only_32_periods_go():
    assert L.normalise("x." * 39).count(".") == 7
    assert words("x. " * 39) == ["x"] * 39, "ours has no such limit"


@pytest.mark.parametrize(
    ("said", "truth", "precision", "recall"),
    [
        ("lung", "left lung", 1, 0.5),
        ("lung lung lung", "left lung", 1, 0.75),
        ("left left", "left lung lung", 1, 0.5),
        ("", "left lung", 0, 0),
        ("right", "left", 0, 0),
    ],
)
def test_overlap_counts_the_candidates_words(said, truth, precision, recall):
    assert L.overlap(said, truth)[:2] == pytest.approx((precision, recall))


def test_repeating_a_word_does_not_raise_our_recall():
    assert text_metrics("lung lung lung", "left lung")["token_recall"] == 0.5
    assert text_metrics("left left", "left lung lung")["token_recall"] == pytest.approx(1 / 3)


def test_exact_match_is_exact_in_ours_only():
    assert L.exact_match("lung", "left lung") == 1.0
    assert text_metrics("lung", "left lung")["exact_match"] == 0.0
    assert text_metrics("Left lung.", "left lung")["exact_match"] == 1.0


def test_normal_contains_no():
    question, said = "Is there a pleural effusion?", "The image is normal"
    assert L.closed_hit(said, "no") and L.closed_hit("An abnormal knot", "no")
    assert judge("Is there a fracture?", "There is an abnormal knot.", "no", "closed").correct is not True
    assert judge(question, "There is a normal amount of pleural effusion", "no", "closed").correct is not True


def test_a_closed_answer_that_is_not_yes_or_no_is_never_hit():
    assert not L.closed_hit("left", "left") and not L.closed_hit("CT", "ct")
    assert judge("Is the nodule on the left or the right side?", "left", "left", "closed").correct is True
    assert L.closed_hit("It is not known, left", "left"), "unless it happens to contain yes or no"


def test_none_is_zero_and_loses_no():
    assert not L.closed_hit("None", "no")
    assert L.normalise("None") == "0"
    assert judge("Is there a nodule?", "No nodule", "no", "closed").correct is True


def test_wrong_answers_leave_the_denominator_of_one_of_the_two_repositories():
    rows = [("yes", "yes", True), ("no", "yes", True), ("maybe", "yes", True)]
    assert L.legacy_scores(rows)["closed_accuracy"] == pytest.approx(100 / 3)
    assert L.legacy_scores(rows, variant="llava_med")["closed_accuracy"] == 50.0


# nltk 3.10.4, sentence_bleu, no smoothing, on the normalised words
BLEU = [
    ("The left lung shows a small nodule", "A small nodule is in the left lung", "bleu", 9.712439290098357e-155),
    ("left lung shows small nodule today", "left lung shows small nodule", "bleu", 0.7598356856515925),
    ("left lung shows small nodule today", "left lung shows small nodule", "bleu_1", 5 / 6),
    ("left lung shows small nodule today", "left lung shows small nodule", "bleu_2", 0.8),
    ("left lung", "left lung shows small nodule", "bleu_1", math.exp(1 - 5 / 2)),
    ("nodule", "nodule", "bleu", 1.821831989445342e-231),
    ("effusion", "nodule", "bleu", 0.0),
    ("", "nodule", "bleu", 0.0),
]


@pytest.mark.parametrize(("said", "truth", "name", "expected"), BLEU)
def test_bleu_of_sentences_as_nltk_gives_it(said, truth, name, expected):
    assert L.sentence_bleu(said, truth, L.BLEU_WEIGHTS[name]) == pytest.approx(expected, rel=1e-9, abs=0)


def test_multiple_choice_takes_the_most_alike_option():
    options = ["Chest X-ray", "CT scan", "MRI", "Ultrasound"]
    assert L.choice_hit("It is a CT scan.", "CT scan", options)
    assert not L.choice_hit("Chest radiograph", "CT scan", options)
    assert L.choice_hit("zzz", "Ultrasound", options), "no likeness at all counts as the last option"
    assert not L.choice_hit("zzz", "Chest X-ray", options)
    assert L.choice_hit("left or right", "right", ["left lung", "right"])
    assert L.choice_hit("ab", "cb", ["ad", "cb"]) and not L.choice_hit("ab", "ad", ["ad", "cb"]), "the last of equals"


def test_scores_are_means_in_per_cent_of_the_groups_there_are():
    rows = [("lung lung lung", "left lung", False), ("left", "left", False), ("The image is normal", "no", True)]
    got = L.legacy_scores(rows)
    assert got["open_recall"] == pytest.approx(87.5) and got["closed_accuracy"] == 100.0
    assert set(L.legacy_scores(rows[2:])) == {"closed_accuracy"}
