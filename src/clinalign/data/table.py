"""Your own data: a CSV, TSV, XLSX, JSON, JSONL or Parquet file of image, question and answer becomes examples.

Columns: image (or images), question, answer; optional: task, box, mask, mask_value, label, patient_id, split, id,
modality, window, frame, rejected, and finding, slot, slots, kind, prior, full, twin (kept in `meta`). docs/data.md
describes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clinalign.data import rows
from clinalign.data.ingest import Filtered, Item, ingest
from clinalign.data.options import DataOptions
from clinalign.errors import RowError
from clinalign.records import Example
from clinalign.storage import Quarantine, user_path

LABELS = {"1": "yes", "yes": "yes", "true": "yes", "positive": "yes"}
LABELS |= {"0": "no", "no": "no", "false": "no", "negative": "no"}
EMPTY = "the image cell is empty; set data.empty_image to text (a question without an image) or drop (left out)"


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """The table's usable rows as examples, one at a time; see `ingest.ingest`.

    Raises `UsageError` for a table that cannot be used at all (see `rows.iter_rows`).
    """
    path = user_path(options.path)
    return ingest(_items(path, options), options, folder, quarantine, base=path.parent, several=False)


def _items(path: Path, options: DataOptions) -> Iterator[Item]:
    needed = ("image", *options.findings) if options.findings else rows.REQUIRED
    for number, row in rows.iter_rows(path, options.columns, needed):
        if isinstance(row, RowError) or not options.findings:
            yield Item(path.name, number, _pictured(row, options))
        else:
            yield from _questions(path, number, row, options)


def _pictured(row: rows.Row | RowError, options: DataOptions) -> rows.Row | RowError:
    """The row, unless its image cell is empty and the settings do not say that such a row is a question without one."""
    if isinstance(row, RowError) or options.empty_image == "text" or _filled(row):
        return row
    return RowError("image", "empty_image", EMPTY)


def _filled(row: rows.Row) -> bool:
    cells = [row.get("image"), row.get("images")]
    return any(cell.strip() if isinstance(cell, str) else cell not in (None, []) and cell == cell for cell in cells)


def _questions(path: Path, number: int, row: rows.Row, options: DataOptions) -> Iterator[Item]:
    """A row of labels as a question a finding; a cell that is neither yes nor no is not asked."""
    shown = _pictured(row, options)
    if isinstance(shown, RowError):
        yield Item(path.name, number, shown)
        return
    given = {name: value for name, value in row.items() if name not in options.findings}
    for finding in options.findings:
        try:
            said = LABELS.get(rows.text(row, finding).lower().removesuffix(".0"), "")
        except RowError as error:
            yield Item(path.name, number, error, part=finding)
            continue
        name = " ".join(finding.replace("_", " ").lower().split())
        question = options.template.replace("{finding}", name)
        asked = {"question": question, "answer": said, "task": "closed", "finding": name}
        yield Item(path.name, number, given | asked if said else Filtered("label neither yes nor no"), part=finding)
