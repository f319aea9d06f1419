"""Do the intervals cover and does the paired test keep its level? Simulated patients with a known truth.

    python benchmarks/intervals.py --out results/intervals.json

Writes `coverage` (share of 95 % intervals that hold the true accuracy, the worst of the set sizes tried),
`false_positive_rate` (two systems of equal true accuracy whose errors are correlated within patient, at 0.05) and
`seconds_10k` (intervals and paired comparison of two systems on 10 000 questions), with the details behind them:
`coverage_by_accuracy` also near 1, `coverage_of_differences` of the paired interval where the truth is no difference,
`coverage_of_auc`.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy import stats

from clinalign.evaluation import statistics as S
from clinalign.evaluation.calibration import auc

TRUE_ACCURACY = 0.7
ACCURACIES = (0.5, 0.9, 0.97, 1 - 1 / 60)
AUC_SHIFT = 1.5  # of a positive question's score, in standard deviations of a question
STRENGTH = 5.0  # patients' accuracies are Beta: correlation within a patient is 1 / (1 + strength) = 0.17
ITEMS = 10
SIZES = (30, 60, 200)


def simulate(rng: np.random.Generator, patients: int, mean: float = TRUE_ACCURACY) -> np.ndarray:
    """0/1 outcomes [patients * ITEMS], correlated within patient."""
    share = rng.beta(mean * STRENGTH, (1 - mean) * STRENGTH, patients)
    return (rng.random((patients, ITEMS)) < share[:, None]).astype(float).ravel()


def simulate_two(rng: np.random.Generator, patients: int) -> tuple[np.ndarray, np.ndarray]:
    """Two systems of equal accuracy: each patient has a shared difficulty and a part of each system's own."""
    shared = rng.normal(0, 1.0, (patients, 1))
    answers = []
    for _ in range(2):
        logit = 0.8 + shared + rng.normal(0, 0.8, (patients, 1))
        answers.append((rng.random((patients, ITEMS)) < 1 / (1 + np.exp(-logit))).astype(float).ravel())
    return answers[0], answers[1]


def coverage(patients: int, repeats: int, mean: float = TRUE_ACCURACY) -> float:
    """Share of intervals that hold the true accuracy; patients have from 1 to ITEMS questions."""
    hits = 0
    for repeat in range(repeats):
        rng = np.random.default_rng([1, patients, repeat])
        values = simulate(rng, patients, mean)
        asked = (np.arange(ITEMS) < rng.integers(1, ITEMS + 1, (patients, 1))).ravel()
        labels = np.repeat(np.arange(patients), ITEMS)
        got = S.mean_interval(values[asked], labels[asked], kind="share")
        hits += got.low <= mean <= got.high
    return hits / repeats


def coverage_of_differences(patients: int, repeats: int, mean: float) -> float:
    """Share of intervals of a - b that hold 0, for two systems of accuracy `mean` that err on the same patients."""
    labels = np.repeat(np.arange(patients), ITEMS)
    hits = 0
    for repeat in range(repeats):
        rng = np.random.default_rng([4, patients, repeat])
        share = rng.beta(mean * STRENGTH, (1 - mean) * STRENGTH, patients)[:, None]
        a, b = (rng.random((2, patients, ITEMS)) < share).astype(float).reshape(2, -1)
        got = S.compare(a, b, labels, permutations=1, kind="difference").difference
        hits += got.low <= 0 <= got.high
    return hits / repeats


def coverage_of_auc(patients: int, repeats: int) -> float:
    """Share of intervals that hold the true AUC of scores that are normal with a part of the patient's own."""
    labels = np.repeat(np.arange(patients), ITEMS)
    true = float(stats.norm.cdf(AUC_SHIFT / 2))  # two scores differ with variance 2 * (1 + 1)
    hits = 0
    for repeat in range(repeats):
        rng = np.random.default_rng([5, patients, repeat])
        yes = (rng.random(patients * ITEMS) < 0.3).astype(float)
        scores = AUC_SHIFT * yes + np.repeat(rng.normal(size=patients), ITEMS) + rng.normal(size=patients * ITEMS)
        got = S.weights_interval(auc(scores, yes, labels), labels, share=True)
        hits += got.low <= true <= got.high
    return hits / repeats


def false_positives(patients: int, repeats: int) -> tuple[float, float]:
    """Rejections at 0.05 of the sign-flip test by patient, and of exact McNemar on the same questions."""
    labels = np.repeat(np.arange(patients), ITEMS)
    flip = exact = 0
    for repeat in range(repeats):
        a, b = simulate_two(np.random.default_rng([2, patients, repeat]), patients)
        flip += S.sign_flip(a - b, labels, permutations=1000, seed=repeat) < 0.05
        exact += S.mcnemar(int((a > b).sum()), int((a < b).sum())) < 0.05
    return flip / repeats, exact / repeats


def seconds(questions: int = 10_000, patients: int = 1000) -> float:
    """Time of both systems' intervals and the paired comparison with their default resamples."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, patients, questions)
    a, b = rng.integers(0, 2, (2, questions)).astype(float)
    start = time.perf_counter()
    S.mean_interval(a, labels, kind="share")
    S.mean_interval(b, labels, kind="share")
    S.compare(a, b, labels, kind="difference")
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5000)
    options = parser.parse_args()
    by_size = {patients: coverage(patients, options.repeats) for patients in (12, 30, 60, 200)}
    tests = {patients: false_positives(patients, options.repeats) for patients in (20, 60)}
    result = {
        "coverage": min(by_size.values(), key=lambda c: -abs(c - 0.95)),
        "false_positive_rate": max((flip for flip, _ in tests.values()), key=lambda r: abs(r - 0.05)),
        "seconds_10k": seconds(),
        "coverage_by_patients": by_size,
        "coverage_by_accuracy": {
            f"{mean:.3g}": {n: coverage(n, options.repeats, mean) for n in SIZES} for mean in ACCURACIES
        },
        "coverage_of_differences": {
            f"{mean:.3g}": {n: coverage_of_differences(n, options.repeats, mean) for n in SIZES} for mean in ACCURACIES
        },
        "coverage_of_auc": {n: coverage_of_auc(n, options.repeats) for n in SIZES},
        "false_positive_rate_by_patients": {patients: flip for patients, (flip, _) in tests.items()},
        "mcnemar_false_positive_rate_by_patients": {patients: exact for patients, (_, exact) in tests.items()},
        "repeats": options.repeats,
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("numpy", "scipy")} | {"python": platform.python_version()},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
