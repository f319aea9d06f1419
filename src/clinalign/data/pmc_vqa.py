"""PMC-VQA (arXiv 2305.10415): multiple-choice questions on figures of PubMed Central.

    train.csv test.csv test_clean.csv + images/ (version 1), train_2.csv test_2.csv + images_2/ or figures/ (version 2)

Version 1 names the right option in `Answer_label`, version 2 in `Answer`. test.csv holds test_clean.csv: where the
clean one is there, the other is not read. Version 2 is read only where version 1 is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clinalign.data import rows
from clinalign.data.ingest import ingest
from clinalign.data.layout import field, items, kept, multiple_choice, root
from clinalign.data.options import DataOptions
from clinalign.errors import UsageError
from clinalign.records import Example
from clinalign.storage import Quarantine

PUBLISHED = {
    "train.csv": 176_948,
    "test.csv": 50_000,
    "test_clean.csv": 2_000,
    "train_2.csv": 152_603,
    "test_2.csv": 33_430,
}
VERSIONS = (
    ({"train.csv": "train", "test_clean.csv": "test", "test.csv": "test"}, ("images", "figures")),
    ({"train_2.csv": "train", "test_2.csv": "test"}, ("images_2", "figures", "images")),
)
FIELDS = ("Figure_path", "Question", "Choice A", "Choice B", "Answer|Answer_label")


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """One version of the set. Raises `UsageError` for a folder with neither."""
    base = root(options)
    for names, images in VERSIONS:
        files = [base / name for name in names if (base / name).is_file()]
        if base / "test_clean.csv" in files:
            files = [file for file in files if file.name != "test.csv"]
        if files:
            given = (item for file in files for item in items(file, FIELDS, _Converter(names[file.name], file.stem)))
            where = next((base / name for name in images if (base / name).is_dir()), base)
            return ingest(given, options, folder, quarantine, base=where, published=PUBLISHED)
    raise UsageError(f"{base}: no train.csv, test.csv or train_2.csv; give the folder of PMC-VQA")


class _Converter:
    def __init__(self, split: str, stem: str) -> None:
        self.split, self.stem = split, stem

    def __call__(self, row: rows.Row) -> rows.Row:
        choices = [field(row, f"Choice {letter}") for letter in "ABCD" if f"Choice {letter}" in row]
        answer = field(row, "Answer_label") or field(row, "Answer")
        made = multiple_choice(field(row, "Question"), choices, answer)
        meta = made["meta"] | kept(row, "Caption")
        number = field(row, "index")
        given = {"id": f"pmc-vqa-{self.stem}-{number}"} if number else {}
        return made | given | {"image": field(row, "Figure_path"), "split": self.split, "meta": meta}
