"""How close a model's attention is to its teacher's and to the lesions, example by example, and as pictures.

With A the model's map, T the teacher's (both of sum 1 over the image tokens) and M the lesion's share of each token:
`to_teacher` = KL(T || A), `to_lesion` = Jensen-Shannon divergence of M and A (nats), `ratio` = attention inside the
lesion over the lesion's share of the image (1: attention that knows nothing), `teacher_ratio` the same of T.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clinalign.errors import RowError
from clinalign.imaging.images import read_image, write_png
from clinalign.lesions.regions import native_mask
from clinalign.measuring.attention import token_fractions
from clinalign.records import Example
from clinalign.storage import key_of, write_json

MEASURES = ("to_teacher", "to_lesion", "ratio", "teacher_ratio", "mass")
SMALLEST = 1e-12


def map_numbers(student: np.ndarray, teacher: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """The measures of one example; maps of sum 1 and mask shares [N].

    A = [.5, .25, .25], T = [.25, .5, .25], M on the second token: to_teacher = .25 ln 2, ratio .25 / (1/3) = .75,
    teacher_ratio 1.5, to_lesion = (ln(1 / .625) + .5 ln 2 + .25 ln(.25 / .625) + .25 ln 2) / 2.
    """
    lesion = mask / mask.sum()
    middle = (lesion + student) / 2
    return {
        "to_teacher": _kl(teacher, student),
        "to_lesion": (_kl(lesion, middle) + _kl(student, middle)) / 2,
        "ratio": float((student * mask).sum() / mask.mean()),
        "teacher_ratio": float((teacher * mask).sum() / mask.mean()),
    }


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    there = p > 0
    return float((p[there] * np.log(p[there] / np.maximum(q[there], SMALLEST))).sum())


def numbers_of(maps: Mapping[str, Any], examples: Sequence[Example], folder: Path) -> dict[str, dict[str, float]]:
    """The measures by example id, for examples whose first region lies inside what the model sees."""
    found = {}
    for example in examples:
        if example.id not in maps or not example.regions or example.regions[0].image:  # maps are of the first image
            continue
        one = maps[example.id]
        try:
            image = read_image(folder / example.images[0])
            mask = token_fractions(native_mask(example.regions[0], folder, image.shape[:2]), one.rects)
        except RowError:
            continue
        if mask.any():
            numbers = map_numbers(one.student, one.teacher, mask) | {"mass": one.mass}
            if np.isfinite(list(numbers.values())).all():
                found[example.id] = numbers
    return found


def write_maps(
    systems: Mapping[str, Mapping[str, Any]], examples: Sequence[Example], folder: Path, layer: int, shown: int = 6
) -> Path:
    """Writes `evaluation/distill.json` (means by system) and the maps of `shown` examples as grey PNGs beside it.

    `systems`: maps by example id (`training.distill.Maps`) for each system; the baseline first.
    """
    numbers = {name: numbers_of(maps, examples, folder) for name, maps in systems.items()}
    common = sorted(set.intersection(*(set(rows) for rows in numbers.values())))
    means = {
        name: {m: float(np.mean([rows[i][m] for i in common])) for m in MEASURES} if common else {}
        for name, rows in numbers.items()
    }
    by_id = {example.id: example for example in examples}
    pictures = []
    for name in common[:: max(1, len(common) // shown)][:shown]:
        maps = {"teacher": next(iter(systems.values()))[name].teacher}
        maps |= {system: found[name].student for system, found in systems.items()}
        one = next(iter(systems.values()))[name]
        paths, stem = {}, key_of(name)[:24]
        for system, values in maps.items():
            paths[system] = f"evaluation/distill/{stem}-{system}.png"
            write_png(folder / paths[system], as_grey(values, one.grid))
        example = by_id[name]
        entry = {"id": name, "image": example.images[0], "mask": example.regions[0].mask, "question": example.question}
        pictures.append(entry | {"maps": paths})
    path = folder / "evaluation" / "distill.json"
    write_json(path, {"layer": layer, "examples": len(common), "systems": means, "shown": pictures})
    return path


def as_grey(values: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """A map of sum 1 as uint8 [rows, columns]: black nothing, white four times an even share or more."""
    even = values.reshape(grid) * values.size
    return np.asarray(np.clip(even / 4, 0, 1) * 255, np.uint8)
