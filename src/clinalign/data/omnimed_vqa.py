"""OmniMedVQA (arXiv 2402.09181): multiple-choice questions out of 73 data sets, an evaluation set without splits.

    OmniMedVQA/QA_information/Open-access/*.json (and Restricted-access) + Images/...

Without splits the images are dealt out by `data.splits`: {test: 1} keeps it an evaluation set.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clinalign.data import rows
from clinalign.data.ingest import ingest
from clinalign.data.layout import field, first, items, kept, multiple_choice, root
from clinalign.data.options import DataOptions
from clinalign.errors import UsageError
from clinalign.records import Example
from clinalign.storage import Quarantine

PUBLISHED = {"Open-access": 88_996}
FIELDS = ("question", "gt_answer", "image_path", "option_A")


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """All question files, or those of `data.subset`. Raises `UsageError` for a folder without any."""
    info = first(root(options), "QA_information", "*/QA_information", what="give the folder OmniMedVQA")
    files = sorted(info.glob(f"{options.subset or '*'}/*.json")) or sorted(info.glob("*.json"))
    if not files:
        raise UsageError(f"{info}: no question files below {options.subset or 'it'}; check data.subset")
    given = (
        item
        for file in files
        for item in items(file, FIELDS, _convert, group=file.parent.name, file=f"{file.parent.name}/{file.name}")
    )
    return ingest(given, options, folder, quarantine, base=info.parent, published=PUBLISHED)


def _convert(row: rows.Row) -> rows.Row:
    choices = [field(row, f"option_{letter}") for letter in "ABCDEF" if field(row, f"option_{letter}")]
    made = multiple_choice(field(row, "question"), choices, field(row, "gt_answer"))
    return made | {
        "id": field(row, "question_id"),
        "image": field(row, "image_path"),
        "modality": field(row, "modality_type") or field(row, "modality"),
        "meta": made["meta"] | kept(row, "dataset", "question_type"),
    }
