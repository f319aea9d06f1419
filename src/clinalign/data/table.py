"""Your own data: a CSV, TSV, JSON, JSONL or Parquet file of image, question and answer becomes examples.

Columns: image (or images), question, answer; optional: task, box, mask, mask_value, label, patient_id, split, id,
modality, window, frame, rejected, and finding, slot, slots, kind, prior, full, twin (kept in `meta`). docs/data.md
describes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clinalign.data import rows
from clinalign.data.ingest import Item, ingest
from clinalign.data.options import DataOptions
from clinalign.records import Example
from clinalign.storage import Quarantine, user_path


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """The table's usable rows as examples, one at a time; see `ingest.ingest`.

    Raises `UsageError` for a table that cannot be used at all (see `rows.iter_rows`).
    """
    path = user_path(options.path)
    items = (Item(path.name, number, row) for number, row in rows.iter_rows(path, options.columns))
    return ingest(items, options, folder, quarantine, base=path.parent, several=False)
