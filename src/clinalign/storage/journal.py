"""What a long stage has finished so far."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clinalign.progress import say
from clinalign.storage.atomic import atomic, set_aside
from clinalign.storage.tables import from_row, to_row


class Journal:
    """Rows that a long stage has finished so far, each under the key it was made with, so that a killed stage goes on
    where it was.

    The stage asks for a row by the key that it would have now (`get`). A row of other settings, other weights or other
    content has another key, is never found, and is made anew. A line is `CRC32 JSON`: one cut short by the kill is
    dropped; a damaged file is set aside, and its whole lines are kept. Once its table is written the stage closes the
    journal: it is removed, or keeps the rows that the table was made of, for the next time that the stage runs.
    """

    def __init__(self, path: Path, kind: type[Any]) -> None:
        self.path = path
        self.rows: dict[str, Any] = {}
        self._used: set[str] = set()
        lines = self._read(kind)
        self.before = frozenset(self.rows)
        """Keys of the rows that were there when it was opened."""
        if lines is None:
            path.parent.mkdir(parents=True, exist_ok=True)
        else:  # without what cannot be used
            with atomic(path) as temporary:
                temporary.write_bytes(b"".join(lines))
        self._file = path.open("ab")

    def _read(self, kind: type[Any]) -> list[bytes] | None:
        """The whole lines of the file; None where there is none."""
        if self.path.is_dir():
            set_aside(self.path, "a folder where a journal belongs")
        if not self.path.is_file():
            return None
        *lines, torn = self.path.read_bytes().split(b"\n")
        whole = []
        for line in lines:
            found = _parsed(line, kind)
            if found is not None:
                self.rows[found[0]] = found[1]
                whole.append(line + b"\n")
        if len(whole) < len(lines):
            set_aside(self.path, f"{len(lines) - len(whole)} of {len(lines)} rows are damaged", copy=True)
        return whole

    def get(self, key: str) -> Any | None:
        """The row made under this very key, if there is one."""
        self._used.add(key)
        return self.rows.get(key)

    def add(self, records: Mapping[str, Any]) -> None:
        """Appends rows by their keys and hands them to the system: what is added outlives a killed process."""
        for key, record in records.items():
            self.rows[key] = record
            self._used.add(key)
            self._file.write(_line(key, record))
        self._file.flush()

    def close(self, label: str = "", *, remove: bool = True) -> None:
        """Closes the journal and removes it. With a `label`, of a stage that is done, says what became of the rows it
        began with, and where it is not removed keeps those that were asked for."""
        self._file.close()
        if label and self.before:
            kept = len(self.before & self._used)
            say(f"{label}: {kept} rows kept from before, {len(self.before) - kept} of other keys made anew")
        if remove:
            self.path.unlink(missing_ok=True)
        elif label and self.rows.keys() - self._used:
            with atomic(self.path) as temporary:
                temporary.write_bytes(b"".join(_line(k, row) for k, row in self.rows.items() if k in self._used))


def _line(key: str, record: Any) -> bytes:
    text = json.dumps({"key": key, "row": to_row(record)}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parsed(line: bytes, kind: type[Any]) -> tuple[str, Any] | None:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    found = json.loads(text.decode("utf-8", "surrogatepass"))
    try:
        return found["key"], from_row(found["row"], kind)
    except TypeError:  # a row of another version's columns
        return None
