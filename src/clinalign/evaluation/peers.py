"""Scores of others, kept apart from the rest: metrics of other packages, and the scoring behind published tables.

RadEval's metrics (RadGraph, CheXbert, RaTEScore, GREEN) need `pip install radeval` and models from the hub, and they
are slow (GREEN: seconds a report). Nothing of it is part of an installation; a metric that cannot run is named with its
reason and leaves the rest of the evaluation alone.

`legacy_scores` is the scoring behind the tables of LLaVA-Med (arXiv 2306.00890) and MedAlign (arXiv 2512.18554), faults
included, for comparison with published numbers only; nothing here decides whether an answer is right. What is odd and
kept: only 32 periods go; "normal" contains "no"; a closed question whose truth is not yes or no is never hit unless the
answer happens to contain one of them; repeating a word raises the recall; "exact match" is a share of the answer's
words; BLEU is that of single sentences without smoothing. `evaluation.text` and `language` have none of this.
"""

from __future__ import annotations

import importlib
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from importlib.metadata import version
from statistics import fmean
from typing import Any

from clinalign.errors import RowError
from clinalign.progress import say
from clinalign.records import Example, Outcome

NAMES = {"radgraph": "radgraph", "chexbert": "f1chexbert", "ratescore": "ratescore", "green": "green"}
"""Metric as a recipe names it -> as RadEval does."""

PREFIX = "external/"
Scores = Mapping[str, Sequence[float]]
Scorer = Callable[[str, list[str], list[str]], Scores]


def radeval(name: str, references: list[str], texts: list[str]) -> Scores:
    """Every score that RadEval's metric gives each report, by the key it gives it."""
    package = importlib.import_module("radeval")
    found = package.RadEval(metrics=[NAMES[name]], per_sample=True, show_progress=False)(refs=references, hyps=texts)
    return {key: values for key, values in found.items() if _each(values, len(texts))}


def _each(values: Any, count: int) -> bool:
    return isinstance(values, list | tuple) and len(values) == count


def add_external(
    outcomes: Sequence[Outcome], examples: Sequence[Example], names: Sequence[str], scorer: Scorer = radeval
) -> tuple[list[Outcome], dict[str, dict[str, str]]]:
    """The outcomes, those of reports with `metrics["external/KEY"]`, and what ran (with its version) and what did not.

    One system after another; a metric that fails for one is left out for all, so that no comparison is lopsided.
    """
    truths = {e.id: e.answer for e in examples}
    asked = [n for n, o in enumerate(outcomes) if o.task == "report" and o.condition == "clean"]
    report: dict[str, dict[str, str]] = {"ran": {}, "not_run": {}}
    result = list(outcomes)
    for name in names:
        try:
            if not asked:
                raise RowError("task", "no report was asked for")
            scores = scorer(name, [truths[outcomes[n].example_id] for n in asked], [outcomes[n].text for n in asked])
            if not scores:
                raise RowError("reply", "it gave no score for each report")
        except Exception as error:  # another package's fault, whatever it is, must not end an evaluation
            reason = (
                error.reason if isinstance(error, RowError) else " ".join(f"{type(error).__name__}: {error}".split())
            )
            report["not_run"][name] = reason[:200]
            say(f"{name} did not run: {reason[:200]}")
            continue
        report["ran"][name] = f"radeval {version('radeval')}" if scorer is radeval else scorer.__name__
        for at, n in enumerate(asked):
            found = {PREFIX + key: float(values[at]) for key, values in scores.items()}
            kept = {key: value for key, value in found.items() if math.isfinite(value)}
            result[n] = replace(result[n], metrics=result[n].metrics | kept)
    return result, report


PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
PERIODS = 32  # the original passes the flag re.UNICODE, which is 32, where the count belongs
NUMBERS = {word: str(n) for n, word in enumerate("zero one two three four five six seven eight nine ten".split())}
NUMBERS["none"] = "0"
ARTICLES = ("a", "an", "the")
_FULL = """ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't
not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've""".split()
CONTRACTIONS = {w[:i] + w[i + 1 :]: w for w in _FULL for i, letter in enumerate(w) if letter == "'"}
CONTRACTIONS["somebody'd"] = "somebodyd"
BLEU_WEIGHTS = {
    "bleu": (0.25, 0.25, 0.25, 0.25),
    "bleu_1": (1.0, 0.0, 0.0, 0.0),
    "bleu_2": (0.0, 1.0, 0.0, 0.0),
    "bleu_3": (0.0, 0.0, 1.0, 0.0),
}


def normalise(text: str) -> str:
    """`None` -> `0`; `X-ray` -> `x ray`; `left lung,right lung` -> `left lung right lung`; `1,000` -> `1000`.

    A punctuation mark is deleted where a blank stands beside it anywhere in the text (or a comma between digits does),
    and becomes a blank otherwise.
    """
    comma = re.search(r"\d,\d", text) is not None
    out = text
    for mark in PUNCTUATION:
        beside = comma or f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if beside else " ")
    out = re.sub(r"\.(?!\d)", "", out, count=PERIODS)
    said = (NUMBERS.get(word, word) for word in out.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in said if word not in ARTICLES).replace(",", "")


def overlap(candidate: str, reference: str) -> tuple[float, float, float]:
    """Precision, recall and F1. Words that both have count as often as the candidate says them.

    `lung lung lung` against `left lung`: 3 hits, 1 missing: recall 3/4.
    """
    said, wanted = _counts(candidate), _counts(reference)
    hit = sum(count for word, count in said.items() if word in wanted)
    if not hit:
        return 0.0, 0.0, 0.0
    missing = sum(count for word, count in wanted.items() if word not in said)
    precision, recall = hit / said.total(), hit / (hit + missing)
    return precision, recall, 2 * precision * recall / (precision + recall)


def exact_match(candidate: str, reference: str) -> float:
    """Different words of the reference that the candidate says, over all words of the candidate."""
    said, wanted = _counts(candidate), _counts(reference)
    return sum(word in said for word in wanted) / said.total() if said else 0.0


def sentence_bleu(candidate: str, reference: str, weights: Sequence[float]) -> float:
    """NLTK's `sentence_bleu` without smoothing, where a precision of zero counts as the smallest positive float."""
    said, wanted = normalise(candidate.lower()).split(), normalise(reference.lower()).split()
    precisions = [_precision(said, wanted, n) for n in range(1, len(weights) + 1)]
    if not precisions[0]:
        return 0.0
    brevity = 1.0 if len(said) > len(wanted) else math.exp(1 - len(wanted) / len(said))
    logs = (w * math.log(p or sys.float_info.min) for w, p in zip(weights, precisions, strict=True))
    return brevity * math.exp(math.fsum(logs))


def closed_hit(prediction: str, truth: str) -> bool:
    """Whether the answer contains "yes" or "no", be it inside a word, and contains the truth likewise."""
    said = normalise(prediction.lower())
    return ("yes" in said or "no" in said) and normalise(truth.lower()) in said


def choice_hit(prediction: str, label: str, options: Sequence[str]) -> bool:
    """OmniMedVQA: whether prediction and label are most alike (difflib ratio) to the same option, the last of equals.

    Case counts, and an answer that is like none of them (ratio 0 with each) counts as the last option.
    """

    def nearest(text: str) -> int:
        ratios = [(SequenceMatcher(None, option, text).ratio(), i) for i, option in enumerate(options)]
        return max(ratios)[1]

    return nearest(prediction) == nearest(label)


def legacy_scores(rows: Iterable[tuple[str, str, bool]], *, variant: str = "medalign") -> dict[str, float]:
    """Means times 100 over rows of (answer, truth, closed); only the groups that have rows.

    `variant` "llava_med": wrong answers that contain yes or no are left out of the closed accuracy's denominator, as
    in that repository; "medalign" counts them.
    """
    every = list(rows)
    spoken = [(answer, truth) for answer, truth, closed in every if not closed]
    out: dict[str, list[float]] = {}
    hits = [(closed_hit(a, t), a) for a, t, closed in every if closed]
    if variant == "llava_med":
        hits = [(hit, a) for hit, a in hits if hit or not re.search("yes|no", normalise(a.lower()))]
    out["closed_accuracy"] = [float(hit) for hit, _ in hits]
    scores = [overlap(*_twice(a, t)) for a, t in spoken]
    for n, name in enumerate(("precision", "recall", "f1")):
        out[f"open_{name}"] = [score[n] for score in scores]
    out["open_exact_match"] = [exact_match(*_twice(a, t)) for a, t in spoken]
    for name, weights in BLEU_WEIGHTS.items():
        out[f"open_{name}"] = [sentence_bleu(a, t, weights) for a, t in spoken]
    return {name: 100 * fmean(values) for name, values in out.items() if values}


def _twice(candidate: str, reference: str) -> tuple[str, str]:
    """Normalised once here and once more in each metric, as the original does."""
    return normalise(candidate.lower()), normalise(reference.lower())


def _counts(text: str) -> Counter[str]:
    return Counter(normalise(text).split())


def _precision(said: list[str], wanted: list[str], n: int) -> float:
    left, right = (Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for words in (said, wanted))
    return (left & right).total() / max(1, left.total())
