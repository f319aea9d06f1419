"""Intervals and tests with answers worked by hand, and small simulations with known truth."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from clinalign.errors import UsageError
from clinalign.evaluation import statistics as S


def test_cluster_t_by_hand():
    """Three patients with means 1, 0, 0.5 of two questions each: mean 0.5, jackknife error 0.5 / sqrt(3)."""
    got = S.mean_interval([1, 1, 0, 0, 1, 0], ["a", "a", "b", "b", "c", "c"])
    assert got.method == "cluster-t" and got.estimate == 0.5 and (got.n, got.patients) == (6, 3)
    half = stats.t.ppf(0.975, 2) * 0.5 / np.sqrt(3)
    assert got.high == pytest.approx(0.5 + half) and got.low == pytest.approx(0.5 - half)


def test_bootstrap_equals_the_naive_loop():
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(40), 5)
    values = rng.integers(0, 2, 200).astype(float)
    labels = np.unique(patients)
    draw = np.random.default_rng(7).integers(0, len(labels), size=(300, len(labels)))
    means = []
    for row in draw:
        chosen = np.concatenate([values[patients == labels[i]] for i in row])
        means.append(chosen.mean())
    count = len(labels)
    tail = stats.norm.cdf(-np.sqrt(count / (count - 1)) * stats.t.ppf(0.975, count - 1))
    got = S.mean_interval(values, patients, resamples=300, seed=7)
    assert got.method == "cluster bootstrap"
    assert [got.low, got.high] == pytest.approx(np.quantile(means, [tail, 1 - tail]))


def test_unequal_patients_count_for_fewer():
    """Sizes 1, 1, 2: 16 / 6 effective patients; equal sizes count in full."""
    assert S.effective_patients(["a", "b", "c", "c"]) == pytest.approx(16 / 6)
    assert S.effective_patients([1, 2, 3, 1, 2, 3]) == pytest.approx(3)


def test_a_perfect_score_is_not_a_certainty():
    """Ten patients, all right: the exact lower bound is 0.025 ** (1 / 10)."""
    got = S.mean_interval(np.ones(10), range(10), kind="share")
    assert got.high == 1.0 and got.low == pytest.approx(0.025**0.1)
    assert S.mean_interval(np.zeros(10), range(10), kind="share").high == pytest.approx(1 - 0.025**0.1)


def test_a_share_by_hand():
    """Four patients of one question, 3 right: p = 3/4, variance p (1 - p) / 3 = 1/16, so 3 questions count, times
    (1.960 / 3.182)^2 = 0.379 for four patients: 1.138 trials, 0.853 of them hits."""
    got = S.mean_interval([1, 1, 1, 0], range(4), kind="share")
    trials = 3 * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 3)) ** 2
    assert got.estimate == 0.75 and trials == pytest.approx(1.138, abs=1e-3)
    assert got.low == pytest.approx(stats.beta.ppf(0.025, 0.75 * trials, 0.25 * trials + 1))
    assert got.high == pytest.approx(stats.beta.ppf(0.975, 0.75 * trials + 1, 0.25 * trials))


def test_patients_who_happen_to_agree_are_not_a_certainty():
    """Every patient has one of two right: no spread between patients, but 24 questions drawn at random have some."""
    got = S.mean_interval([1, 0] * 12, np.repeat(range(12), 2), kind="share")
    assert got.low < 0.3 and got.high > 0.7
    same = S.mean_interval([0.5] * 12, range(12), kind="share")
    assert same.low < 0.25 and same.high > 0.75


def test_two_systems_that_never_differ_by_hand():
    """60 patients: q = 2 / 62, d = 0, so -+ t(59) sqrt(2) / 62 = 2.001 * 0.0228; 600 questions say no more."""
    half = stats.t.ppf(0.975, 59) * np.sqrt(2) / 62
    for questions in (1, 10):
        labels = np.repeat(range(60), questions)
        got = S.compare(np.ones(len(labels)), np.ones(len(labels)), labels, kind="difference")
        assert got.p == 1.0 and got.difference.estimate == 0
        assert [got.difference.low, got.difference.high] == pytest.approx([-half, half])
    words = S.compare([7] * 60, [7] * 60, range(60)).difference
    assert words.estimate == 0 and words.low is None and words.high is None, "nothing bounds a number of words"


def test_a_paired_difference_by_hand():
    """One question a patient, 10 patients: a alone right on 3, b on 1: Bonett and Price add one to each and 2 to n,
    but n is the effective number, (q - d^2) / variance = 9 (the jackknife divides by n - 1)."""
    a, b = np.array([1, 1, 1, 0] + [1] * 6), np.array([0, 0, 0, 1] + [1] * 6)
    got = S.compare(a, b, range(10), kind="difference").difference
    centre, differing = 9 * 0.2 / 11, (9 * 0.4 + 2) / 11
    half = stats.t.ppf(0.975, 9) * np.sqrt((differing - centre**2) / 11)
    assert got.estimate == pytest.approx(0.2) and got.method == "Bonett-Price"
    assert [got.low, got.high] == pytest.approx([centre - half, centre + half])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=40))
def test_intervals_hold_their_estimate_and_stay_in_range(rows):
    patients = [patient for patient, _, _ in rows]
    a, b = (np.array([row[i] for row in rows]) / 4 for i in (1, 2))
    for got, least in (
        (S.mean_interval(a, patients, kind="share"), 0),
        (S.compare(a, b, patients, kind="difference").difference, -1),
    ):
        if got.low is not None:
            assert least <= got.low <= got.estimate + 1e-9 and got.estimate - 1e-9 <= got.high <= 1
            assert got.low < got.high


def test_values_out_of_range_and_unequal_lengths_are_one_line():
    with pytest.raises(UsageError, match="0 to 7 is no share"):
        S.mean_interval([0, 7], ["a", "b"], kind="share")
    with pytest.raises(UsageError, match="2 values of one system, 3 of the other"):
        S.compare([1, 0], [1, 0, 1], ["a", "b"])
    with pytest.raises(UsageError, match="3 values but 2 patients"):
        S.compare([1, 0, 1], [1, 0, 1], ["a", "b"])
    with pytest.raises(UsageError, match="3 questions but 2 patients"):
        S.ratio_interval(np.ones((3, 2)), ["a", "b"], lambda s: s[..., 0] / s[..., 1])


def test_unscored_questions_are_left_out_not_wrong():
    got = S.mean_interval([1, np.nan, 1, 0], ["a", "a", "b", "c"])
    assert got.estimate == pytest.approx(2 / 3) and got.n == 3
    pair = S.compare([1, np.nan, 1], [0, 1, 1], ["a", "b", "c"])
    assert pair.difference.n == 2 and pair.difference.estimate == 0.5


def test_one_patient_or_none_has_no_interval():
    assert S.mean_interval([1, 0], ["a", "a"]).low is None
    empty = S.compare([np.nan], [1.0], ["a"])
    assert empty.p is None and empty.difference.estimate is None


def test_sign_flip_exact_by_hand():
    """Patient sums 2, 1, 1 (4 in all): of 8 patterns only +++ and --- reach 4, p = 2 / 8."""
    assert S.sign_flip([1, 1, 1, 1], ["a", "a", "b", "c"]) == pytest.approx(0.25)
    assert S.sign_flip([1, -1, 0], ["a", "a", "b"]) == 1.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8))
def test_sign_flip_equals_the_naive_enumeration(sums):
    observed = abs(sum(sums))
    patterns = itertools.product((-1, 1), repeat=len(sums))
    naive = np.mean([abs(sum(s * x for s, x in zip(signs, sums, strict=True))) >= observed for signs in patterns])
    assert S.sign_flip(np.array(sums, float), range(len(sums))) == pytest.approx(naive)


def test_monte_carlo_sign_flip_agrees_with_the_exact_one():
    rng = np.random.default_rng(0)
    sums = rng.normal(0.4, 1, 14)
    exact = S.sign_flip(sums, range(14))
    padded = np.concatenate([sums, [1e-7]])  # one more, negligible patient: past the exact limit
    assert S.sign_flip(padded, range(15), permutations=20_000) == pytest.approx(exact, abs=0.012)


def test_mcnemar_by_hand_and_its_guard():
    """5 against 1 discordant: 2 * (C(6,0) + C(6,1)) / 2^6 = 14 / 64."""
    assert S.mcnemar(5, 1) == pytest.approx(14 / 64)
    assert S.mcnemar(0, 0) == 1.0
    with pytest.raises(UsageError, match="sign_flip"):
        S.mcnemar(5, 1, ["a", "a"])
    a, b = np.array([1, 1, 1, 1, 1, 0, 1.0]), np.array([0, 0, 0, 0, 0, 1, 1.0])
    single = S.compare(a, b, range(7))
    assert single.test == "exact McNemar" and single.p == pytest.approx(14 / 64)
    assert single.p == pytest.approx(S.sign_flip(a - b, range(7)))
    assert S.compare(a, b, [0, 0, 1, 2, 3, 4, 5]).test == "sign flip by patient"


def test_holm_by_hand():
    """0.01 * 3, then 0.02 * 2 = 0.04, then 0.03 * 1 raised to 0.04."""
    got = S.holm({"a": 0.03, "b": 0.01, "c": None, "d": 0.02})
    assert got == {"a": pytest.approx(0.04), "b": pytest.approx(0.03), "c": None, "d": pytest.approx(0.04)}
    assert list(got) == ["a", "b", "c", "d"]


def test_minimum_detectable_by_hand():
    """Differences 1, 0, 0, -1 for four patients: standard error sqrt(2 / 3 / 4)."""
    scale = stats.t.ppf(0.975, 3) + stats.t.ppf(0.8, 3)
    assert S.minimum_detectable([1, 0, 0, -1], range(4)) == pytest.approx(scale * np.sqrt(2 / 3 / 4))
    assert S.minimum_detectable([0, 0, 0], range(3)) is None


def test_minimum_detectable_is_found_with_its_power():
    rng = np.random.default_rng(5)
    spread = rng.normal(0, 1, (400, 40))
    found = 0
    for row in spread:
        size = S.minimum_detectable(row, range(40))
        found += abs(stats.ttest_1samp(row + size, 0).pvalue) < 0.05
    assert 0.74 < found / 400 < 0.9  # the spread is estimated, so a little around 0.8


def test_seed_spread_by_hand():
    """Pure seed shift of 0.5: all of it between seeds, nothing within questions."""
    base = np.array([0.0, 1.0, 0.5, 0.25])
    got = S.seed_spread(np.stack([base, base + 0.5]))
    assert got["between_seed_variance"] == pytest.approx(0.125) and got["within_question_variance"] == pytest.approx(0)
    one = S.seed_spread(base)
    assert one["seed_sd"] is None and one["seed_means"] == [pytest.approx(0.4375)]


def test_seed_spread_recovers_both_variances():
    rng = np.random.default_rng(1)
    question = rng.normal(0, 1, 4000)
    seed = rng.normal(0, 0.3, (40, 1))
    got = S.seed_spread(question + seed + rng.normal(0, 0.5, (40, 4000)))
    assert got["within_question_variance"] == pytest.approx(0.25, rel=0.03)
    assert got["between_seed_variance"] == pytest.approx(seed.var(ddof=1), rel=0.03)


def test_several_seeds_are_averaged_per_question():
    a = np.array([[1, 0, np.nan], [1, 1, np.nan]])
    assert S.per_question(a)[:2].tolist() == [1.0, 0.5] and np.isnan(S.per_question(a)[2])


def test_order_of_questions_does_not_matter_and_seeded():
    rng = np.random.default_rng(2)
    patients, a, b = rng.integers(0, 50, 300), rng.integers(0, 2, 300), rng.integers(0, 2, 300)
    order = rng.permutation(300)
    first = S.compare(a, b, patients, seed=4)
    assert first == S.compare(a[order], b[order], patients[order], seed=4)
    assert first.as_dict() != S.compare(a, b, patients, seed=5).as_dict()


def _correlated(rng, patients, items, mean, strength):
    """0/1 outcomes whose patients differ: share of each patient ~ Beta with that mean."""
    share = rng.beta(mean * strength, (1 - mean) * strength, patients)
    return (rng.random((patients, items)) < share[:, None]).astype(float).ravel()


@pytest.mark.parametrize("patients", [12, 40])
def test_intervals_cover(patients):
    rng = np.random.default_rng(10)
    labels = np.repeat(np.arange(patients), 10)
    hits = 0
    for repeat in range(400):
        got = S.mean_interval(_correlated(rng, patients, 10, 0.7, 5), labels, resamples=400, seed=repeat)
        hits += got.low <= 0.7 <= got.high
    assert 0.92 <= hits / 400 <= 0.98


@pytest.mark.parametrize("mean", [0.5, 0.97])
def test_intervals_of_shares_cover_near_one_too(mean):
    rng = np.random.default_rng(12)
    labels = np.repeat(np.arange(60), 10)
    hits = 0
    for _ in range(600):
        got = S.mean_interval(_correlated(rng, 60, 10, mean, 5), labels, kind="share")
        hits += got.low <= mean <= got.high
    assert 0.92 <= hits / 600 <= 0.98


def test_mcnemar_would_mislead_where_sign_flip_does_not():
    """Equal systems, ten items a patient that go wrong together: McNemar rejects far too often."""
    rng = np.random.default_rng(11)
    labels = np.repeat(np.arange(30), 10)
    flip, exact = 0, 0
    for repeat in range(300):
        a, b = _correlated(rng, 30, 10, 0.6, 3), _correlated(rng, 30, 10, 0.6, 3)
        flip += S.sign_flip(a - b, labels, permutations=500, seed=repeat) < 0.05
        exact += S.mcnemar(int((a > b).sum()), int((a < b).sum())) < 0.05
    assert flip / 300 <= 0.09 < exact / 300


def test_ten_thousand_questions_take_seconds():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(2000), 5)
    a, b = rng.integers(0, 2, (2, 10_000))
    start = time.monotonic()
    S.compare(a, b, patients)
    assert time.monotonic() - start < 20
