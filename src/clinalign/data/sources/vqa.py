"""VQA-RAD (Lau et al., Scientific Data 2018), clinicians' questions on head, chest and abdomen images, and PathVQA
(arXiv 2003.10286), questions on pathology images.

    "VQA_RAD Dataset Public.json" + "VQA_RAD Image Folder/", or trainset.json + testset.json + images/
    pvqa/qas/train/train_qa.pkl ... + pvqa/images/train/train_0422.jpg, or the hub's data/train-*.parquet

Test rows of VQA-RAD are those whose phrase type begins with "test". The published splits share images, so a run needs
`data.leaks: drop` (training rows on test images are left out) or `data.original_splits: false`. The authors of PathVQA
publish pickles. A pickle can run any code when it is read; here they are read by an unpickler that knows lists, dicts,
texts and numbers and refuses everything else.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from clinalign.data import cells
from clinalign.data.cells import guarded
from clinalign.data.ingest import Item, ingest
from clinalign.data.options import DataOptions
from clinalign.data.sources.layout import field, first, items, kept, root
from clinalign.errors import RowError, UsageError
from clinalign.records import Example
from clinalign.storage import Quarantine

PUBLIC = "VQA_RAD Dataset Public.json"
RAD_PUBLISHED = {"trainset.json": 3064, "testset.json": 451, "train": 1797, "test": 451}
"""Rows of the two layouts: with (trainset.json) and without the paraphrases as rows of their own."""
FIELDS = ("image_name", "question", "answer")


def read_vqa_rad(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """Both layouts. Raises `UsageError` for a folder with neither."""
    found = first(root(options), PUBLIC, "*Public*.json", "trainset.json", "*/trainset.json", what="VQA-RAD has one")
    base = found.parent
    images = [name for name in ("VQA_RAD Image Folder", "images", "VQA_RAD_Image_Folder") if (base / name).is_dir()]
    if found.name == "trainset.json":
        files = [(base / name, split) for name, split in (("trainset.json", "train"), ("testset.json", "test"))]
        given = (item for file, split in files for item in items(file, FIELDS, _RADRow(split)))
    else:
        given = (
            item._replace(group=item.row.get("split", "") if isinstance(item.row, dict) else "train")
            for item in items(found, (*FIELDS, "phrase_type"), _RADRow(""))
        )
    base = base / images[0] if images else base
    return ingest(given, options, folder, quarantine, base=base, published=RAD_PUBLISHED)


class _RADRow:
    def __init__(self, split: str) -> None:
        self.split = split

    def __call__(self, row: cells.Cells) -> cells.Cells:
        split = self.split or ("test" if field(row, "phrase_type").lower().startswith("test") else "train")
        number = field(row, "qid")
        return {
            "id": f"vqa-rad-{split}-{number}" if number else "",
            "image": field(row, "image_name"),
            "question": field(row, "question"),
            "answer": field(row, "answer"),
            "task": "closed" if field(row, "answer_type").upper() == "CLOSED" else "open",
            "split": split,
            "meta": kept(row, "image_organ", "question_type", "phrase_type"),
        }


PATH_PUBLISHED = {
    "train_qa.pkl": 19755,
    "val_qa.pkl": 6279,
    "test_qa.pkl": 6761,
    "hub train": 19654,
    "hub validation": 6259,
    "hub test": 6719,
}


def read_path_vqa(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """Both layouts. Raises `UsageError` for a folder with neither, and for a pickle that holds more than plain data."""
    base = root(options)
    pickles = sorted(base.rglob("*_qa.pkl"))
    tables = sorted(base.glob("data/*.parquet")) or sorted(base.glob("*.parquet"))
    if pickles:
        given = (item for path in pickles for item in _pickled(path))
        images = next((p for p in (base / "images", *base.glob("*/images")) if p.is_dir()), base)
        return ingest(given, options, folder, quarantine, base=images, published=PATH_PUBLISHED)
    if not tables:
        raise UsageError(f"{base}: neither *_qa.pkl nor *.parquet; give the folder pvqa, or that of the hub's files")
    given = (item for path in tables for item in _table(path))
    return ingest(given, options, folder, quarantine, base=base, published=PATH_PUBLISHED)


def _table(path: Path) -> Iterator[Item]:
    split = path.name.partition("-")[0]

    def convert(row: cells.Cells) -> cells.Cells:
        return {name: row.get(name) for name in ("image", "question", "answer")} | {"split": split}

    return items(path, ("image", "question", "answer"), convert, group=f"hub {split}")


def _pickled(path: Path) -> Iterator[Item]:
    split = path.name.partition("_")[0]
    for number, row in enumerate(_plain(path), 1):
        yield Item(path.name, number, guarded(partial(_converted, row, split), row))


def _converted(row: Any, split: str) -> cells.Cells:
    if not isinstance(row, dict) or "image" not in row:
        raise RowError("row", "unparsable_row", "expected image, question and answer")
    image = field(row, "image")
    name = f"{split}/{image}.jpg" if image and not Path(image).suffix else image
    return {"image": name, "question": row.get("question"), "answer": row.get("answer"), "split": split}


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it wants to load {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside")


def _plain(path: Path) -> list[Any]:
    try:
        with path.open("rb") as file:
            found = _Plain(file).load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UsageError(f"{path}: not a pickle of plain lists and dicts ({error}); it is not opened") from error
    if not isinstance(found, list) or not found:
        raise UsageError(f"{path}: expected a list of questions, got {type(found).__name__}")
    return found
