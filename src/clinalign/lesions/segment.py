"""Regions from a segmenter where the data set has none, or only a box; each kept as a mask image in the run folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinalign.errors import RowError
from clinalign.imaging.images import content_name, content_path, read_image, write_png
from clinalign.imaging.pixels import Pixels
from clinalign.lesions.options import LesionOptions
from clinalign.lesions.regions import region_of
from clinalign.progress import say, track
from clinalign.records import Box, Example, Region
from clinalign.storage import Quarantine, file_hash, key_of, whole_lines, write_text

FOLDER = "regions"
INDEX = f"{FOLDER}/index.jsonl"

Concept = Callable[[Example], str | None]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the segmenter is asked of an image: a phrase or a box, and the region's label."""

    prompt: str | Box
    label: str


def segmented_regions(
    examples: Sequence[Example],
    folder: Path,
    segmenter: Any,
    options: LesionOptions,
    concept: Concept,
    quarantine: Quarantine,
) -> dict[str, Region]:
    """Example id -> region found by the segmenter, its mask in `folder/regions`.

    A segmenter that is asked in words gets the examples without a region of the data set, with the phrase of `concept`;
    one that is asked with a box makes a mask of the data set's boxes. `regions/index.jsonl` has a row for each image
    and question asked: phrase or box, scores, pixels, mask, or `no_detection`. What it holds is not asked again.
    """
    index = _read(folder / INDEX)
    found: dict[str, Region] = {}
    why: Counter[str] = Counter()
    for example in track(examples, "segment"):
        region = region_of(example)
        if example.task == "report" or not example.images or (region is not None and segmenter.prompt == "text"):
            continue
        asked = _question(example, region, segmenter.prompt, concept)
        if asked is None:
            why["no_concept" if region is None else "masked_already"] += 1
            continue
        try:
            row = _ask(read_image(folder / example.images[0]), asked, folder, segmenter, options, index)
        except RowError as error:
            quarantine.add("corrupt", id=example.id, field=error.field, reason=error.reason, detail=error.detail)
            continue
        why["found" if row["mask"] else "no_detection"] += 1
        if row["mask"]:
            found[example.id] = Region(asked.label, region.box if region else None, row["mask"])
    rows = (json.dumps(index[key], ensure_ascii=False) for key in sorted(index))
    write_text(folder / INDEX, "".join(row + "\n" for row in rows))
    say(f"segmenter {segmenter.name}: " + (", ".join(f"{n} {reason}" for reason, n in why.items()) or "nothing to ask"))
    return found


def _question(example: Example, region: Region | None, kind: str, concept: Concept) -> _Asked | None:
    if kind == "box":
        return _Asked(region.box, region.label) if region is not None and region.box and not region.mask else None
    phrase = concept(example)
    return _Asked(phrase, phrase) if phrase else None


def _ask(
    image: Pixels, asked: _Asked, folder: Path, segmenter: Any, options: LesionOptions, index: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The index row of one image and question, asked unless it is there with its mask."""
    given = [content_name(image), asked.prompt, segmenter.fingerprint, options.segmenter_threshold]
    key = key_of(given)[:24]
    row = index.get(key)
    if row is not None and (row["mask"] is None or file_hash(folder / row["mask"]) == row["sha256"]):
        return row
    answer = segmenter.segment(image, asked.prompt, options.segmenter_threshold)
    path = content_path(FOLDER, key) if answer.mask.any() else None
    if path is not None:
        write_png(folder / path, answer.mask)
    index[key] = {
        "key": key,
        "prompt": asked.prompt,
        "segmenter": segmenter.name,
        "adapter": options.segmenter_adapter,
        "threshold": options.segmenter_threshold,
        "scores": answer.scores,
        "pixels": int(answer.mask.sum()),
        "mask": path,
        "sha256": file_hash(folder / path) if path else "",
        "reason": "" if path else "no_detection",
    }
    return index[key]


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """What was asked before; a damaged line is asked again."""
    return {row["key"]: row for row in whole_lines(path)[0] if {"key", "mask", "sha256"} <= row.keys()}
