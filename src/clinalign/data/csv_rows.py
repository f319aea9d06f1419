"""Rows of a CSV or TSV file, strict in what a quote may be: a stray one costs its line and not those after it."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from clinalign.errors import RowError, UsageError
from clinalign.storage import open_text

LONGEST_CELL = 1 << 24
"""Characters. A quote that is never closed swallows no more than this before it is given up."""
DELIMITERS = (",", ";", "\t")
QUOTED = re.compile(r'"[^"]*"')


class _Lines:
    """The lines of a file, with those handed out since `mark` at hand, to be given back."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self.waiting: deque[str] = deque()
        self.given: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.waiting.popleft() if self.waiting else next(self.file)
        self.given.append(line)
        return line

    def mark(self) -> None:
        self.given = []

    def back(self) -> None:
        """Gives back all lines since the mark but the first."""
        self.waiting.extendleft(reversed(self.given[1:]))


def csv_rows(path: Path, usual: str) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    """(row number from 1, row) pairs. Cells are parted by what parts the header into most of them: a comma, a semicolon
    or a tab, the `usual` one of equals. Raises `UsageError` for a header that is none."""
    csv.field_size_limit(LONGEST_CELL)
    with open_text(path, newline="") as file:
        lines = _Lines(file)
        delimiter = _delimiter(lines, usual)
        header = _header(path, lines, delimiter)
        number = 0
        while (cells := _cells(lines, delimiter)) is not None:
            if not cells:  # an empty line
                continue
            number += 1
            if isinstance(cells, RowError):
                yield number, cells
            elif len(cells) != len(header):
                named = {",": "commas", ";": "semicolons", "\t": "tabs"}[delimiter]
                detail = f"{len(header)} cells expected, there are {len(cells)}; quote cells with {named}"
                yield number, RowError("row", "wrong_cell_count", detail)
            else:
                yield number, dict(zip(header, cells))


def _delimiter(lines: _Lines, usual: str) -> str:
    """What parts the cells of the first line that is not empty; Excel's own note of it (sep=;) is passed over."""
    for line in lines:
        text = line.strip("\ufeff\r\n")
        if text.lower().startswith("sep=") and len(text) == 5 and text[4] in DELIMITERS:
            return text[4]
        if text.strip():
            lines.waiting.appendleft(line)
            bare = QUOTED.sub("", text)
            return max((usual, *DELIMITERS), key=bare.count)
    return usual


def _header(path: Path, lines: _Lines, delimiter: str) -> list[str]:
    found: list[str] | RowError | None = []
    while found == []:
        found = _cells(lines, delimiter)
    if isinstance(found, RowError):
        raise UsageError(f"{path}: not a CSV file: its header {found.detail}; export it again")
    header = [name.strip("\ufeff") for name in found or []]
    if not header:
        raise UsageError(f"{path}: no header line")
    if any("\0" in name for name in header):
        raise UsageError(f"{path}: the header holds NUL characters (UTF-16 without its mark?); save it as UTF-8")
    if len(set(header)) < len(header):
        raise UsageError(f"{path}: two columns have one name; rename one")
    return header


def _cells(lines: _Lines, delimiter: str) -> list[str] | RowError | None:
    """The cells of the next row, none at an empty line; None at the end."""
    lines.mark()
    try:
        return next(csv.reader(lines, delimiter=delimiter, strict=True))
    except StopIteration:
        return None
    except csv.Error as error:
        lines.back()
        return RowError("row", "unparsable_row", f"cannot be parsed ({error}); quote cells, and double quotes in them")
