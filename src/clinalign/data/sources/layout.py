"""What the readers of published data sets share: finding files, checking that they are what they should be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from clinalign.data import cells, files
from clinalign.data.cells import guarded
from clinalign.data.ingest import Filtered, Item
from clinalign.data.options import DataOptions
from clinalign.errors import RowError, UsageError
from clinalign.storage import is_file, user_path

Convert = Callable[[cells.Cells], "cells.Cells | Filtered"]


def root(options: DataOptions) -> Path:
    """The folder of the data set. Raises `UsageError` where there is none."""
    folder = user_path(options.path)
    if not folder.is_dir():
        raise UsageError(f"data.path: {options.path}: no such folder; source {options.source} is a folder")
    return folder


def first(folder: Path, *patterns: str, what: str) -> Path:
    """The first file or folder below `folder` that a glob pattern finds, patterns in their order."""
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
    raise UsageError(f"{folder}: no {' or '.join(patterns)}; {what}")


def items(path: Path, needed: Iterable[str], convert: Convert, *, group: str = "", file: str = "") -> Iterator[Item]:
    """The rows of a file, each through `convert`, which gives our columns or raises `RowError`.

    `needed` fields may have aliases: "Answer|Answer_label". Raises `UsageError` when the first row has none of all
    these fields: the file is another one.
    """
    name = file or path.name
    if not is_file(path):
        raise UsageError(f"{path}: no such file; check data.path")
    fields = [tuple(names.split("|")) for names in needed]
    number = 0
    for number, row in files.raw_rows(path):
        made: cells.Cells | RowError | Filtered = row
        if not isinstance(row, RowError):
            if number == 1 and not any(alias in row for names in fields for alias in names):
                there = files.listed(path, row)
                raise UsageError(f"{path}: no field '{fields[0][0]}'; {there}. Is it the right file?")
            made = guarded(partial(_converted, row, fields, convert), row)
        yield Item(name, number, made, group)
    if number == 0:
        raise UsageError(f"{path}: no rows; is it the right file?")


def _converted(row: cells.Cells, fields: list[tuple[str, ...]], convert: Convert) -> cells.Cells | Filtered:
    missing = next((names for names in fields if not any(alias in row for alias in names)), None)
    if missing:
        raise RowError(missing[0], "missing_field", f"the row has no {' or '.join(missing)}")
    return convert(row)


def field(row: cells.Cells, name: str) -> str:
    """A field as text; a missing one is empty."""
    return cells.text(row, name)


def kept(row: cells.Cells, *names: str) -> dict[str, Any]:
    """Those of the fields that hold something, for `meta`."""
    return {name: row[name] for name in names if row.get(name) not in (None, "", [])}
