"""EH-Benchmark: accuracy, precision, recall and F1 a subclass with intervals by patient, and policies without an image.

An item's class is the text of its right option, never its letter: options are shuffled, so letters mean nothing.
Precision, recall and F1 are means over the classes of a subclass that are true or said at least once; an answer with
no letter is a miss of its class and no one's false alarm. By hand, truths a a b, said a b (none): class a has one hit,
no false alarm, one miss (P 1, R 1/2, F1 2/3), b no hit, one false alarm, one miss (all 0): means 1/2, 1/4, 1/3.

Baselines read no image: `always_A` ... say one letter; `letter` says the letter that is most often right in the
subclass among *other* patients; `prior` says the offered option whose text is most often right there.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from clinalign.evaluation.intervals import Array, mean_interval, ratio_interval
from clinalign.evaluation.metrics import patient
from clinalign.evaluation.statistics import compare
from clinalign.records import Example, Outcome

SUITE, LEGACY = "eh", "eh/fixed order"
"""Suites of the outcomes: options shuffled, and in the fixed order of the published builders."""
LETTERS = "ABCDEFGH"
ALL = "all"
Said = Mapping[str, str | None]
"""Example id -> letter said, None where there is none."""


def summarise_eh(
    outcomes: Sequence[Outcome],
    examples: Sequence[Example],
    *,
    taxonomy: Mapping[str, str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """`systems`: system -> subclass (and "all") -> metrics; `legacy`: the same for the fixed order of options;
    `baselines`: name -> subclass -> accuracy; `items`, `options` (how many have four, five ...).

    `taxonomy`: subclass -> class.
    """
    known = {example.id: example for example in examples}
    fixed = {e.id: fixed_order(e) for e in examples if e.fixed_order}
    return {
        "items": len(known),
        "options": dict(sorted(Counter(str(len(e.options)) for e in examples).items())),
        "systems": _systems(outcomes, known, SUITE, taxonomy or {}, seed),
        "legacy": _systems(outcomes, fixed, LEGACY, taxonomy or {}, seed),
        "baselines": {name: _accuracies(said, known, seed) for name, said in baselines(examples).items()},
        "legacy_baselines": {name: _accuracies(said, fixed, seed) for name, said in baselines(fixed.values()).items()},
    }


def fixed_order(example: Example) -> Example:
    """The item as the published builder wrote it: its options in the one fixed order."""
    options = example.fixed_order
    states = dict(zip(example.options, example.statements))
    stem = example.question.removesuffix(_lettered(example.options))
    return replace(
        example,
        question=stem + _lettered(options),
        answer=LETTERS[options.index(right_text(example))],
        options=options,
        statements=[states.get(text, "") for text in options] if states else [],
    )


def _lettered(options: Sequence[str]) -> str:
    return "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, options))


def right_text(example: Example) -> str:
    """The text of the right option."""
    return example.options[LETTERS.index(example.answer)]


def gain(outcomes: Sequence[Outcome], examples: Sequence[Example], system: str, base: str, *, seed: int = 0) -> Any:
    """Paired comparison of two systems' accuracy, by patient (`evaluation.statistics.Comparison`)."""
    known = {example.id: example for example in examples}
    scores = {name: _scores(letters_of(outcomes, name, SUITE), known) for name in (system, base)}
    both = sorted(scores[system].keys() & scores[base].keys())
    patients = [patient(known[name]) for name in both]
    ours, theirs = ([scores[name][item] for item in both] for name in (system, base))
    return compare(ours, theirs, patients, kind="difference", seed=seed)


def letters_of(outcomes: Sequence[Outcome], system: str, suite: str) -> dict[str, str | None]:
    """What a system said to each question."""
    mine = [o for o in outcomes if o.system == system and o.suite == suite and o.condition == "clean"]
    return {o.example_id: o.slots.get("letter") for o in mine}


def baselines(examples: Sequence[Example] | Any) -> dict[str, dict[str, str | None]]:
    """Policies that see no image -> example id -> letter."""
    items = list(examples)
    most = max((len(e.options) for e in items), default=0)
    found: dict[str, dict[str, str | None]] = {
        f"always_{letter}": {e.id: letter for e in items} for letter in LETTERS[:most]
    }
    found["letter"] = _by_others(items, lambda e: e.answer, lambda e: list(LETTERS[: len(e.options)]))
    found["prior"] = _by_others(items, lambda e: right_text(e), lambda e: list(e.options))
    return found


def _by_others(
    items: Sequence[Example], truth: Callable[[Example], str], offered: Callable[[Example], list[str]]
) -> dict[str, str | None]:
    """The letter of the offered value that is most often true among other patients' items of the subclass."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    own: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for e in items:
        counts[subclass(e)][truth(e)] += 1
        own[subclass(e), patient(e)][truth(e)] += 1
    said: dict[str, str | None] = {}
    for e in items:
        others = counts[subclass(e)] - own[subclass(e), patient(e)]
        values = offered(e)
        said[e.id] = LETTERS[max(range(len(values)), key=lambda i: (others[values[i]], -i))]
    return said


def subclass(example: Example) -> str:
    """The item's subclass in the taxonomy."""
    return example.kind or "other"


def _systems(
    outcomes: Sequence[Outcome], known: Mapping[str, Example], suite: str, taxonomy: Mapping[str, str], seed: int
) -> dict[str, Any]:
    names = dict.fromkeys(o.system for o in outcomes if o.suite == suite)
    return {name: _metrics(letters_of(outcomes, name, suite), known, taxonomy, seed) for name in names}


def _metrics(said: Said, known: Mapping[str, Example], taxonomy: Mapping[str, str], seed: int) -> dict[str, Any]:
    found = {}
    for name, ids in _groups(said, known).items():
        patients = [patient(known[i]) for i in ids]
        scores = _scores({i: said[i] for i in ids}, known)
        rates = {
            "accuracy": [scores[i] for i in ids],
            "unanswered": [float(said[i] is None) for i in ids],
        }
        found[name] = {
            "class": taxonomy.get(name, ""),
            **{k: mean_interval(v, patients, kind="share", seed=seed).as_dict() for k, v in rates.items()},
        }
        columns = class_columns([truth_text(known[i]) for i in ids], [said_text(known[i], said[i]) for i in ids])
        for metric, combine in MACRO.items():
            interval = ratio_interval(columns, patients, combine, seed=seed, share=True)
            found[name][metric] = interval.as_dict()
    return found


def _accuracies(said: Said, known: Mapping[str, Example], seed: int) -> dict[str, Any]:
    scores = _scores(said, known)
    return {
        name: mean_interval(
            [scores[i] for i in ids], [patient(known[i]) for i in ids], kind="share", seed=seed
        ).as_dict()
        for name, ids in _groups(said, known).items()
    }


def _groups(said: Said, known: Mapping[str, Example]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in said:
        if name in known:
            groups[subclass(known[name])].append(name)
            groups[ALL].append(name)
    return dict(sorted(groups.items(), key=lambda pair: (pair[0] == ALL, pair[0])))


def _scores(said: Said, known: Mapping[str, Example]) -> dict[str, float]:
    return {name: float(letter == known[name].answer) for name, letter in said.items() if name in known}


def truth_text(example: Example) -> str:
    """The class of an item: its subclass and the text of its right option."""
    return f"{subclass(example)}/{right_text(example)}"


def said_text(example: Example, letter: str | None) -> str | None:
    """The class of a letter; None for a letter that was not offered."""
    options = example.options
    at = LETTERS.index(letter) if letter and letter in LETTERS[: len(options)] else -1
    return f"{subclass(example)}/{options[at]}" if at >= 0 else None


def class_columns(truths: Sequence[str], said: Sequence[str | None]) -> Array:
    """[n, 3 K]: hit, false alarm, miss of each of the K classes that are true or said."""
    names = sorted({*truths, *(text for text in said if text is not None)})
    at = {name: i for i, name in enumerate(names)}
    columns = np.zeros((len(truths), 3, len(names)))
    for row, (truth, text) in enumerate(zip(truths, said, strict=True)):
        if text == truth:
            columns[row, 0, at[truth]] = 1
            continue
        columns[row, 2, at[truth]] = 1
        if text is not None:
            columns[row, 1, at[text]] = 1
    return columns.reshape(len(truths), -1)


def _macro(sums: Array, weigh: Callable[[Array, Array, Array], tuple[Array, Array]]) -> Array:
    """Mean over the classes with any count; a class whose ratio has no denominator counts as 0."""
    hits, alarms, misses = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, sums.shape[-1] // 3), -2, 0)
    there = (hits + alarms + misses) > 0
    above, below = weigh(hits, alarms, misses)
    ratios = np.divide(above, below, out=np.zeros_like(below, dtype=float), where=below > 0)
    counts = there.sum(-1)
    total = np.where(there, ratios, 0.0).sum(-1)
    return np.asarray(np.divide(total, counts, out=np.full_like(total, math.nan), where=counts > 0))


def precision(sums: Array) -> Array:
    """Macro precision of class sums [..., 3 K]."""
    return _macro(sums, lambda hits, alarms, misses: (hits, hits + alarms))


def recall(sums: Array) -> Array:
    """Macro recall of class sums [..., 3 K]."""
    return _macro(sums, lambda hits, alarms, misses: (hits, hits + misses))


def f1(sums: Array) -> Array:
    """Macro F1 of class sums [..., 3 K]."""
    return _macro(sums, lambda hits, alarms, misses: (2 * hits, 2 * hits + alarms + misses))


MACRO: dict[str, Callable[[Array], Array]] = {"precision": precision, "recall": recall, "f1": f1}
