"""The probability of yes: hand-worked errors, AUC against counting pairs, and a model with a known bias."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clinalign.evaluation import calibration as K
from clinalign.evaluation import statistics as S
from clinalign.measuring import evidence as C
from clinalign.measuring.options import EvaluationOptions
from clinalign.records import Example, Outcome

OPTIONS = EvaluationOptions(resamples=300)


def examples(truths, patients=None):
    return {
        f"q{n}": Example(f"q{n}", [], "Is there a nodule?", "yes" if t else "no", "closed", patient_id=f"p{n}")
        for n, t in enumerate(truths)
    }


def summary(p, yes):
    return K.calibration_summary({0: {f"q{n}": v for n, v in enumerate(p)}}, examples(yes), OPTIONS)


def test_expected_error_by_hand():
    sums = K.bin_columns(np.array([0.9, 0.7]), np.array([1.0, 0.0])).sum(0)
    assert K.expected_error(sums) == pytest.approx((0.1 + 0.7) / 2)
    together = K.bin_columns(np.array([0.92, 0.98, 1.0]), np.array([1.0, 1.0, 0.0])).sum(0)
    assert K.expected_error(together) == pytest.approx(abs(2.9 - 2) / 3), "1.0 is in the last bin"


def test_brier_by_hand():
    got = summary([0.9, 0.2], [1, 0])
    assert got["brier"]["estimate"] == pytest.approx((0.01 + 0.04) / 2) and got["n"] == 2
    assert [(b["low"], b["n"], b["observed"]) for b in got["bins"]] == [(0.2, 1, 0.0), (0.9, 1, 1.0)]


def test_auc_equals_counting_pairs():
    rng = np.random.default_rng(0)
    for _ in range(20):
        p, yes = rng.integers(0, 8, 40) / 8, rng.integers(0, 2, 40).astype(float)
        pairs = [(a > b) + (a == b) / 2 for a in p[yes == 1] for b in p[yes == 0]]
        got = K.auc(p, yes, list(range(40)))(np.ones(40))
        assert got == pytest.approx(np.mean(pairs))
        weights = rng.integers(0, 3, 40).astype(float)
        each = np.repeat(np.arange(40), weights.astype(int))
        again = [(p[a] > p[b]) + (p[a] == p[b]) / 2 for a in each if yes[a] for b in each if not yes[b]]
        assert K.auc(p, yes, list(range(40)))(weights) == pytest.approx(np.mean(again))


def test_auc_of_patients_moves_all_their_questions():
    p, yes, patients = np.array([0.1, 0.9, 0.2, 0.8]), np.array([0.0, 1.0, 1.0, 0.0]), ["b", "b", "a", "a"]
    statistic = K.auc(p, yes, patients)
    assert statistic(np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])) == pytest.approx([0.75, 1.0, 0.0])


def test_intervals_hold_the_truth_of_a_calibrated_model():
    rng = np.random.default_rng(1)
    p = rng.random(600)
    got = summary(p, rng.random(600) < p)
    assert got["ece"]["estimate"] < 0.06 and got["brier"]["low"] < 1 / 6 < got["brier"]["high"]
    assert got["auc"]["low"] < 5 / 6 < got["auc"]["high"]


def test_of_two_seeds_each_number_is_the_mean_of_their_own():
    """A yes and a no; one seed says 0.9 and 0.7, the other 0.2 and 0.3. Errors: (0.1 + 0.7) / 2 = 0.4 and
    (0.8 + 0.3) / 2 = 0.55; Brier (0.01 + 0.49) / 2 = 0.25 and (0.64 + 0.09) / 2 = 0.365; AUC 1 and 0.
    The averaged probabilities, 0.55 and 0.5, would have an error of 0.025, a Brier score of 0.226 and an AUC of 1."""
    by_seed = {3: {"q0": 0.9, "q1": 0.7}, 4: {"q0": 0.2, "q1": 0.3}}
    got = K.calibration_summary(by_seed, examples([1, 0]), OPTIONS)
    assert got["n"] == 2
    assert got["ece"]["estimate"] == pytest.approx((0.4 + 0.55) / 2)
    assert got["brier"]["estimate"] == pytest.approx((0.25 + 0.365) / 2)
    assert got["auc"]["estimate"] == pytest.approx((1 + 0) / 2)
    assert [(b["low"], b["n"]) for b in got["bins"]] == [(0.2, 1), (0.3, 1), (0.7, 1), (0.9, 1)]


def test_a_second_seed_that_says_the_same_narrows_no_interval():
    rng = np.random.default_rng(3)
    p, yes = rng.random(40), rng.integers(0, 2, 40)
    row = {f"q{n}": float(v) for n, v in enumerate(p)}
    once, twice = (K.calibration_summary({s: row for s in seeds}, examples(yes), OPTIONS) for seeds in ((0,), (0, 1)))
    for name in ("ece", "brier", "auc"):
        for part in ("estimate", "low", "high"):
            assert twice[name][part] == pytest.approx(once[name][part]), (name, part)


def test_a_question_that_one_seed_lacks_is_the_others_alone():
    """The second seed has the first two questions: its error is of these, (0.1 + 0.7) / 2; the first has
    0.6 twice in a bin with one yes, (1.2 - 1) / 3, beside a right 1.0. AUC: (0.5 + 1) / 2 and 1."""
    by_seed = {0: {"q0": 0.6, "q1": 0.6, "q2": 1.0}, 1: {"q0": 0.9, "q1": 0.7}}
    got = K.calibration_summary(by_seed, examples([1, 0, 1]), OPTIONS)
    assert got["n"] == 3 and got["ece"]["estimate"] == pytest.approx(((1.2 - 1) / 3 + 0.4) / 2)
    assert got["auc"]["estimate"] == pytest.approx(((0.5 + 1) / 2 + 1) / 2)


def test_only_one_side_has_no_auc():
    assert summary([0.5, 0.6], [1, 1])["auc"]["estimate"] is None


def test_a_seed_without_any_probability_has_no_auc_and_the_others_have():
    """Seed 0 says 0.9 of a yes and 0.2 of a no: 1; of seed 1 nothing was measured. Both without: none at all."""
    known, nothing = {"q0": 0.9, "q1": 0.2}, {"q0": math.nan, "q1": math.nan}
    alone = K.calibration_summary({0: known}, examples([1, 0]), OPTIONS)
    got = K.calibration_summary({0: known, 1: nothing}, examples([1, 0]), OPTIONS)
    for name in ("auc", "ece", "brier"):
        assert got[name] == alone[name], name
    got = K.calibration_summary({0: nothing, 1: nothing}, examples([1, 0]), OPTIONS)
    assert [got[name]["estimate"] for name in ("auc", "ece", "brier")] == [None] * 3 and got["bins"] == []


@pytest.mark.parametrize(("said", "truth", "margin", "expected"), [
    ("Yes.", "yes", 2.0, 1 / (1 + math.exp(-2))),
    ("Yes.", "no", 2.0, 1 / (1 + math.exp(-2))),
    ("No.", "no", 2.0, 1 / (1 + math.exp(2))),
    ("No.", "yes", -1.0, 1 / (1 + math.exp(-1))),
    ("No.", "yes", 2000.0, 0.0),
])  # fmt: skip
def test_probability_is_that_of_yes(monkeypatch, said, truth, margin, expected):
    """Whatever was right: the margin of the own answer, turned where the own answer is no."""
    example = replace(examples([1])["q0"], answer=truth)
    outcome = Outcome(
        "q0", "closed", "s", "s", "greedy", 0, "clean", said, (said == "Yes.") == (truth == "yes"), "rules"
    )
    monkeypatch.setattr(C, "margins", lambda vlm, pairs, batch_size: [margin] * len(pairs))
    pairs = {"q0": C.Paired(said, C.AnswerPair("", [], [1], [2]))}
    rows = C.own_margins(None, [replace(example, images=[])], pairs, Path(), 4)
    assert C.probability_of_yes(example, outcome, rows["q0"]) == [["clean", "p_yes", pytest.approx(expected), None, ""]]


def test_weights_interval_is_the_ratio_interval():
    rng = np.random.default_rng(2)
    values, labels = rng.random(200), np.arange(200) % 50
    sums = np.stack([np.bincount(labels, values), np.bincount(labels)], 1)
    columns = np.stack([values, np.ones(200)], 1)
    a = S.ratio_interval(columns, labels, lambda s: s[..., 0] / s[..., 1])
    b = S.weights_interval(lambda w: (w @ sums)[..., 0] / (w @ sums)[..., 1], labels)
    assert a == b


def test_an_auc_and_a_calibration_error_stay_in_their_range():
    """Six questions of six patients, all but one ranked right: an interval of -+ t standard errors left the range."""
    got = summary([0.9, 0.8, 0.3, 0.6, 0.2, 0.1], [1, 1, 1, 0, 0, 0])
    for name in ("auc", "ece", "brier"):
        assert 0 <= got[name]["low"] < got[name]["estimate"] < got[name]["high"] <= 1, name
    perfect = summary([0.9, 0.8, 0.2, 0.1, 0.1, 0.1], [1, 1, 0, 0, 0, 0])["auc"]
    assert perfect["estimate"] == 1 == perfect["high"] and perfect["low"] == pytest.approx(0.025 ** (1 / 2))


def test_an_auc_that_one_patient_decides_has_no_interval():
    assert summary([0.9, 0.2, 0.1], [1, 0, 0])["auc"]["low"] is None
