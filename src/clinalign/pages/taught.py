"""The page's section on distillation: where the teacher looks, where each system looks, in numbers and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clinalign.errors import RowError
from clinalign.imaging.images import read_image
from clinalign.pages.headline import shown_name
from clinalign.pages.pictures import HEAT, are_shown, data_uri
from clinalign.pages.provenance import read_json

COLUMNS = {
    "to_teacher": "distance to the teacher's map (KL, nats)",
    "to_lesion": "distance to the lesion (JS, nats)",
    "ratio": "attention on the lesion, times an even share",
    "mass": "attention on the image at all, %",
}
SIDE = 160


def taught(folder: Path) -> dict[str, Any] | None:
    """Rows of the table and strips of pictures from `evaluation/distill.json`; None where nothing was distilled."""
    found = read_json(folder / "evaluation" / "distill.json")
    if not found or not found.get("examples"):
        return None
    rows = [
        {"label": shown_name(name), "cells": [_cell(column, means) for column in COLUMNS]}
        for name, means in found["systems"].items()
    ]
    first = next(iter(found["systems"].values()))
    strips = [strip for strip in (_strip(folder, entry) for entry in found["shown"]) if strip] if are_shown() else []
    return {
        "columns": list(COLUMNS.values()), "rows": rows, "strips": strips, "layer": found["layer"],
        "examples": found["examples"], "teacher_ratio": f"{first['teacher_ratio']:.2f}",
    }  # fmt: skip


def _cell(column: str, means: Mapping[str, float]) -> str:
    return f"{100 * means[column]:.1f}" if column == "mass" else f"{means[column]:.3f}"


def _strip(folder: Path, entry: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        image = _sized(read_image(folder / entry["image"]))
        maps = {name: read_image(folder / path)[..., 0] for name, path in entry["maps"].items()}
    except RowError:
        return None
    pictures = [{"label": "image", "uri": data_uri(image)}]
    for name, grey in maps.items():
        label = "teacher" if name == "teacher" else shown_name(name)
        pictures.append({"label": label, "uri": data_uri(over(image, grey))})
    return {"question": entry["question"], "pictures": pictures}


def over(image: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """A grey map as one colour laid over an image uint8 [H, W, 3], each cell as large as its share of the image."""
    height, width = image.shape[:2]
    depth = np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.NEAREST), float)[..., None] / 255
    return np.asarray(image * (1 - 0.75 * depth) + np.array(HEAT) * 0.75 * depth, np.uint8)


def _sized(image: np.ndarray) -> np.ndarray:
    scale = SIDE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
