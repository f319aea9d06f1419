"""Your own data: a CSV, TSV, JSON, JSONL or Parquet file of image, question and answer becomes examples; and a data
set of the Hugging Face hub, or a folder laid out like one, through `datasets`, streamed.

Columns: image (or images), question, answer; optional: task, box, mask, mask_value, label, patient_id, split, id,
modality, window, frame, rejected, and finding, slot, slots, kind, prior, full, counterfactual. docs/data.md describes
them.

    data: {source: hub, path: flaviagiammarino/vqa-rad, columns: {image: image, question: question, answer: answer}}

Nothing of a hub data set's own code is run. Splits called train, validation (val, dev) and test are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clinalign.data import cells, files
from clinalign.data.ingest import Filtered, Item, ingest
from clinalign.data.options import DataOptions
from clinalign.errors import RowError, UsageError, nearest
from clinalign.records import Example
from clinalign.storage import Quarantine, user_path

LABELS = {"1": "yes", "yes": "yes", "true": "yes", "positive": "yes"}
LABELS |= {"0": "no", "no": "no", "false": "no", "negative": "no"}
EMPTY = "the image cell is empty; set data.empty_image to text (a question without an image) or drop (left out)"


def read_table(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """The table's usable rows as examples, one at a time; see `ingest.ingest`.

    Raises `UsageError` for a table that cannot be used at all (see `files.iter_rows`).
    """
    path = user_path(options.path)
    return ingest(_items(path, options), options, folder, quarantine, base=path.parent, several=False)


def _items(path: Path, options: DataOptions) -> Iterator[Item]:
    needed = ("image", *options.findings) if options.findings else files.REQUIRED
    for number, row in files.iter_rows(path, options.columns, needed):
        if isinstance(row, RowError) or not options.findings:
            yield Item(path.name, number, _pictured(row, options))
        else:
            yield from _questions(path, number, row, options)


def _pictured(row: cells.Cells | RowError, options: DataOptions) -> cells.Cells | RowError:
    """The row, unless its image cell is empty and the settings do not say that such a row is a question without one."""
    if isinstance(row, RowError) or options.empty_image == "text" or _pictured_cells(row):
        return row
    return RowError("image", "empty_image", EMPTY)


def _pictured_cells(row: cells.Cells) -> bool:
    cells = [row.get("image"), row.get("images")]
    return any(cell.strip() if isinstance(cell, str) else cell not in (None, []) and cell == cell for cell in cells)


def _questions(path: Path, number: int, row: cells.Cells, options: DataOptions) -> Iterator[Item]:
    """A row of labels as a question a finding; a cell that is neither yes nor no is not asked."""
    shown = _pictured(row, options)
    if isinstance(shown, RowError):
        yield Item(path.name, number, shown)
        return
    given = {name: value for name, value in row.items() if name not in options.findings}
    for finding in options.findings:
        try:
            said = LABELS.get(cells.text(row, finding).lower().removesuffix(".0"), "")
        except RowError as error:
            yield Item(path.name, number, error, part=finding)
            continue
        name = " ".join(finding.replace("_", " ").lower().split())
        question = options.template.replace("{finding}", name)
        asked = {"question": question, "answer": said, "task": "closed", "finding": name}
        yield Item(path.name, number, given | asked if said else Filtered("label neither yes nor no"), part=finding)


def read_hub(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """All splits. Raises `UsageError` without `datasets`, without a way to the hub, and for missing columns."""
    splits = _load(options)
    base = Path(options.path) if Path(options.path).is_dir() else Path()
    return ingest(_hub_items(options, splits), options, folder, quarantine, base=base)


def _load(options: DataOptions) -> dict[str, Any]:
    try:
        from datasets import Image, Sequence, load_dataset
    except ImportError as error:
        raise UsageError("source hub needs datasets; install it with: pip install 'clinalign[hub]'") from error
    try:
        found = load_dataset(options.path, options.subset or None, streaming=True)
    except Exception as error:  # the hub, the network and the builder each raise their own
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"data.path: {options.path}: cannot open it through datasets ({first}); check the name, or download it "
            "where there is a network and give the folder"
        ) from error
    plain = {}
    for name, split in found.items():
        for column, feature in (split.features or {}).items():
            if isinstance(feature, Image):
                split = split.cast_column(column, Image(decode=False))
            elif isinstance(getattr(feature, "feature", None), Image):
                split = split.cast_column(column, Sequence(Image(decode=False)))
        plain[name] = split
    return plain


def _hub_items(options: DataOptions, splits: dict[str, Any]) -> Iterator[Item]:
    unknown = [name for name in options.columns if name not in files.REQUIRED + files.OPTIONAL + files.DECLARED]
    if unknown:
        raise UsageError(f"data.columns: '{unknown[0]}' is no column of ours{nearest(unknown[0], files.OPTIONAL)}")
    for name, split in splits.items():
        known = cells.SPLITS.get(name.lower(), "")
        number = 0
        try:
            for number, row in enumerate(split, 1):
                if number == 1:
                    files.check_columns(Path(options.path), set(row), options.columns)
                yield Item(name, number, {"split": known} | _filled_cells(files.renamed(row, options.columns)))
        except (RowError, UsageError):
            raise
        except Exception as error:
            raise UsageError(f"{options.path}: split {name} cannot be read after row {number} ({error})") from error


def _filled_cells(row: cells.Cells) -> cells.Cells:
    return {name: value for name, value in row.items() if name != "split" or value}
