"""EH-Benchmark: accuracy, precision, recall and F1 a subclass with intervals by patient, and policies without an image.

An item's class is the text of its right option, never its letter: options are shuffled, so letters mean nothing.
Precision, recall and F1 are means over the classes of a subclass that are true or said at least once; an answer with
no letter is a miss of its class and no one's false alarm. By hand, truths a a b, said a b (none): class a has one hit,
no false alarm, one miss (P 1, R 1/2, F1 2/3), b no hit, one false alarm, one miss (all 0): means 1/2, 1/4, 1/3.

Baselines read no image: `always_A` ... say one letter; `letter` says the letter that is most often right in the
subclass among *other* patients; `prior` says the offered option whose text is most often right there.

An outcome holds a letter of its own (the agent's do), or its text is read for one (`evaluate.suites`).
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
from clinalign.evaluation.suites.shares import slot, under
from clinalign.language.parse_answer import parse_answer
from clinalign.language.parse_question import parse_question
from clinalign.records import Example, Outcome

SUITE, FIXED = "eh", "fixed_order"
"""The suite's name, and the condition under which options stand in the fixed order of the published builders."""
LETTERS = "ABCDEFGH"
ALL = "all"
TAXON = "taxonomy"
"""The slot of an example that holds the class of its subclass."""
Said = Mapping[str, Sequence[str | None]]
"""Example id -> letter said under each seed, None where there is none."""


def summarise_eh(outcomes: Sequence[Outcome], examples: Sequence[Example], *, seed: int = 0) -> dict[str, Any]:
    """`systems`: system -> subclass (and "all") -> metrics; `legacy`: the same for the fixed order of options;
    `baselines`: name -> subclass -> accuracy; `items`, `options` (how many have four, five ...)."""
    names = dict.fromkeys(outcome.system for outcome in outcomes)
    found = {name: summary([o for o in outcomes if o.system == name], examples, seed=seed) for name in names}
    return {
        "items": len({example.id for example in examples}),
        "options": dict(sorted(Counter(str(len(e.options)) for e in examples).items())),
        "systems": {name: of["groups"] for name, of in found.items() if of["groups"]},
        "legacy": {name: of[FIXED] for name, of in found.items() if of[FIXED]},
        **_policies(examples, seed),
    }


def summary(outcomes: Sequence[Outcome], examples: Sequence[Example], *, seed: int = 0) -> dict[str, Any]:
    """One system: `groups`, subclass (and "all") -> `class`, accuracy, precision, recall, F1 and the share unanswered;
    `fixed_order`, the same in the published fixed order; `baselines` and `legacy_baselines`, policy -> subclass ->
    accuracy."""
    return {
        "groups": _metrics(letters_of(outcomes, examples), examples, seed),
        FIXED: _metrics(letters_of(outcomes, examples, FIXED), _fixed(examples), seed),
        **_policies(examples, seed),
    }


def _policies(examples: Sequence[Example], seed: int) -> dict[str, Any]:
    sets = {"baselines": examples, "legacy_baselines": _fixed(examples)}
    return {
        key: {name: _accuracies(said, items, seed) for name, said in baselines(items).items()}
        for key, items in sets.items()
    }


def _fixed(examples: Sequence[Example]) -> list[Example]:
    return [fixed_order(e) for e in examples if e.fixed_order]


def letter_of(example: Example, outcome: Outcome) -> str | None:
    """The option that an outcome gives: the letter that it holds, or else what its text says, by letter or in words."""
    if "letter" in outcome.slots:
        return outcome.slots["letter"]
    asked = parse_question(example.question, example.answer, "closed", {"options": example.options})
    return parse_answer(asked, outcome.text).said.get("letter") if asked and outcome.text.strip() else None


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
    scores = {
        name: _scores(letters_of([o for o in outcomes if o.system == name], examples), known) for name in (system, base)
    }
    both = sorted(scores[system].keys() & scores[base].keys())
    patients = [patient(known[name]) for name in both]
    ours, theirs = ([scores[name][item] for item in both] for name in (system, base))
    return compare(ours, theirs, patients, kind="difference", seed=seed)


def letters_of(
    outcomes: Sequence[Outcome], examples: Sequence[Example], condition: str = "clean"
) -> dict[str, list[str | None]]:
    """What one system said to each question under each of its seeds."""
    items = examples if condition == "clean" else _fixed(examples)
    known = {example.id: example for example in items}
    said: dict[str, list[str | None]] = defaultdict(list)
    for outcome in under(outcomes, condition):
        if outcome.example_id in known:
            said[outcome.example_id].append(letter_of(known[outcome.example_id], outcome))
    return said


def baselines(items: Sequence[Example]) -> dict[str, dict[str, str | None]]:
    """Policies that see no image -> example id -> letter."""
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


def _metrics(said: Said, examples: Sequence[Example], seed: int) -> dict[str, Any]:
    known = {example.id: example for example in examples}
    scores, found = _scores(said, known), {}
    for name, ids in _groups(said, known).items():
        patients = [patient(known[i]) for i in ids]
        rates = {
            "accuracy": [scores[i] for i in ids],
            "unanswered": [sum(letter is None for letter in said[i]) / len(said[i]) for i in ids],
        }
        found[name] = {
            "class": slot(known[ids[0]], TAXON) or "" if name != ALL else "",
            **{k: mean_interval(v, patients, kind="share", seed=seed).as_dict() for k, v in rates.items()},
        }
        columns = class_columns(
            [truth_text(known[i]) for i in ids], [[said_text(known[i], letter) for letter in said[i]] for i in ids]
        )
        for metric, combine in MACRO.items():
            interval = ratio_interval(columns, patients, combine, seed=seed, share=True)
            found[name][metric] = interval.as_dict()
    return found


def _accuracies(letters: Mapping[str, str | None], examples: Sequence[Example], seed: int) -> dict[str, Any]:
    known = {example.id: example for example in examples}
    said = {name: [letter] for name, letter in letters.items()}
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
        groups[subclass(known[name])].append(name)
        groups[ALL].append(name)
    return dict(sorted(groups.items(), key=lambda pair: (pair[0] == ALL, pair[0])))


def _scores(said: Said, known: Mapping[str, Example]) -> dict[str, float]:
    return {name: sum(letter == known[name].answer for letter in of) / len(of) for name, of in said.items()}


def truth_text(example: Example) -> str:
    """The class of an item: its subclass and the text of its right option."""
    return f"{subclass(example)}/{right_text(example)}"


def said_text(example: Example, letter: str | None) -> str | None:
    """The class of a letter; None for a letter that was not offered."""
    options = example.options
    at = LETTERS.index(letter) if letter and letter in LETTERS[: len(options)] else -1
    return f"{subclass(example)}/{options[at]}" if at >= 0 else None


def class_columns(truths: Sequence[str], said: Sequence[Sequence[str | None]]) -> Array:
    """[n, 3 K]: hit, false alarm, miss of each of the K classes that are true or said, means over what was said."""
    names = sorted({*truths, *(text for of in said for text in of if text is not None)})
    at = {name: i for i, name in enumerate(names)}
    columns = np.zeros((len(truths), 3, len(names)))
    for row, (truth, of) in enumerate(zip(truths, said, strict=True)):
        for text in of:
            columns[row, 0 if text == truth else 2, at[truth]] += 1 / len(of)
            if text not in (None, truth):
                columns[row, 1, at[text]] += 1 / len(of)
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
