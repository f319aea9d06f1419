"""Edits of an answer that is a box, by hand."""

from __future__ import annotations

import random

import pytest

from clinalign.errors import RowError
from clinalign.language.edit_boxes import edit_box, overlap

DRAW = random.Random(0)


def test_overlap_by_hand() -> None:
    """100 shared of 300; 50 of 150; nothing."""
    assert overlap([0, 0, 10, 10], [0, 0, 10, 30]) == pytest.approx(1 / 3)
    assert overlap([0, 0, 10, 10], [5, 0, 15, 10]) == pytest.approx(1 / 3)
    assert overlap([0, 0, 1, 1], [2, 2, 3, 3]) == 0


@pytest.mark.parametrize(
    ("wrong", "truth"),
    [
        ("[500, 100, 700, 300]", "[100, 100, 300, 300]"),
        ("(500,100),(700,300)", "(100,100),(300,300)"),
        ("<loc0500><loc0100><loc0700><loc0300>", "<loc0100><loc0100><loc0300><loc0300>"),
        ("[0.500, 0.1, 0.7, 0.3]", "[0.100, 0.100, 0.300, 0.300]"),
    ],
)
def test_a_wrong_box_is_corrected_and_a_right_one_moved(wrong: str, truth: str) -> None:
    """The true box is 2 wide at 1: no room of its own side before it, so a third of it is left, overlap 1/3."""
    found = edit_box(f"It is at {wrong}.", truth, DRAW)
    assert not found.was_correct and found.text == f"It is at {truth}." and found.kind == "box"
    right = edit_box(f"It is at {truth}.", truth, DRAW)
    assert right.was_correct and right.text != f"It is at {truth}."
    again = edit_box(right.text, truth, DRAW)
    assert not again.was_correct and again.text == f"It is at {truth}."
    start, end = right.chosen_spans[0]
    assert "It is at " in right.text and start >= len("It is at ") and end <= len(f"It is at {truth}")


def test_with_room_it_is_moved_by_its_own_side() -> None:
    """Of [40, 40, 60, 60] one axis goes to 20..40."""
    text = edit_box("[40, 40, 60, 60]", "[40, 40, 60, 60]", DRAW).text
    assert text in ("[20, 40, 40, 60]", "[40, 20, 60, 40]")


def test_an_answer_without_a_box_is_none() -> None:
    with pytest.raises(RowError) as error:
        edit_box("On the left.", "[1, 2, 3, 4]", DRAW)
    assert error.value.reason == "no_box"
