"""Text of the outside world: bytes into characters, lines and JSON, and names into paths, with one kind of error each.

A line ends at a line feed (a carriage return before it goes with it) and nowhere else: U+0085, U+2028, a form feed and
the like are characters of a text. A file is UTF-8 unless a byte-order mark at its start says UTF-16 or UTF-32.
"""

from __future__ import annotations

import codecs
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LONGEST_NUMBER = 300
"""A whole number of more digits than this counts nothing that we know: it stays the text of its digits."""


def open_text(path: Path, newline: str | None = None) -> IO[str]:
    """A text file, packed by gzip (`.gz`) or plain, in the encoding that its mark says; `newline` as of `open`.

    Reading it raises `UnicodeDecodeError` where the bytes are not of that encoding.
    """
    opened: Any = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rb") as file:
        start = file.read(4)
    encoding = next((name for mark, name in MARKS if start.startswith(mark)), "utf-8")
    text: IO[str] = opened(path, "rt", encoding=encoding, newline=newline)
    return text


def read_text(path: Path) -> str:
    """The whole of a text file; `UnicodeDecodeError` as in `open_text`."""
    with open_text(path, newline="") as file:
        return file.read()


def filled_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) of a JSONL file, blank lines left out."""
    with open_text(path, newline="\n") as file:
        for number, line in enumerate(file, 1):
            if line.strip("\ufeff \t\r\n"):
                yield number, line.strip("\ufeff \t\r\n")


def whole_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects of a JSONL file that a killed process or a bad disk may have cut short or damaged, and how many
    lines are none. No file: no lines."""
    if not path.is_file():
        return [], 0
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    rows = [row for row in map(_object, lines) if row is not None]
    return rows, len(lines) - len(rows)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = parse_json(line.decode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises `ValueError` for anything else, one nested too deeply included."""
    try:
        return DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= LONGEST_NUMBER else digits


DECODER = json.JSONDecoder(parse_int=_whole)


def damage(text: str) -> str:
    """What a text holds that no text has, in words: a NUL, or half a character. "" for a whole text."""
    if "\0" in text:
        return "a NUL character"
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        return "half a character (a lone surrogate)"
    return ""


def user_path(text: str) -> Path:
    """A path as a user writes it: `~` is the home folder, where there is one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~name of nobody
        return Path(text)


def is_file(path: Path) -> bool:
    """Whether a file is there; False also for what cannot be a name: too long, or with a NUL in it."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
