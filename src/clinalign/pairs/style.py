"""Numbers of a preference corpus: how its two sides differ in form (lengths, edit distance, negations), what form alone
tells, and how its spans lie.

The classifiers see a pair only as the difference of its two sides' features and have no intercept, so that swapping
the sides swaps the answer: 0.5 is what a feature without information gets.
"""

from __future__ import annotations

import random
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from clinalign.language.align import blocks, words
from clinalign.records import Pair
from clinalign.storage import Quarantine

Sides = tuple[str, str]

NEGATIONS = frozenset(("no", "not", "without", "absent", "cannot", "neither", "nor", "none", "never"))
FOLDS = 5
VOCABULARY = 2000


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Held-out accuracy of naming the chosen side, ties counting half, and its 95 % interval."""

    accuracy: float
    low: float
    high: float


def count_words(text: str) -> int:
    """Words without punctuation marks."""
    return sum(word[0].isalnum() for word in _words(text))


def negations(text: str) -> int:
    """Words that negate."""
    return sum(word in NEGATIONS for word in _words(text))


def edit_distance(chosen: str, rejected: str) -> float:
    """Words inserted, deleted or replaced, over the words of the longer side; at most 1."""
    changed = sum(max(count_words(chosen[a:b]), count_words(rejected[c:d])) for a, b, c, d in blocks(chosen, rejected))
    return min(1.0, changed / max(1, count_words(chosen), count_words(rejected)))


def style_gap(sides: Iterable[Sides]) -> dict[str, float]:
    """The style-gap table of (chosen, rejected) texts (arXiv 2606.12590): on-policy minimal edits have an edit distance
    near 0.2, reference-style pairs near 1. `similarity_median` is the median of 1 - edit distance."""
    words: tuple[array[int], array[int]] = (array("q"), array("q"))
    edits, denied = array("d"), array("q")
    for chosen, rejected in sides:
        for counts, text in zip(words, (chosen, rejected), strict=True):
            counts.append(count_words(text))
        edits.append(edit_distance(chosen, rejected))
        denied.append(negations(chosen) - negations(rejected))
    gaps = array("q", (a - b for a, b in zip(*words, strict=True)))
    return {
        "chosen_words_mean": mean(words[0]),
        "rejected_words_mean": mean(words[1]),
        "length_diff_mean": mean(abs(gap) for gap in gaps),
        "length_gap_signed_mean": mean(gaps),
        "within_two_share": mean(abs(gap) <= 2 for gap in gaps),
        "edit_distance_mean": mean(edits),
        "similarity_median": 1.0 - float(np.median(edits)) if edits else 0.0,
        "shorter_wins_share": mean(1.0 if gap < 0 else 0.5 if gap == 0 else 0.0 for gap in gaps),
        "negation_gap_mean": mean(denied),
    }


def length_features(sides: Sequence[Sides]) -> np.ndarray:
    """Difference in words, float [pairs, 1]."""
    return np.array([[count_words(a) - count_words(b)] for a, b in sides], dtype=float)


def negation_features(sides: Sequence[Sides]) -> np.ndarray:
    """Difference in negating words, float [pairs, 1]."""
    return np.array([[negations(a) - negations(b)] for a, b in sides], dtype=float)


def form_features(sides: Sequence[Sides]) -> np.ndarray:
    """Differences in form that no content explains, float [pairs, 9]: words, sentences, commas, other marks, digits,
    capitals, a capital at the start, a mark at the end, function words."""
    return np.array([_form(a) - _form(b) for a, b in sides], dtype=float)


def word_features(sides: Sequence[Sides]) -> Any:
    """Which side has a word more often, sparse [pairs, vocabulary]: the words that differ in most pairs."""
    from scipy import sparse

    gaps = []
    for chosen, rejected in sides:
        gap = Counter(_words(chosen))
        gap.subtract(Counter(_words(rejected)))
        gaps.append({word: float(np.sign(n)) for word, n in gap.items() if n and word[0].isalnum()})
    common = Counter(word for gap in gaps for word in gap)
    column = {word: i for i, (word, _) in enumerate(sorted(common.items(), key=lambda c: (-c[1], c[0]))[:VOCABULARY])}
    cells = [(row, column[word], n) for row, gap in enumerate(gaps) for word, n in gap.items() if word in column]
    rows, columns, values = zip(*cells) if cells else ((), (), ())
    return sparse.csr_array((values, (rows, columns)), shape=(len(sides), max(1, len(column))))


def held_out_accuracy(features: Any, groups: Sequence[str], folds: int = FOLDS, seed: int = 0) -> Accuracy:
    """Cross-validated accuracy of a paired logistic regression (no intercept, ridge) on feature differences [n, k].

    Pairs of one group (a prompt with its images) are in one fold. A pair whose score is 0 counts half. The interval is
    mean +- 1.96 standard errors, clustered by group.
    """
    from scipy import sparse

    names = sorted(set(groups))
    random.Random(seed).shuffle(names)
    folds = min(folds, len(names))
    if folds < 2:
        return Accuracy(0.5, 0.0, 1.0)
    fold_of = {name: i % folds for i, name in enumerate(names)}
    fold = np.array([fold_of[group] for group in groups])
    x = sparse.csr_array(features)
    scores = np.zeros(len(groups))
    for k in range(folds):
        scores[fold == k] = x[fold == k] @ _fit(x[fold != k])
    hits = np.where(scores > 1e-9, 1.0, np.where(scores < -1e-9, 0.0, 0.5))
    accuracy = float(hits.mean())
    sums: dict[str, float] = defaultdict(float)
    for group, hit in zip(groups, hits, strict=True):
        sums[group] += float(hit) - accuracy
    error = 1.96 * float(np.sqrt(sum(s * s for s in sums.values()))) / len(groups)
    return Accuracy(accuracy, max(0.0, accuracy - error), min(1.0, accuracy + error))


def _fit(x: Any) -> np.ndarray:
    """Weights [k] that minimise the mean of log(1 + exp(-x w)) plus a ridge of 1 / n, columns scaled to unit size."""
    from scipy import optimize, sparse

    n = x.shape[0]
    scale = np.sqrt(np.asarray(x.multiply(x).mean(axis=0)).ravel())
    scale[scale == 0] = 1.0
    z = x @ sparse.diags_array(1 / scale)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = z @ w
        slope = -1.0 / (1.0 + np.exp(np.clip(margin, -500, 500)))
        return float(np.logaddexp(0, -margin).mean() + w @ w / (2 * n)), z.T @ slope / n + w / n

    found = optimize.minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    weights: np.ndarray = found.x / scale
    return weights


_FUNCTION = frozenset(
    "a an the is are was were be of in on at to with and or there this that it by for from as has have".split()
)


def _form(text: str) -> np.ndarray:
    pieces = words(text)
    marks = [p for p in pieces if not p[0].isalnum()]
    plain = text.strip()
    return np.array(
        [
            len(pieces) - len(marks),
            sum(p in ".!?" for p in marks),
            marks.count(","),
            sum(p not in ".!?," for p in marks),
            sum(c.isdigit() for c in text),
            sum(c.isupper() for c in text),
            plain[:1].isupper(),
            not plain[-1:].isalnum(),
            sum(p.lower() in _FUNCTION for p in pieces),
        ],
        dtype=float,
    )


def mean(values: Iterable[float]) -> float:
    """The mean, 0 for none."""
    found = array("d", map(float, values))
    return sum(found) / len(found) if found else 0.0


@lru_cache(maxsize=65536)
def _words(text: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in words(text))


def corpus_numbers(pairs: Sequence[Pair], quarantine: Quarantine | None = None) -> dict[str, Any]:
    """The style-gap table and span statistics of a corpus; an empty corpus gives {"pairs": 0}.

    Words are counted without punctuation. `edit_distance_mean` is the word-level edit distance (insertions, deletions
    and replacements) over the longer side's words; on-policy minimal edits are near 0.2, reference-style pairs near 1
    (arXiv 2606.12590). `length_only_accuracy` is the share of pairs whose preferred side the better of the two rules
    "shorter wins" and "longer wins" names, ties counting half: 0.5 means that length tells nothing.
    """
    if not pairs:
        return {"pairs": 0, "filters": _filtered(quarantine)}
    gap = style_gap((p.chosen, p.rejected) for p in pairs)
    shorter = gap["shorter_wins_share"]
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    right = 0
    for p in pairs:
        right += p.was_correct
        kinds["edit_kinds"][p.edit_kind] += 1
        kinds["editors"][p.editor] += 1
        kinds["corruptions"][f"{p.corruption}/{p.corruption_area}"] += 1
        kinds["region_sources"][p.region_source] += 1
    return {
        "pairs": len(pairs),
        "already_correct_share": right / len(pairs),
        **gap,
        "length_only_accuracy": max(shorter, 1.0 - shorter),
        "spans": _span_numbers(pairs),
        **{name: dict(counted.most_common()) for name, counted in kinds.items()},
        "filters": _filtered(quarantine),
    }


def _span_numbers(pairs: Iterable[Pair]) -> dict[str, float]:
    """Spans a side, their words, and the share of the text that they cover."""
    sides: dict[str, array[float]] = defaultdict(lambda: array("d"))
    for p in pairs:
        for spans, text in ((p.chosen_spans, p.chosen), (p.rejected_spans, p.rejected)):
            sides["spans_mean"].append(len(spans))
            sides["words_mean"].append(sum(count_words(text[start:end]) for start, end in spans))
            sides["share_of_characters"].append(sum(end - start for start, end in spans) / max(1, len(text)))
            sides["without_span_share"].append(not spans)
        tokens = _span_tokens(p)
        sides["tokens_mean"].append(tokens)
        sides["share_of_tokens"].append(tokens / max(1, len(p.chosen_token_ids)))
    order = ("spans_mean", "words_mean", "share_of_characters", "tokens_mean", "share_of_tokens", "without_span_share")
    return {name: mean(sides[name]) for name in order}


def _span_tokens(pair: Pair) -> int:
    """Chosen tokens outside the common beginning and end of the two sides: an upper bound of those in spans."""
    a, b = pair.chosen_token_ids, pair.rejected_token_ids
    head = 0
    while head < min(len(a), len(b)) and a[head] == b[head]:
        head += 1
    tail = 0
    while tail < min(len(a), len(b)) - head and a[-1 - tail] == b[-1 - tail]:
        tail += 1
    return len(a) - head - tail


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _filtered(quarantine: Quarantine | None) -> dict[str, int]:
    rows = quarantine.rows if quarantine is not None else []
    return _counts(row["reason"] for row in rows if row["stage"].partition(":")[0] == "pair")
