"""The page's section on distillation: from `evaluation/distill.json` alone, nothing where there is none."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from clinalign.imaging.images import write_png
from clinalign.pages.tables import distillation, over
from clinalign.storage import write_json


def test_section(tmp_path: Path) -> None:
    assert distillation(tmp_path) is None
    write_png(tmp_path / "a.png", np.full((8, 16), 100, np.uint8))
    for name in ("teacher", "base", "medalign"):
        write_png(tmp_path / f"{name}.png", np.array([[0, 255]], np.uint8))
    means = {"to_teacher": 0.5, "to_lesion": 0.25, "ratio": 1.5, "teacher_ratio": 2.0, "mass": 0.125}
    maps = {name: f"{name}.png" for name in ("teacher", "base", "medalign")}
    shown = {"id": "e", "image": "a.png", "mask": None, "question": "Where <b>?", "maps": maps}
    gone = shown | {"image": "gone.png"}
    systems = {"base": means, "medalign": means | {"ratio": 2.5}}
    (tmp_path / "evaluation").mkdir()
    write_json(
        tmp_path / "evaluation" / "distill.json",
        {"layer": 2, "examples": 7, "systems": systems, "shown": [shown, gone]},
    )
    found = distillation(tmp_path)
    assert [row["cells"] for row in found["rows"]] == [
        ["0.500", "0.250", "1.500", "12.5"], ["0.500", "0.250", "2.500", "12.5"]
    ]  # fmt: skip
    assert found["teacher_ratio"] == "2.00" and len(found["strips"]) == 1
    pictures = found["strips"][0]["pictures"]
    assert len(pictures) == 4 and pictures[1]["label"] == "teacher"
    kind, _, content = pictures[1]["uri"].partition(",")
    array = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert array.shape == (80, 160, 3) and kind.startswith("data:image/")


def test_overlay_colours_where_the_map_is_and_nowhere_else() -> None:
    image = np.full((4, 8, 3), 40, np.uint8)
    drawn = over(image, np.array([[0, 255]], np.uint8))
    assert np.array_equal(drawn[:, :4], image[:, :4])
    assert (drawn[:, 4:, 0] > 150).all()
