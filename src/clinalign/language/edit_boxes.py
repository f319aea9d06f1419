"""The edit of an answer that is a place in the image: another box, in the form in which the model writes boxes."""

from __future__ import annotations

import random
import re

from clinalign.errors import RowError
from clinalign.language.align import Edit

NUMBER = re.compile(r"\d+(?:\.\d+)?")
OVERLAP = 0.5
"""From here on a box is right."""


def edit_box(text: str, truth: str, rng: random.Random) -> Edit:
    """The answer `text` with its first box corrected to `truth`, a box as the model writes it; where it overlaps the
    truth by a half (intersection over union) it is right, and the edit is a wrong box: the true one moved by its own
    side towards the origin where there is space, else a third of it.

    [0, 0, 10, 10] against [0, 0, 10, 30] overlaps by 100 / 300, a third. Raises `RowError` for a text without a box.
    """
    pieces = NUMBER.split(truth)
    found = re.search(r"\s*(\d+(?:\.\d+)?)\s*".join(map(re.escape, pieces)), text)
    if found is None:
        raise RowError("text", "no_box", f"the answer names no box in the form of {truth}")
    right = overlap(*([float(number) for number in numbers] for numbers in (found.groups(), NUMBER.findall(truth))))
    was_correct = right >= OVERLAP
    new = _moved(truth, rng) if was_correct else truth
    return Edit.between(text, text[: found.start()] + new + text[found.end() :], was_correct, "box")


def overlap(one: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes, corners in any order of axes: [a1, b1, a2, b2]."""
    sides = [max(0.0, min(one[i + 2], other[i + 2]) - max(one[i], other[i])) for i in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    shared = sides[0] * sides[1]
    return shared / max(areas[0] + areas[1] - shared, 1e-12)


def _moved(truth: str, rng: random.Random) -> str:
    numbers = NUMBER.findall(truth)
    values = [float(number) for number in numbers]
    axis = rng.randrange(2)
    low, high = values[axis], values[axis + 2]
    side = high - low
    values[axis], values[axis + 2] = (low - side, low) if low >= side else (low, low + side / 3)
    places, width = len(numbers[0].partition(".")[2]), 4 if truth.startswith("<loc") else 0
    said = iter(f"{value:.{places}f}".zfill(width) for value in values)
    return NUMBER.sub(lambda _: next(said), truth)
