"""Files of rows, streamed: CSV and TSV, JSON arrays, Parquet.

A stray quote in a CSV costs its line and not those after it; the items of a large JSON file come one after the other
without holding the file in memory; a Parquet value that Python cannot hold costs its row, and only where its column is
used.
"""

from __future__ import annotations

import csv
import json
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from clinalign.errors import RowError, UsageError
from clinalign.storage.text import DECODER, open_text

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


CHUNK = 1 << 16
LONGEST_ITEM = 1 << 26
"""Characters of one item."""
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.?)*(?:"|\Z)|[\[\]{}]', re.DOTALL)
"""A string, which may be cut off at the end of the window, or a bracket."""


def iter_json(path: Path) -> Iterator[tuple[str, Any]]:
    """("", item) for the items of an array; (key, item) for the items of the arrays in an object. What else an object
    holds comes as (key, value). An item that is nested too deeply comes as the `RowError` that says so.

    Raises `UsageError` for a file that is not JSON, after the items before the error.
    """
    with open_text(path) as file:
        scanner = _Scanner(path, file)
        if scanner.peek() == "[":
            yield from (("", item) for item in scanner.array())
        elif scanner.peek() == "{":
            yield from scanner.members()
        else:
            raise UsageError(f"{path}: a JSON file of rows is an array or an object of arrays")
        if scanner.peek():
            raise UsageError(f"{path}: text after the end of the JSON; a file of one object a line is named .jsonl")


class _Scanner:
    """A window on the text that grows until the value at hand is whole, and forgets what is behind it."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self.path, self.file = path, file
        self.text, self.at, self.items = "", 0, 0

    def members(self) -> Iterator[tuple[str, Any]]:
        self._take("{")
        while self.peek() != "}":
            key = str(self.value())
            self._take(":")
            if self.peek() == "[":
                yield from ((key, item) for item in self.array())
            else:
                yield key, self.value()
            self._comma("}")
        self._take("}")

    def array(self) -> Iterator[Any]:
        self._take("[")
        while self.peek() != "]":
            yield self.value()
            self.items += 1
            self._comma("]")
        self._take("]")

    def value(self) -> Any:
        self.peek()
        size = CHUNK
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
                if end < len(self.text) or not self._more(size):  # a number may go on in what is not read yet
                    self.at = end
                    return value
            except json.JSONDecodeError as error:
                if len(self.text) > LONGEST_ITEM:
                    raise self._broken(f"an item of more than {LONGEST_ITEM} characters") from error
                if not self._more(size):
                    raise self._broken(error.msg) from error
            except RecursionError:
                return self._passed_over()
            size *= 2

    def _passed_over(self) -> RowError:
        """Skips the value at hand by its brackets alone."""
        depth = 0
        while True:
            for mark in _BRACKETS.finditer(self.text, self.at):
                if mark[0][0] == '"' and mark.end() == len(self.text):
                    break
                depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(mark[0], 0)
                self.at = mark.end()
                if depth == 0:
                    return RowError("row", "unparsable_row", "nested too deeply")
            if len(self.text) - self.at > LONGEST_ITEM or not self._more(CHUNK):
                raise self._broken("a value that is nested too deeply does not end")

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n\ufeff":
                self.at += 1
            if self.at < len(self.text) or not self._more(CHUNK):
                return self.text[self.at : self.at + 1]

    def _more(self, size: int) -> bool:
        chunk = self.file.read(size)
        self.text, self.at = self.text[self.at :] + chunk, 0
        return bool(chunk)

    def _take(self, mark: str) -> None:
        if self.peek() != mark:
            raise self._broken(f"'{mark}' expected")
        self.at += 1

    def _comma(self, end: str) -> None:
        if self.peek() == ",":
            self.at += 1
            if self.peek() == end:
                raise self._broken("a comma before the end")
        elif self.peek() != end:
            raise self._broken("',' expected")

    def _broken(self, why: str) -> UsageError:
        return UsageError(f"{self.path}: not valid JSON after {self.items} items ({why}); export it again")


BATCH = 1024


class Unread(NamedTuple):
    """Stands for a cell that could not be turned into a Python value; `kind` is the column's type."""

    kind: str


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows in order. Raises `UsageError` for a file that is no Parquet, or is damaged further on."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        table = pq.ParquetFile(path)
        names = table.schema_arrow.names
        if len(set(names)) < len(names):
            raise UsageError(f"{path}: two columns have one name; rename one")
        for batch in table.iter_batches(batch_size=BATCH):
            columns = {name: _values(column) for name, column in zip(names, batch.columns)}
            for index in range(batch.num_rows):
                number += 1
                yield {name: values[index] for name, values in columns.items()}
    except (pa.ArrowException, OSError, EOFError, ValueError, RecursionError, MemoryError) as error:
        where = f"damaged after row {number}" if number else "not a Parquet file"
        raise UsageError(f"{path}: {where} ({type(error).__name__}); export it again") from error


def _values(column: Any) -> list[Any]:
    try:
        return list(column.to_pylist())
    except Exception:  # dates beyond Python's, nanoseconds, text that is not UTF-8: each type raises its own
        return [_value(cell) for cell in column]


def _value(cell: Any) -> Any:
    try:
        return cell.as_py()
    except Exception:
        return Unread(str(cell.type))
