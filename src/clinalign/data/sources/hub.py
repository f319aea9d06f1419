"""A data set of the Hugging Face hub, or a folder laid out like one, through `datasets`, streamed.

    data: {source: hub, path: flaviagiammarino/vqa-rad, columns: {image: image, question: question, answer: answer}}

Nothing of the data set's own code is run. Splits called train, validation (val, dev) and test are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clinalign.data import cells, files
from clinalign.data.ingest import Item, ingest
from clinalign.data.options import DataOptions
from clinalign.errors import RowError, UsageError, nearest
from clinalign.records import Example
from clinalign.storage import Quarantine


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """All splits. Raises `UsageError` without `datasets`, without a way to the hub, and for missing columns."""
    splits = _load(options)
    base = Path(options.path) if Path(options.path).is_dir() else Path()
    return ingest(_items(options, splits), options, folder, quarantine, base=base)


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


def _items(options: DataOptions, splits: dict[str, Any]) -> Iterator[Item]:
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
                yield Item(name, number, {"split": known} | _filled(files.renamed(row, options.columns)))
        except (RowError, UsageError):
            raise
        except Exception as error:
            raise UsageError(f"{options.path}: split {name} cannot be read after row {number} ({error})") from error


def _filled(row: cells.Cells) -> cells.Cells:
    return {name: value for name, value in row.items() if name != "split" or value}
