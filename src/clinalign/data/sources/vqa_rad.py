"""VQA-RAD (Lau et al., Scientific Data 2018): clinicians' questions on head, chest and abdomen images.

    "VQA_RAD Dataset Public.json" + "VQA_RAD Image Folder/", or trainset.json + testset.json + images/

Test rows are those whose phrase type begins with "test". The published splits share images, so a run needs
`data.leaks: drop` (training rows on test images are left out) or `data.original_splits: false`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clinalign.data import cells
from clinalign.data.ingest import ingest
from clinalign.data.options import DataOptions
from clinalign.data.sources.layout import field, first, items, kept, root
from clinalign.records import Example
from clinalign.storage import Quarantine

PUBLIC = "VQA_RAD Dataset Public.json"
PUBLISHED = {"trainset.json": 3064, "testset.json": 451, "train": 1797, "test": 451}
"""Rows of the two layouts: with (trainset.json) and without the paraphrases as rows of their own."""
FIELDS = ("image_name", "question", "answer")


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """Both layouts. Raises `UsageError` for a folder with neither."""
    found = first(root(options), PUBLIC, "*Public*.json", "trainset.json", "*/trainset.json", what="VQA-RAD has one")
    base = found.parent
    images = [name for name in ("VQA_RAD Image Folder", "images", "VQA_RAD_Image_Folder") if (base / name).is_dir()]
    if found.name == "trainset.json":
        files = [(base / name, split) for name, split in (("trainset.json", "train"), ("testset.json", "test"))]
        given = (item for file, split in files for item in items(file, FIELDS, _Converter(split)))
    else:
        given = (
            item._replace(group=item.row.get("split", "") if isinstance(item.row, dict) else "train")
            for item in items(found, (*FIELDS, "phrase_type"), _Converter(""))
        )
    base = base / images[0] if images else base
    return ingest(given, options, folder, quarantine, base=base, published=PUBLISHED)


class _Converter:
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
