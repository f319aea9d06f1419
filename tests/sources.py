"""Small folders in the layouts that data sets are published in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clinalign.data import read
from clinalign.data.options import DataOptions
from clinalign.records import Example
from clinalign.storage import Quarantine


def picture(path: Path, seed: int, size: tuple[int, int] = (24, 20)) -> Path:
    """A grey image, [height, width], of its own content for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)).save(path)
    return path


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def ingest(out: Path, source: str, path: Path, **options: Any) -> tuple[list[Example], Quarantine]:
    (out.parent / "key").write_bytes(b"a key")
    quarantine = Quarantine(out / "quarantine.jsonl")
    given = DataOptions(source=source, path=str(path), key_file=str(out.parent / "key"), **options)
    return read(given, out, quarantine), quarantine


def reasons(quarantine: Quarantine) -> list[tuple[str, int, str, str]]:
    return [(row["file"], row["row"], row["field"], row["reason"]) for row in quarantine.rows]


def summary(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "ingest.json").read_text(encoding="utf-8"))
    return found
