"""Rows of a CSV, TSV, JSON, JSONL or Parquet file, streamed, under our column names; and cells into values."""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from clinalign.data.json_items import iter_json
from clinalign.errors import RowError, UsageError, nearest

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
META = ("finding", "slot", "kind", "prior", "full", "slots", "twin", "rejected")
TASKS = ("closed", "open", "report")
SPLITS = {
    "train": "align",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "validate": "dev",
    "align": "align",
    "dev": "dev",
    "test": "test",
}
Row = dict[str, Any]
ImageCell = str | bytes
"""A path, or the bytes of an image file that stands inside the table."""


def iter_rows(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[int, Row | RowError]]:
    """(row number from 1, row) pairs; a row that cannot be parsed comes as the `RowError` that says why.

    `columns` maps our name to the file's. Raises `UsageError` for a missing or empty file, an unknown format, bytes
    that are not UTF-8, and a required column that is not there (nearest name offered).
    """
    _check_format(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file; check data.path")
    if not path.stat().st_size:
        raise UsageError(f"{path}: the file is empty; it needs the columns {', '.join(REQUIRED)}")
    unknown = [name for name in columns if name not in REQUIRED + OPTIONAL + META]
    if unknown:
        hint = nearest(unknown[0], REQUIRED + OPTIONAL + META)
        raise UsageError(f"data.columns: '{unknown[0]}' is no column of ours{hint}")
    checked = False
    number = 0
    for number, row in raw_rows(path):
        if isinstance(row, RowError):
            yield number, row
            continue
        if not checked:
            check_columns(path, set(row), columns)
            checked = True
        yield number, renamed(row, columns)
    if number == 0:
        raise UsageError(f"{path}: no rows below the header; add some")


def raw_rows(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    """(row number from 1, row) pairs under the file's own column names; `.gz` files are unpacked on the way.

    Raises `UsageError` for bytes that are not UTF-8 and a file that is not what its name says.
    """
    _check_format(path)
    number = 0
    try:
        for number, row in FORMATS[_suffix(path)](path):
            yield number, row
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise UsageError(f"{path}: not a CSV file after row {number} ({error}); export it again") from error
    except (gzip.BadGzipFile, EOFError) as error:
        raise UsageError(f"{path}: damaged or cut short after row {number}; export it again") from error


def _check_format(path: Path) -> None:
    if _suffix(path) not in FORMATS:
        raise UsageError(f"{path}: a table is {', '.join(FORMATS)}, not '{path.suffix}'")


def _suffix(path: Path) -> str:
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def open_text(path: Path, newline: str | None = None) -> IO[str]:
    """A text file in UTF-8, with or without a mark, packed by gzip or plain."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline=newline)
    return path.open(encoding="utf-8-sig", newline=newline)


def text(row: Row, name: str, *, required: bool = False) -> str:
    """A cell as stripped text; a number becomes its text, a missing cell the empty string."""
    value = row.get(name)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        value = ""
    if not isinstance(value, str | int | float | bool):
        raise RowError(name, f"bad_{name}", f"expected text, got {type(value).__name__}")
    out = ("yes" if value else "no") if isinstance(value, bool) else str(value).strip()
    if any("\ud800" <= letter <= "\udfff" for letter in out):
        raise RowError(name, f"bad_{name}", "holds half a character (a lone surrogate); export the table as UTF-8")
    if required and not out:
        raise RowError(name, f"empty_{name}", "fill the cell or delete the row")
    return out


def choice(row: Row, name: str, known: Mapping[str, str]) -> str:
    """A cell that holds one of some words, or nothing."""
    value = text(row, name).lower()
    if value and value not in known:
        raise RowError(name, f"unknown_{name}", f"'{value}' is none of {', '.join(known)}{nearest(value, known)}")
    return known[value] if value else ""


def paths(row: Row) -> list[ImageCell]:
    """The image cells: `image` is one path; `images` a list, a JSON list, or paths joined by ';'. Empty: text only.

    A cell may also hold the image itself, as hub data sets do: {"bytes": ..., "path": ...}.
    """
    many = row.get("images")
    if isinstance(many, str) and many.strip():
        many = _json(many, "images") if many.strip().startswith("[") else [part.strip() for part in many.split(";")]
    if many:
        if not isinstance(many, list):
            raise RowError("images", "bad_images", "expected a list of paths")
        return [_image_cell(part, "images") for part in many]
    one = row.get("image")
    if isinstance(one, Mapping | bytes):
        return [_image_cell(one, "image")]
    path = text(row, "image")
    return [path] if path else []


def _image_cell(value: Any, name: str) -> ImageCell:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if not isinstance(value, str | bytes) or not value:
        raise RowError(name, f"bad_{name}", "expected a path, or an image as {bytes, path}")
    return value


def label_value(row: Row) -> int | None:
    """Which number in a mask counts as inside; None: every one but zero."""
    return whole_number(row, "mask_value", 0) if text(row, "mask_value") else None


def box(row: Row) -> list[float] | None:
    """Four numbers x, y, w, h in pixels, as a list or as text with commas or spaces; an empty cell is None."""
    value = row.get("box")
    if value is None or value == "" or value == [] or (isinstance(value, float) and math.isnan(value)):
        return None
    parts = value.strip("[]() ").replace(",", " ").split() if isinstance(value, str) else value
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 4 or not all(math.isfinite(number) for number in numbers):
        raise RowError("box", "unparsable_box", "a box is four numbers x, y, w, h in pixels, such as 10,20,30,40")
    return numbers


def check_box(box: list[float], height: int, width: int) -> None:
    """Raises `RowError` unless the box has an area and lies inside an image of that size."""
    x, y, w, h = box
    if w <= 0 or h <= 0:
        raise RowError("box", "empty_box", f"width {w:g} and height {h:g}; both must be above 0 (x, y, w, h)")
    if max(x + w, y + h) <= 1 and min(width, height) > 1:
        raise RowError("box", "box_not_in_pixels", "the numbers look like shares of the image; multiply by its size")
    if x < 0 or y < 0 or x + w > width or y + h > height:
        raise RowError(
            "box", "box_outside_image", f"x {x:g}, y {y:g}, w {w:g}, h {h:g} in an image of {width}x{height}"
        )


def slots(row: Row) -> Row:
    """The `slots` cell as a dict: already one, or JSON text."""
    value = row.get("slots")
    if isinstance(value, str) and value.strip():
        value = _json(value, "slots")
    if value and not isinstance(value, dict):
        raise RowError("slots", "bad_slots", 'expected a JSON object such as {"side": "left"}')
    return dict(value) if value else {}


def whole_number(row: Row, name: str, default: int) -> int:
    """A cell that holds a count from 0 up, or nothing."""
    value = text(row, name)
    if not value:
        return default
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if number < 0 or number != int(number):
        raise RowError(name, f"bad_{name}", f"'{value}' is not a whole number from 0 up")
    return int(number)


def _json(value: str, name: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise RowError(name, f"bad_{name}", f"not valid JSON ({error})") from error


def check_columns(path: Path, names: set[str], columns: Mapping[str, str]) -> None:
    for name in REQUIRED:
        theirs = columns.get(name, name)
        if theirs not in names and not (name == "image" and columns.get("images", "images") in names):
            hint = nearest(theirs, sorted(names)) or f"; the file has {', '.join(sorted(names))}"
            raise UsageError(f"{path}: no column '{theirs}'{hint}; rename it or set data.columns")


def renamed(row: Row, columns: Mapping[str, str]) -> Row:
    taken = set(columns.values())
    kept = {name: value for name, value in row.items() if name in REQUIRED + OPTIONAL + META and name not in taken}
    return kept | {ours: row.get(theirs) for ours, theirs in columns.items()}


def _csv(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    csv.field_size_limit(2**31 - 1)
    with open_text(path, newline="") as file:
        lines = csv.DictReader(file, delimiter="\t" if _suffix(path) == ".tsv" else ",", restkey="", strict=True)
        header = lines.fieldnames or []
        if len(set(header)) < len(header):
            raise UsageError(f"{path}: two columns have one name; rename one")
        for number, row in enumerate(lines, 1):
            if "" in row and isinstance(row[""], list) or None in row.values():
                yield (
                    number,
                    RowError("row", "wrong_cell_count", f"{len(header)} cells expected; quote cells with commas"),
                )
            else:
                yield number, dict(row)
        if not header:
            raise UsageError(f"{path}: no header line")


def _jsonl(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    with open_text(path) as file:
        for number, line in enumerate((line for line in file if line.strip()), 1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                yield number, RowError("row", "unparsable_row", f"not valid JSON ({error})")
                continue
            yield number, row if isinstance(row, dict) else RowError("row", "unparsable_row", "not a JSON object")


def _json_array(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    """The objects of an array, or of the arrays in an object, whose key then stands for the split where none is."""
    for number, (key, row) in enumerate(iter_json(path), 1):
        if not isinstance(row, dict):
            yield number, RowError("row", "unparsable_row", "not a JSON object")
        else:
            yield number, {"split": key} | row if key.lower() in SPLITS else row


def _parquet(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(f"{path}: not a Parquet file ({error}); export it again") from error
    number = 0
    for batch in table.iter_batches(batch_size=1024):
        for row in batch.to_pylist():
            number += 1
            yield number, row


FORMATS = {".csv": _csv, ".tsv": _csv, ".json": _json_array, ".jsonl": _jsonl, ".parquet": _parquet}
"""How a table is read, by the end of its name (a `.gz` after it does not count)."""
