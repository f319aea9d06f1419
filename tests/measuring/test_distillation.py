"""Numbers of attention maps against teacher and lesion, worked by hand, and what is written of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from clinalign.imaging.images import read_image, write_png
from clinalign.measuring.distillation import as_grey, map_numbers, numbers_of, write_maps
from clinalign.records import Example, Region
from clinalign.training.distill import Maps

A, T, M = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.5, 0.25]), np.array([0.0, 1.0, 0.0])


def test_numbers_by_hand() -> None:
    """KL(T || A) = .25 ln(.5) + .5 ln 2 = .25 ln 2. The middle of M and A is (.25, .625, .125)."""
    found = map_numbers(A, T, M)
    js = (math.log(1 / 0.625) + 0.5 * math.log(2) + 0.25 * math.log(0.25 / 0.625) + 0.25 * math.log(2)) / 2
    assert found == pytest.approx(
        {"to_teacher": 0.25 * math.log(2), "to_lesion": js, "ratio": 0.75, "teacher_ratio": 1.5}
    )
    assert map_numbers(T, T, M)["to_teacher"] == pytest.approx(0)
    assert map_numbers(M, T, M)["to_lesion"] == pytest.approx(0)


def test_half_covered_tokens_count_half() -> None:
    """A token of which the lesion covers half: .25 * .5 inside, over 1/6 of the image."""
    assert map_numbers(A, T, M / 2)["ratio"] == pytest.approx(0.125 / (0.5 / 3))


def test_what_is_written(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((4, 6), np.uint8))
    mask = np.zeros((4, 6), np.uint8)
    mask[:, 2:4] = 255
    write_png(tmp_path / "m.png", mask)
    rects = np.array([[2.0 * i, 0, 2, 4] for i in range(3)])
    example = Example("e", ["a.png"], "Where?", "left", regions=[Region("nodule", mask="m.png")])
    bare = Example("f", ["a.png"], "Where?", "left")
    systems = {
        "base": {"e": Maps(rects, (1, 3), A, T, 0.2), "f": Maps(rects, (1, 3), A, T, 0.2)},
        "taught": {"e": Maps(rects, (1, 3), T, T, 0.3)},
    }
    assert set(numbers_of(systems["base"], [example, bare], tmp_path)) == {"e"}
    written = json.loads(write_maps(systems, [example, bare], tmp_path, 2).read_text())
    assert written["layer"] == 2 and written["examples"] == 1
    assert written["systems"]["base"]["ratio"] == pytest.approx(0.75)
    assert written["systems"]["taught"]["to_teacher"] == pytest.approx(0)
    assert written["systems"]["taught"]["mass"] == pytest.approx(0.3)
    (shown,) = written["shown"]
    assert set(shown["maps"]) == {"teacher", "base", "taught"}
    picture = read_image(tmp_path / shown["maps"]["base"])
    assert picture.shape == (1, 3, 3) and picture[0, :, 0].tolist() == [95, 47, 47]
    assert np.array_equal(as_grey(T, (1, 3))[0], read_image(tmp_path / shown["maps"]["teacher"])[0, :, 0])
