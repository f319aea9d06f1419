"""Files of rows by their names' ends, streamed under our column names; and what a source holds now, as a hash.

So an ingest is done again when its data changed. The table itself counts by its bytes. Images count by name, size and
times, as `make` and `rsync` tell files apart: they may be terabytes, and their pixels are in the run folder once they
are ingested. No file's name is kept.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clinalign.data.cells import SPLITS, Cells
from clinalign.data.options import DataOptions
from clinalign.data.parsers import csv_rows, iter_json, parquet_rows
from clinalign.data.xlsx import xlsx_rows
from clinalign.errors import RowError, UsageError, nearest
from clinalign.extensions import code_of
from clinalign.storage import file_hash, filled_lines, is_file, key_of, open_text, parse_json, texts

REQUIRED = ("image", "question", "answer")
OPTIONAL = (
    "images",
    "task",
    "box",
    "mask",
    "label",
    "patient_id",
    "split",
    "id",
    "modality",
    "window",
    "frame",
    "mask_value",
)
DECLARED = ("finding", "slot", "kind", "prior", "full", "slots", "counterfactual", "rejected")
"""Optional columns that become fields of the same name."""
LONGEST_NAME = 1024
ELSEWHERE = ("phantom", "phantom2", "real", "hub")
"""Sources that are drawn, checked by hash, or kept by another library."""

LINE = 1 << 16
"""Characters in which the first line of a JSON file has to end for the file to be one of an object a line."""


def iter_rows(
    path: Path, columns: Mapping[str, str], needed: Sequence[str] = REQUIRED
) -> Iterator[tuple[int, Cells | RowError]]:
    """(row number from 1, row) pairs; a row that cannot be parsed comes as the `RowError` that says why.

    `columns` maps our name to the file's. Raises `UsageError` for a missing or empty file, an unknown format, bytes
    that are not UTF-8, and a `needed` column that is not there (nearest name offered).
    """
    _check_format(path)
    if not is_file(path):
        raise UsageError(f"{path}: no such file; check data.path")
    if not path.stat().st_size:
        raise UsageError(f"{path}: the file is empty; it needs the columns {', '.join(needed)}")
    unknown = [name for name in columns if name not in REQUIRED + OPTIONAL + DECLARED]
    if unknown:
        hint = nearest(unknown[0], REQUIRED + OPTIONAL + DECLARED)
        raise UsageError(f"data.columns: '{unknown[0]}' is no column of ours{hint}")
    checked = False
    number = 0
    for number, row in raw_rows(path):
        if isinstance(row, RowError):
            yield number, row
            continue
        if not checked:
            check_columns(path, set(row), columns, needed)
            checked = True
        yield number, renamed(row, columns) | {name: row[name] for name in needed if name not in REQUIRED}
    if number == 0:
        raise UsageError(f"{path}: no rows below the header; add some")


def raw_rows(path: Path) -> Iterator[tuple[int, Cells | RowError]]:
    """(row number from 1, row) pairs under the file's own column names; `.gz` files are unpacked on the way.

    Raises `UsageError` for bytes that are not UTF-8 (or what a mark says) and a file that is not what its name says.
    """
    _check_format(path)
    number = 0
    try:
        for number, row in FORMATS[_suffix(path)](path):
            yield number, row
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except UnicodeError as error:
        raise UsageError(f"{path}: its byte-order mark is not true; save it as UTF-8") from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UsageError(f"{path}: damaged or cut short after row {number}; export it again") from error


def _check_format(path: Path) -> None:
    if _suffix(path) not in FORMATS:
        raise UsageError(f"{path}: a table is {', '.join(FORMATS)}, not '{path.suffix}'")


def _suffix(path: Path) -> str:
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def check_columns(path: Path, names: set[str], columns: Mapping[str, str], needed: Sequence[str] = REQUIRED) -> None:
    for name in needed:
        theirs = columns.get(name, name)
        if theirs not in names and not (name == "image" and columns.get("images", "images") in names):
            hint = nearest(theirs, sorted(names)) or f"; {listed(path, names)}"
            raise UsageError(f"{path}: no column '{theirs}'{hint}; rename it or set data.columns")


def listed(path: Path, names: Iterable[str]) -> str:
    """The columns of a file as a message may tell of them: without a header, those of a CSV are a patient's data."""
    known = sorted(map(str, names))
    if _suffix(path) in (".csv", ".tsv"):
        return f"its first line has {len(known)} columns; is it a header?"
    return f"the file has {', '.join(known[:12]) or 'none'}"


def renamed(row: Cells, columns: Mapping[str, str]) -> Cells:
    taken = set(columns.values())
    kept = {name: value for name, value in row.items() if name in REQUIRED + OPTIONAL + DECLARED and name not in taken}
    return kept | {ours: row.get(theirs) for ours, theirs in columns.items()}


def _csv(path: Path) -> Iterator[tuple[int, Cells | RowError]]:
    return csv_rows(path, "\t" if _suffix(path) == ".tsv" else ",")


def _jsonl(path: Path) -> Iterator[tuple[int, Cells | RowError]]:
    for number, (_, line) in enumerate(filled_lines(path), 1):
        try:
            row = parse_json(line)
        except ValueError as error:
            yield number, RowError("row", "unparsable_row", f"not valid JSON ({error})")
            continue
        yield number, row if isinstance(row, dict) else RowError("row", "unparsable_row", "not a JSON object")


def _json_rows(path: Path) -> Iterator[tuple[int, Cells | RowError]]:
    """A JSON file of rows, also one of an object a line, which some data sets name .json all the same."""
    with open_text(path) as file:
        first, _, rest = file.read(LINE).lstrip("\ufeff \t\r\n").partition("\n")
    lines = first.startswith("{") and first.rstrip().endswith("}") and rest.lstrip().startswith("{")
    return _jsonl(path) if lines else _json_array(path)


def _json_array(path: Path) -> Iterator[tuple[int, Cells | RowError]]:
    """The objects of an array, or of the arrays in an object, whose key then stands for the split where none is."""
    for number, (key, row) in enumerate(iter_json(path), 1):
        if not isinstance(row, dict):
            yield number, row if isinstance(row, RowError) else RowError("row", "unparsable_row", "not a JSON object")
        else:
            yield number, {"split": key} | row if key.lower() in SPLITS else row


def _parquet(path: Path) -> Iterator[tuple[int, Cells | RowError]]:
    yield from enumerate(parquet_rows(path), 1)


FORMATS = {".csv": _csv, ".tsv": _csv, ".json": _json_rows, ".jsonl": _jsonl, ".parquet": _parquet, ".xlsx": xlsx_rows}
"""How a table is read, by the end of its name (a `.gz` after it does not count)."""


def source_hash(options: DataOptions, *, exclude: Path) -> str:
    """Hash of the files that a source is read from, and of an own reader's code. `exclude` is a run folder,
    which may lie in the data's folder."""
    code = code_of(options.source)
    if code is not None:
        return key_of([file_hash(code), _content_hash(options, exclude)])
    return _content_hash(options, exclude)


def _content_hash(options: DataOptions, exclude: Path) -> str:
    if options.source in ELSEWHERE or not options.path:
        return ""
    path = Path(options.path).expanduser()
    images = Path(options.images).expanduser() if options.images else None
    if path.is_dir():
        return key_of([[_stamp(file) for file in _below(folder, exclude)] for folder in (path, images) if folder])
    return key_of([file_hash(path), sorted(_stamp(file) for file in set(_named(path, images or path.parent)))])


def _stamp(path: Path) -> list[Any]:
    try:
        stat = path.stat()
    except OSError:
        return [str(path)]
    return [str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _below(folder: Path, exclude: Path) -> Iterator[Path]:
    """Every file below a folder, in order; links to folders are followed once, other run folders left out."""
    seen = {exclude.resolve()}
    for here, folders, files in os.walk(folder, followlinks=True):
        real = Path(here).resolve()
        folders[:] = [] if real in seen or "run.json" in files else sorted(f for f in folders if not f.startswith("."))
        if real not in seen and "run.json" not in files:
            seen.add(real)
            yield from (Path(here) / name for name in sorted(files))


def _named(path: Path, base: Path) -> Iterator[Path]:
    """Every file that a cell of a table names, whatever its column is called."""
    try:
        for _, row in raw_rows(path):
            if not isinstance(row, RowError):
                for text in texts(row):
                    yield from _files_of(base, text)
    except Exception:  # whatever is wrong with the table, its reader will say
        return


def _files_of(base: Path, text: str) -> Iterator[Path]:
    """The file that a cell names, or those of the folder (a series) that it names."""
    try:
        if 0 < len(text) < LONGEST_NAME and (base / text).is_file():
            yield base / text
        elif 0 < len(text.strip("./")) < LONGEST_NAME and (base / text).is_dir():
            yield from (file for file in (base / text).iterdir() if file.is_file())
    except (OSError, ValueError):
        return
