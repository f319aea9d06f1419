"""Rows of a CSV, TSV, JSON, JSONL or Parquet file, streamed, under our column names; and cells into values."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clinalign.data.csv_rows import csv_rows
from clinalign.data.json_items import iter_json
from clinalign.data.parquet import Unread, parquet_rows
from clinalign.errors import RowError, UsageError, nearest
from clinalign.storage import damage, filled_lines, is_file, open_text, parse_json

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
LINE = 1 << 16
"""Characters in which the first line of a JSON file has to end for the file to be one of an object a line."""
SPLITS = {
    "train": "align",
    "training": "align",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "validate": "dev",
    "development": "dev",
    "tuning": "dev",
    "align": "align",
    "dev": "dev",
    "test": "test",
    "testing": "test",
}
Row = dict[str, Any]
DEEPEST = 20
LONGEST_TEXT = 100_000
"""Characters of a cell: the longest report has a tenth of it."""
ImageCell = str | bytes
"""A path, or the bytes of an image file that stands inside the table."""


def iter_rows(
    path: Path, columns: Mapping[str, str], needed: Sequence[str] = REQUIRED
) -> Iterator[tuple[int, Row | RowError]]:
    """(row number from 1, row) pairs; a row that cannot be parsed comes as the `RowError` that says why.

    `columns` maps our name to the file's. Raises `UsageError` for a missing or empty file, an unknown format, bytes
    that are not UTF-8, and a `needed` column that is not there (nearest name offered).
    """
    _check_format(path)
    if not is_file(path):
        raise UsageError(f"{path}: no such file; check data.path")
    if not path.stat().st_size:
        raise UsageError(f"{path}: the file is empty; it needs the columns {', '.join(needed)}")
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
            check_columns(path, set(row), columns, needed)
            checked = True
        yield number, renamed(row, columns) | {name: row[name] for name in needed if name not in REQUIRED}
    if number == 0:
        raise UsageError(f"{path}: no rows below the header; add some")


def raw_rows(path: Path) -> Iterator[tuple[int, Row | RowError]]:
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


def described(value: Any) -> str:
    """A cell as a message may tell of it. It is never quoted: a cell out of place may be a patient's name."""
    if isinstance(value, str):
        return f"a text of {len(value)} characters"
    if isinstance(value, Unread):
        return f"an unreadable {value.kind}"
    if isinstance(value, list | tuple | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def text(row: Row, name: str, *, required: bool = False) -> str:
    """A cell as stripped text; a number becomes its text, a missing cell the empty string."""
    value = row.get(name)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        value = ""
    if not isinstance(value, str | int | float | bool):
        raise RowError(name, f"bad_{name}", f"expected text, got {described(value)}")
    out = ("yes" if value else "no") if isinstance(value, bool) else str(value).strip().strip("\ufeff").strip()
    if len(out) > LONGEST_TEXT:
        raise RowError(name, f"bad_{name}", f"{described(out)}, more than {LONGEST_TEXT}; is it the right column?")
    if broken := damage(out):
        raise RowError(name, f"bad_{name}", f"holds {broken}; export the table as UTF-8")
    if required and not out:
        raise RowError(name, f"empty_{name}", "fill the cell or delete the row")
    return out


def plain(value: Any, name: str, depth: int = 0) -> Any:
    """A cell of any type as JSON can hold it: dates and the like as text, NaN and infinity as null.

    Raises `RowError` for text that is damaged, for bytes, and for what is nested too deeply.
    """
    if isinstance(value, str):
        return text({name: value}, name) if damage(value) else value
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Unread | bytes) or depth > DEEPEST:
        raise RowError(name, f"bad_{name}", f"cannot be kept: {described(value)}, {depth} levels deep")
    if isinstance(value, Mapping):
        return {plain(str(key), name): plain(below, name, depth + 1) for key, below in value.items()}
    if isinstance(value, Iterable):
        return [plain(below, name, depth + 1) for below in value]
    return plain(str(value), name)


def choice(row: Row, name: str, known: Mapping[str, str]) -> str:
    """A cell that holds one of some words, or nothing."""
    value = text(row, name).lower()
    if value and value not in known:
        detail = f"{described(value)} is none of {', '.join(known)}{nearest(value[:40], known)}"
        raise RowError(name, f"unknown_{name}", detail)
    return known[value] if value else ""


def paths(row: Row) -> list[ImageCell]:
    """The image cells: `image` is one path; `images` a list, a JSON list, or paths joined by ';'. Empty: text only.

    A cell may also hold the image itself, as hub data sets do: {"bytes": ..., "path": ...}.
    """
    many = row.get("images")
    if isinstance(many, str) and many.strip():
        many = _json(many, "images") if many.strip().startswith("[") else [part.strip() for part in many.split(";")]
    one = row.get("image")
    if many:
        if not isinstance(many, list):
            raise RowError("images", "bad_images", "expected a list of paths")
        if one not in (None, "") and one not in many:
            raise RowError("image", "bad_image", "is not among the row's images; fill one of the two cells")
        return [_image_cell(part, "images") for part in many]
    if isinstance(one, Mapping | bytes):
        return [_image_cell(one, "image")]
    path = text(row, "image")
    return [path] if path else []


def _image_cell(value: Any, name: str) -> ImageCell:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if not isinstance(value, str | bytes) or not value:
        raise RowError(name, f"bad_{name}", "expected a path, or an image as {bytes, path}")
    return text({name: value}, name, required=True) if isinstance(value, str) else value


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
    except (TypeError, ValueError, OverflowError):
        numbers = []
    if len(numbers) != 4 or not all(math.isfinite(number) for number in numbers):
        raise RowError("box", "unparsable_box", "a box is four numbers x, y, w, h in pixels, such as 10,20,30,40")
    return numbers


def check_box(box: list[float], height: int, width: int) -> None:
    """Raises `RowError` unless the box has an area and lies inside an image of that size."""
    x, y, w, h = box
    if w <= 0 or h <= 0:
        raise RowError("box", "empty_box", "width and height must be above 0 (x, y, w, h)")
    if max(x + w, y + h) <= 1 and min(width, height) > 1:
        raise RowError("box", "box_not_in_pixels", "the numbers look like shares of the image; multiply by its size")
    if x < 0 or y < 0 or x + w > width or y + h > height:
        detail = f"x, y, w, h does not lie in the image of {width}x{height}; are the last two a corner, not a size?"
        raise RowError("box", "box_outside_image", detail)


def slots(row: Row) -> Row:
    """The `slots` cell as a dict: already one, or JSON text."""
    value = row.get("slots")
    if isinstance(value, str) and value.strip():
        value = _json(value, "slots")
    if isinstance(value, float) and math.isnan(value):
        value = None
    if value and not isinstance(value, dict):
        raise RowError("slots", "bad_slots", 'expected a JSON object such as {"side": "left"}')
    return dict(plain(value, "slots")) if value else {}


def whole_number(row: Row, name: str, default: int) -> int:
    """A cell that holds a count from 0 up, or nothing."""
    value = text(row, name)
    if not value:
        return default
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < 2**53 or number != int(number):
        raise RowError(name, f"bad_{name}", f"{described(value)} is not a whole number from 0 up")
    return int(number)


def _json(value: str, name: str) -> Any:
    try:
        return parse_json(value)
    except ValueError as error:
        raise RowError(name, f"bad_{name}", f"not valid JSON ({error})") from error


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


def renamed(row: Row, columns: Mapping[str, str]) -> Row:
    taken = set(columns.values())
    kept = {name: value for name, value in row.items() if name in REQUIRED + OPTIONAL + META and name not in taken}
    return kept | {ours: row.get(theirs) for ours, theirs in columns.items()}


def _csv(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    return csv_rows(path, "\t" if _suffix(path) == ".tsv" else ",")


def _jsonl(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    for number, (_, line) in enumerate(filled_lines(path), 1):
        try:
            row = parse_json(line)
        except ValueError as error:
            yield number, RowError("row", "unparsable_row", f"not valid JSON ({error})")
            continue
        yield number, row if isinstance(row, dict) else RowError("row", "unparsable_row", "not a JSON object")


def _json_rows(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    """A JSON file of rows, also one of an object a line, which some data sets name .json all the same."""
    with open_text(path) as file:
        first, _, rest = file.read(LINE).lstrip("\ufeff \t\r\n").partition("\n")
    lines = first.startswith("{") and first.rstrip().endswith("}") and rest.lstrip().startswith("{")
    return _jsonl(path) if lines else _json_array(path)


def _json_array(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    """The objects of an array, or of the arrays in an object, whose key then stands for the split where none is."""
    for number, (key, row) in enumerate(iter_json(path), 1):
        if not isinstance(row, dict):
            yield number, row if isinstance(row, RowError) else RowError("row", "unparsable_row", "not a JSON object")
        else:
            yield number, {"split": key} | row if key.lower() in SPLITS else row


def _parquet(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    yield from enumerate(parquet_rows(path), 1)


FORMATS = {".csv": _csv, ".tsv": _csv, ".json": _json_rows, ".jsonl": _jsonl, ".parquet": _parquet}
"""How a table is read, by the end of its name (a `.gz` after it does not count)."""
