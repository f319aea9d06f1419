"""VGMED (arXiv 2603.14323): questions with the boxes that a grounded answer has to look at.

    VGMED_localization.jsonl VGMED_attribute.jsonl, image paths relative to them

Boxes are [x1, y1, x2, y2], but [x, y, w, h] for the images of SLAKE (paths that begin with "Slake"). The set measures
where a model looks: rows without an answer get "not given", and `meta.answer_given` says so. It is a test set.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clinalign.data import cells
from clinalign.data.ingest import ingest
from clinalign.data.options import DataOptions
from clinalign.data.sources.layout import field, items, kept, root
from clinalign.errors import RowError, UsageError
from clinalign.records import Example
from clinalign.storage import Quarantine

FILES = ("VGMED_localization.jsonl", "VGMED_attribute.jsonl")
FIELDS = ("image", "question", "bbox|original_bboxes")


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """Both question sets. Raises `UsageError` for a folder with neither."""
    base = root(options)
    files = [base / name for name in FILES if (base / name).is_file()]
    if not files:
        raise UsageError(f"{base}: neither {' nor '.join(FILES)}; give the folder of VGMED")
    given = (item for file in files for item in items(file, FIELDS, _Converter(file.stem.partition("_")[2])))
    return ingest(given, options, folder, quarantine, base=base)


class _Converter:
    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, row: cells.Cells) -> cells.Cells:
        image = field(row, "image")
        given = row["bbox"] if row.get("bbox") is not None else row.get("original_bboxes")
        boxes = _boxes(given, corners=not image.startswith("Slake"))
        answer = field(row, "answer")
        return {
            "image": image,
            "question": field(row, "question"),
            "answer": answer if "answer" in row else "not given",
            "split": "test",
            "regions": [{"label": field(row, "label") or "region", "box": box} for box in boxes],
            "kind": self.kind,
            "meta": {"answer_given": "answer" in row} | kept(row, "dataset", "type", "label"),
        }


def _boxes(given: Any, *, corners: bool) -> list[list[float]]:
    if not isinstance(given, list) or not given:
        raise RowError("box", "unparsable_box", "expected a list of boxes")
    found = [cells.box({"box": box}) for box in (given if isinstance(given[0], list) else [given])]
    boxes = [box for box in found if box]
    return [[x, y, x2 - x, y2 - y] for x, y, x2, y2 in boxes] if corners else boxes
