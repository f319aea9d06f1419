"""What is asked again when something changes: the group of what changed, and of 1 000 questions never a hundredth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from standins import Stand

from clinalign.measuring import answer, evaluate
from clinalign.measuring.asking import FEWEST, Entry, groups
from clinalign.measuring.measure import Results
from clinalign.measuring.options import AnswerOptions, EvaluationOptions
from clinalign.records import Answer, Example
from clinalign.storage import Journal

ROWS = 1000
PLAIN = EvaluationOptions(calibration=False, flips=[])


class Counting(Stand):
    """Says what it is shown, and counts the questions that it is asked."""

    def __init__(self) -> None:
        super().__init__(lambda question, images: f"{question} {int(images[0].mean())}")
        self.asked: list[str] = []

    def generate(self, prompts: Any, *, max_new_tokens: int, batch_size: int) -> Any:
        self.asked += [question for question, _ in prompts]
        return super().generate(prompts, max_new_tokens=max_new_tokens, batch_size=batch_size)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Example]]:
    folder = tmp_path_factory.mktemp("table")
    for n in range(8):
        Image.fromarray(np.full((4, 4), 30 * n, np.uint8)).save(folder / f"{n}.png")
    return folder, [
        Example(f"e{n}", [f"{n % 7}.png"], f"Is there {'x' * (n % 11)}?", "yes", "closed", patient_id=f"p{n}")
        for n in range(ROWS)
    ]


def answered(
    table: Path, examples: list[Example], journal: Path | None = None, **options: Any
) -> tuple[list[Answer], int]:
    """The answers, and how many questions were asked for them; the journal is left as a finished stage leaves it."""
    vlm = Counting()
    opened = Journal(journal, Entry) if journal is not None else None
    answers = answer(vlm, examples, table, AnswerOptions(**options), journal=opened)
    if opened is not None:
        opened.close("answer", remove=False)
    return answers, len(vlm.asked)


@pytest.mark.parametrize(
    "change",
    [
        {"question": "Another question, and a longer one?"},
        {"images": ["7.png"]},
        {"answer": "no"},
    ],
    ids=["question", "image", "truth"],
)
@pytest.mark.parametrize("number", [0, 313, 999])
def test_one_changed_cell_of_a_thousand_asks_a_hundredth_at_most(
    change: dict[str, Any], number: int, table: tuple[Path, list[Example]], tmp_path: Path
) -> None:
    """And ends in what a run from nothing says, row by row."""
    folder, examples = table
    journal = tmp_path / "journal"
    first, asked = answered(folder, examples, journal)
    assert asked == ROWS == len(first)
    changed = [replace(e, **change) if n == number else e for n, e in enumerate(examples)]
    again, asked = answered(folder, changed, journal)
    assert asked <= ROWS / 100 and (asked == 0) == ("answer" in change)
    assert again == answered(folder, changed)[0]
    assert answered(folder, changed, journal) == (again, 0)
    kept = Journal(journal, Entry)
    kept.close(remove=False)
    assert len(kept.rows) == ROWS, "what nothing asked for again is dropped"


def test_a_row_more_or_less_disturbs_its_bucket_alone(table: tuple[Path, list[Example]], tmp_path: Path) -> None:
    folder, examples = table
    answered(folder, examples[:-1], tmp_path / "journal")
    assert answered(folder, examples, tmp_path / "journal")[1] <= ROWS / 10


def test_the_batch_size_is_no_part_of_a_key(table: tuple[Path, list[Example]], tmp_path: Path) -> None:
    folder, examples = table
    first, _ = answered(folder, examples[:50], tmp_path / "journal", batch_size=32)
    for size in (1, 5, 64):
        assert answered(folder, examples[:50], tmp_path / "journal", batch_size=size) == (first, 0)
    assert answered(folder, examples[:50], tmp_path / "journal", max_new_tokens=64)[1] == 50


@pytest.mark.parametrize("count", [1, 7, 200, 1000, 1600, 7000])
def test_groups_hold_every_example_once_in_any_order_and_are_small(count: int) -> None:
    examples = [Example(f"e{n}", ["i.png"] * (n % 3 == 0), "why?", "yes") for n in range(count)]
    found = groups(examples)
    assert sorted(e.id for group in found for e in group) == sorted(e.id for e in examples)
    assert found == groups(examples[::-1])
    assert max(map(len, found)) <= max(FEWEST, count // 100)
    assert all(len({len(e.images) for e in group}) == 1 for group in found)


def test_the_evaluation_asks_and_measures_what_changed_alone(table: tuple[Path, list[Example]], tmp_path: Path) -> None:
    """The same implementation: an answer with its truth corrected is judged anew and not asked again."""
    folder, examples = table

    def run(asked: list[Example]) -> tuple[Results, int]:
        vlm, journal = Counting(), Journal(tmp_path / "journal", Entry)
        found = evaluate(vlm, asked, folder, PLAIN, system="base", journal=journal)
        journal.close("evaluate", remove=False)
        return found, len(vlm.asked)

    assert run(examples)[1] == ROWS
    corrected = [replace(e, answer="no") if n == 3 else e for n, e in enumerate(examples)]
    results, asked = run(corrected)
    assert asked == 0 and results == evaluate(Counting(), corrected, folder, PLAIN, system="base")
    moved = [replace(e, images=["1.png"]) if n == 3 else e for n, e in enumerate(examples)]
    assert 0 < run(moved)[1] <= ROWS / 100
