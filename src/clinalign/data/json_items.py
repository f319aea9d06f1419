"""The items of a large JSON file one after the other, without holding the file in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from clinalign.errors import RowError, UsageError
from clinalign.storage.text import DECODER, open_text

CHUNK = 1 << 16
LONGEST_ITEM = 1 << 26
"""Characters of one item."""
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.?)*(?:"|\Z)|[\[\]{}]', re.DOTALL)
"""A string, which may be cut off at the end of the window, or a bracket."""


def iter_json(path: Path) -> Iterator[tuple[str, Any]]:
    """("", item) for the items of an array; (key, item) for the items of the arrays in an object. What else an object
    holds comes as (key, value). An item that is nested too deeply comes as the `RowError` that says so.

    Raises `UsageError` for a file that is not JSON, after the items before the fault.
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
