"""PathVQA (arXiv 2003.10286): questions on pathology images.

    pvqa/qas/train/train_qa.pkl ... + pvqa/images/train/train_0422.jpg, or the hub's data/train-*.parquet

The authors publish pickles. A pickle can run any code when it is read; here they are read by an unpickler that knows
lists, dicts, texts and numbers and refuses everything else.
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
from clinalign.data.sources.layout import field, items, root
from clinalign.errors import RowError, UsageError
from clinalign.records import Example
from clinalign.storage import Quarantine

PUBLISHED = {
    "train_qa.pkl": 19755,
    "val_qa.pkl": 6279,
    "test_qa.pkl": 6761,
    "hub train": 19654,
    "hub validation": 6259,
    "hub test": 6719,
}


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """Both layouts. Raises `UsageError` for a folder with neither, and for a pickle that holds more than plain data."""
    base = root(options)
    pickles = sorted(base.rglob("*_qa.pkl"))
    tables = sorted(base.glob("data/*.parquet")) or sorted(base.glob("*.parquet"))
    if pickles:
        given = (item for path in pickles for item in _pickled(path))
        images = next((p for p in (base / "images", *base.glob("*/images")) if p.is_dir()), base)
        return ingest(given, options, folder, quarantine, base=images, published=PUBLISHED)
    if not tables:
        raise UsageError(f"{base}: neither *_qa.pkl nor *.parquet; give the folder pvqa, or that of the hub's files")
    given = (item for path in tables for item in _table(path))
    return ingest(given, options, folder, quarantine, base=base, published=PUBLISHED)


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
