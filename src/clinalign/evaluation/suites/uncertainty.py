"""Does a model know when it is wrong? Semantic entropy and calibrated confidence beside the answers.

k answers to one question are sampled. Two mean the same where they make the same claims (no model judges that: our own
reading of clinical text does). Semantic entropy (Farquhar et al., Nature 2024) is the entropy over meanings; confidence
is the share of the samples that mean what the answer means.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from clinalign.evaluation.suites.shares import area, correct, share, under, values
from clinalign.evaluation.text import plain, words
from clinalign.language.claims import claims
from clinalign.language.wordings import cleaned, concluding, one_word, refuses
from clinalign.records import Example, Outcome

SAMPLED = "sampled"
"""Condition of the sampled answers; the answer they stand beside has the condition clean."""
Meaning = frozenset[tuple[str, ...]]
_SLOTS = ("side", "zone", "size")


def meaning(text: str) -> Meaning:
    """What an answer claims: each finding with its status, side, zone and size; else its yes or no, or its words.

    Wording does not count: "A nodule is seen on the left." means "There is a left nodule.".
    """
    answer = concluding(cleaned(text)).strip()
    word = one_word(answer)
    if word:
        return frozenset({("word", word)})
    made = [c for c in claims(answer) if c.about_now]
    if made:
        return frozenset((c.finding, c.status, *(c.value(slot) or "" for slot in _SLOTS)) for c in made)
    return frozenset({("refuses",)}) if refuses(answer) else frozenset({("words", plain(" ".join(words(answer))))})


def semantic_entropy(texts: Sequence[str], logps: Sequence[float] | None = None) -> float:
    """Entropy in nats over the meanings of sampled answers, from 0 to log(k).

    A meaning's weight is its share of the samples, or with `logps` (a number an answer, length-normalised) its share of
    the likelihood. By hand: meanings a, a, b, c give -(1/2 log 1/2 + 2 * 1/4 log 1/4) = 1.5 log 2.
    """
    top = max(logps) if logps else 0.0
    weights = [math.exp(logp - top) for logp in logps] if logps else [1.0] * len(texts)
    mass: dict[Meaning, float] = defaultdict(float)
    for text, weight in zip(texts, weights, strict=True):
        mass[meaning(text)] += weight
    total = sum(mass.values())
    return abs(sum(-m / total * math.log(m / total) for m in mass.values() if m > 0))


def confidence(answer: str, texts: Sequence[str]) -> float:
    """Share of the sampled answers that mean what `answer` means."""
    own = meaning(answer)
    return sum(meaning(text) == own for text in texts) / len(texts) if texts else math.nan


def calibrate(scores: Sequence[float], right: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Isotonic map from confidence to share right (Zadrozny & Elkan 2002), fitted on questions that are not reported:
    the distinct scores in order, and the value of each. `calibrated` applies it."""
    points = sorted(set(scores))
    grouped = [[r for s, r in zip(scores, right, strict=True) if s == point] for point in points]
    means = [sum(group) / len(group) for group in grouped]
    return np.array(points), isotonic_regression(means, weights=[len(group) for group in grouped]).x


def calibrated(scores: Sequence[float], fitted: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Confidences through the map of `calibrate`, linear between its points and flat beyond them."""
    return np.interp(np.asarray(scores, float), *fitted)


def scores(outcomes: Sequence[Outcome]) -> tuple[dict[str, float], dict[str, float]]:
    """Semantic entropy and confidence of each question that has sampled answers."""
    sampled: dict[str, list[str]] = defaultdict(list)
    for outcome in under(outcomes, SAMPLED):
        sampled[outcome.example_id].append(outcome.text)
    answers = {o.example_id: o.text for o in under(outcomes, "clean")}
    entropies = {name: semantic_entropy(texts) for name, texts in sampled.items()}
    return entropies, {n: confidence(answers[n], texts) for n, texts in sampled.items() if n in answers}


def summary(outcomes: Sequence[Outcome], examples: Sequence[Example]) -> dict[str, Any]:
    """`auroc_entropy` (low entropy ranks right above wrong), `auroc_confidence`, the Brier score of the confidence as
    it is and calibrated on the examples of split dev (`brier`, `brier_calibrated`), `accuracy`. An answer that cannot
    be judged is wrong. Only examples outside dev are reported."""
    entropies, confidences = scores(outcomes)
    right = values(under(outcomes, "clean"), examples, lambda e, o: float(correct(e, o.text) is True))
    tuned = {e.id for e in examples if e.split == "dev"}
    names = [n for n in confidences if n in right and n not in tuned]
    held = {n: right[n] for n in names}
    fit = [n for n in confidences if n in right and n in tuned]
    out: dict[str, Any] = {
        "n": len(names),
        "accuracy": share(held, examples),
        "auroc_entropy": area({n: -entropies[n] for n in names}, held, examples),
        "auroc_confidence": area({n: confidences[n] for n in names}, held, examples),
        "brier": share(_squares(confidences, held), examples),
    }
    if fit:
        fitted = calibrate([confidences[n] for n in fit], [right[n] for n in fit])
        better = dict(zip(names, calibrated([confidences[n] for n in names], fitted).tolist(), strict=True))
        out["brier_calibrated"] = share(_squares(better, held), examples)
    return out


def _squares(confidences: Mapping[str, float], right: Mapping[str, float]) -> dict[str, float]:
    return {name: (confidences[name] - value) ** 2 for name, value in right.items()}
