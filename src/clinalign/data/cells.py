"""Cells of a row into values, and the border around every row.

Whatever a cell makes the code stumble over costs its row, in words without the cell: it may be a patient's name.
"""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from clinalign.data.parsers import Unread
from clinalign.errors import RowError, UsageError, nearest
from clinalign.storage import damage, parse_json

T = TypeVar("T")
Cells = dict[str, Any]
"""A row under our column names, before it is parsed."""
ImageCell = str | bytes
"""A path, or the bytes of an image file that stands inside the table."""
TASKS = ("closed", "open", "report")
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
DEEPEST = 20
LONGEST_TEXT = 100_000
"""Characters of a cell: the longest report has a tenth of it."""
PRIORS = ("conflicting", "aligned", "neutral")
OURS = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.EIO)
"""Errors of the machine, not of a row."""
QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|\u2018[^\u2019]*\u2019|\b\d{4,}\b")
LONGEST = 160


def described(value: Any) -> str:
    """A cell as a message may tell of it. It is never quoted: a cell out of place may be a patient's name."""
    if isinstance(value, str):
        return f"a text of {len(value)} characters"
    if isinstance(value, Unread):
        return f"an unreadable {value.kind}"
    if isinstance(value, list | tuple | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def text(row: Cells, name: str, *, required: bool = False) -> str:
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


def choice(row: Cells, name: str, known: Mapping[str, str]) -> str:
    """A cell that holds one of some words, or nothing."""
    value = text(row, name).lower()
    if value and value not in known:
        detail = f"{described(value)} is none of {', '.join(known)}{nearest(value[:40], known)}"
        raise RowError(name, f"unknown_{name}", detail)
    return known[value] if value else ""


def paths(row: Cells) -> list[ImageCell]:
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


def label_value(row: Cells) -> int | None:
    """Which number in a mask counts as inside; None: every one but zero."""
    return whole_number(row, "mask_value", 0) if text(row, "mask_value") else None


def box(row: Cells) -> list[float] | None:
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


def slots(row: Cells) -> Cells:
    """The `slots` cell as a dict: already one, or JSON text."""
    value = row.get("slots")
    if isinstance(value, str) and value.strip():
        value = _json(value, "slots")
    if isinstance(value, float) and math.isnan(value):
        value = None
    if value and not isinstance(value, dict):
        raise RowError("slots", "bad_slots", 'expected a JSON object such as {"side": "left"}')
    return dict(plain(value, "slots")) if value else {}


def whole_number(row: Cells, name: str, default: int) -> int:
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


def guarded(make: Callable[[], T], row: Any = None) -> T | RowError:
    """What `make` gives; a `RowError` it raises, as a value; any other error as one with the reason `unexpected`.

    `UsageError` and errors of the machine (a full disk) pass.
    """
    try:
        return make()
    except RowError as error:
        return error
    except UsageError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in OURS:
            raise
        return RowError("row", "unexpected", f"{type(error).__name__}: {_words(error, row)}")


def _words(error: Exception, row: Any) -> str:
    """An error's own words, without what may be a cell: quoted parts, long numbers, and the row's own texts."""
    words = " ".join(str(error).split())
    for text in sorted(_texts(row), key=len, reverse=True):
        words = words.replace(text, f"[{described(text)}]")
    return QUOTED.sub(lambda found: f"[{described(found[0].strip(chr(39) + chr(34)))}]", words)[:LONGEST]


def _texts(row: Any) -> list[str]:
    values = row.values() if isinstance(row, dict) else []
    return [" ".join(value.split()) for value in values if isinstance(value, str) and len(value.strip()) > 2]
