"""The scorer of EH-Benchmark: hand-worked metrics, baselines that see no image, the fixed order beside the shuffled."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from clinalign.data.sources.eh import TAXONOMY, lettered_question, shuffled
from clinalign.evaluation.suites.eh import (
    FIXED,
    SUITE,
    baselines,
    class_columns,
    f1,
    gain,
    letters_of,
    precision,
    recall,
    right_text,
    summarise_eh,
    summary,
)
from clinalign.records import Example, Outcome

GRADES = ["DR0", "DR1", "DR2", "DR3", "DR4"]


def example(
    number: int, made: Mapping, subclass: str = "retinopathy grading", fixed_order: list[str] | None = None
) -> Example:
    return Example(
        f"e{number}",
        [],
        made["question"],
        made["answer"],
        "closed",
        patient_id=f"p{number // 2}",
        kind=subclass,
        slots={"taxonomy": TAXONOMY[subclass]},
        options=made["options"],
        fixed_order=fixed_order or [],
    )


def graded(count: int, seed: int) -> list[Example]:
    """Grades at uneven shares, which a fixed order turns into uneven letters."""
    rng = random.Random(5)
    found = []
    for number in range(count):
        gold = GRADES[rng.choices(range(5), (6, 1, 2, 1, 1))[0]]
        made = shuffled("Grade?", GRADES, gold, f"{seed}/{number}")
        found.append(example(number, made, fixed_order=GRADES))
    return found


def outcome(example: Example, letter: str | None, system: str = "base", condition: str = "clean") -> Outcome:
    right = letter == example.answer
    slots = {"letter": letter}
    return Outcome(
        example.id, "closed", SUITE, system, "greedy", 0, condition, letter or "", right, "letter", slots=slots
    )


def test_macro_metrics_by_hand() -> None:
    """Truths a a b, said a b (none). Class a: hit 1, alarm 0, miss 1: P 1, R 1/2, F1 2/3. Class b: hit 0, alarm 1,
    miss 1: all 0. Means: 1/2, 1/4, 1/3. A class that is neither true nor said does not count."""
    sums = class_columns(["a", "a", "b"], [["a"], ["b"], [None]]).sum(0)
    assert [float(metric(sums)) for metric in (precision, recall, f1)] == pytest.approx([1 / 2, 1 / 4, 1 / 3])
    left_out = class_columns(["a", "a", "b"], [["a"], ["b"], [None]])[:1].sum(0)
    assert float(precision(left_out)) == 1.0 and math.isnan(float(f1(np.zeros(6))))


def test_subclasses_and_all_have_metrics_with_intervals() -> None:
    items = graded(60, 0)
    said = [outcome(e, e.answer if n % 3 else None) for n, e in enumerate(items)]
    found = summarise_eh(said, items)["systems"]["base"]
    assert (
        list(found) == ["retinopathy grading", "all"] and found["retinopathy grading"]["class"] == "Logical Composition"
    )
    row = found["retinopathy grading"]
    assert row["accuracy"]["estimate"] == pytest.approx(2 / 3) and row["unanswered"]["estimate"] == pytest.approx(1 / 3)
    for metric in ("accuracy", "precision", "recall", "f1"):
        assert 0 <= row[metric]["low"] < row[metric]["estimate"] <= row[metric]["high"] <= 1 and row[metric]["n"] == 60
        assert row[metric]["patients"] == 30
    assert row["precision"]["estimate"] == 1.0 and 0 < row["recall"]["low"] < row["recall"]["estimate"] < 1


def test_always_a_scores_the_base_rate_within_its_interval_over_a_seed_sweep() -> None:
    """Five options shuffled: A is right in 20 %. 19 of 20 intervals of 95 % hold it on average; all below 16 of 20
    would be an error (binomial, p < 0.003)."""
    held, letters = 0, 0.0
    for seed in range(20):
        items = [
            example(n, lettered_question("Q?", f"gold {n % 9}", [f"gold {k}" for k in range(9)], f"{seed}/{n}"))
            for n in range(200)
        ]
        found = summarise_eh([], items)["baselines"]["always_A"]["all"]
        held += found["low"] <= 0.2 <= found["high"]
        letters += found["estimate"] / 20
    assert held >= 16
    assert letters == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 4000))


def test_a_fixed_order_is_beaten_by_letters_alone_and_a_shuffled_one_is_not() -> None:
    items = graded(200, 3)
    found = summarise_eh([], items)
    fixed, mixed = found["legacy_baselines"]["letter"]["all"], found["baselines"]["letter"]["all"]
    assert fixed["low"] > 0.4 and mixed["high"] < 0.4 and mixed["low"] < 0.2
    assert found["legacy_baselines"]["always_A"]["all"]["estimate"] == fixed["estimate"]
    assert found["baselines"]["prior"]["all"]["low"] > 0.4  # the text of the commonest grade gives it away still


def test_the_fixed_order_is_reported_apart() -> None:
    items = graded(20, 1)
    both = [outcome(e, e.answer) for e in items] + [outcome(e, "A", condition=FIXED) for e in items]
    found = summarise_eh(both, items)
    assert found["systems"]["base"]["all"]["accuracy"]["estimate"] == 1.0
    share = sum(right_text(e) == GRADES[0] for e in items) / 20
    assert found["legacy"]["base"]["all"]["accuracy"]["estimate"] == pytest.approx(share)


def test_the_letter_baseline_never_looks_at_its_own_patient() -> None:
    """Two patients, each with its own letter: by the other's, both are wrong."""
    made = [lettered_question("Q?", "g", ["a", "b", "c", "d"], str(seed)) for seed in range(40)]
    first = next(m for m in made if m["answer"] == "A")
    second = next(m for m in made if m["answer"] == "B")
    items = [example(0, first), example(1, first), example(2, second), example(3, second)]
    assert list(baselines(items)["letter"].values()) == ["B", "B", "A", "A"]


def test_what_a_text_says_is_read_by_letter_or_in_words() -> None:
    """The options are read in the order in which they were asked: in the fixed order A is another option."""
    made = shuffled("Grade?", GRADES, "DR2", "seed")
    item = example(0, made, fixed_order=GRADES)
    gold = item.answer
    other = "ABCDE"[("ABCDE".index(gold) + 1) % 5]

    def read(text: str, condition: str = "clean") -> list[str | None]:
        said = replace(outcome(item, None, condition=condition), text=text, slots={})
        return letters_of([said], [item], condition)[item.id]

    for text in (gold, f"{gold}.", f"({gold})", f"Answer: {gold}", f"{gold}. DR2", "This is DR2.", f"**{gold}**"):
        assert read(text) == [gold], text
    assert read(other) == [other]
    for text in ("", "I cannot tell.", f"{gold} or {other}", "DR2 or DR3", "It is retinopathy."):
        assert read(text) == [None], text
    assert read("C", FIXED) == ["C"] and read("DR2", FIXED) == ["C"]


def test_a_system_of_a_run_has_metrics_fixed_order_and_policies_and_seeds_are_averaged() -> None:
    """Two seeds, right under one of them: accuracy 1/2; recall 1/2; the wrong letter is a false alarm of its class."""
    items = graded(24, 4)
    rows = [replace(outcome(e, None), text=e.answer, slots={}) for e in items]
    rows += [replace(outcome(e, None), text="I cannot tell.", slots={}, seed=1) for e in items]
    rows += [replace(outcome(e, None, condition=FIXED), text="A", slots={}) for e in items]
    found = summary(rows, items)
    row = found["groups"]["all"]
    assert [row[name]["estimate"] for name in ("accuracy", "unanswered", "recall", "precision")] == pytest.approx(
        [0.5, 0.5, 0.5, 1.0]
    )
    share = sum(right_text(e) == GRADES[0] for e in items) / len(items)
    assert found[FIXED]["all"]["accuracy"]["estimate"] == pytest.approx(share)
    assert found["legacy_baselines"]["always_A"]["all"]["estimate"] == pytest.approx(share)
    assert {"letter", "prior", "always_E"} <= set(found["baselines"])
    assert found["groups"]["retinopathy grading"]["class"] == "Logical Composition"


def test_gain_is_paired_by_patient() -> None:
    items = graded(40, 2)
    wrong = {e.id: "ABCDE"[("ABCDE".index(e.answer) + 1) % 5] for e in items}
    rows = [outcome(e, e.answer if n % 4 == 0 else wrong[e.id]) for n, e in enumerate(items)]
    rows += [outcome(e, e.answer, "base + agent") for e in items]
    found = gain(rows, items, "base + agent", "base")
    assert found.difference.estimate == pytest.approx(0.75) and found.difference.patients == 20
    assert 0.4 < found.difference.low < 0.75 < found.difference.high <= 1 and found.p < 0.001
