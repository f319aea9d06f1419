"""What a long stage has finished so far."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clinalign.storage.tables import from_row, to_row


class Journal:
    """Rows a long stage has finished so far, one JSON line each, so that a killed stage goes on where it was.

    A line cut short by the kill is dropped. `key` names the fields that identify a row. The stage removes the journal
    (`close`) once its table is written.
    """

    def __init__(self, path: Path, kind: type[Any], key: tuple[str, ...]) -> None:
        self.path, self.key = path, key
        self.rows: dict[tuple[Any, ...], Any] = {}
        whole = 0
        if path.is_file():
            for line in path.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break
                record = from_row(json.loads(line), kind)
                self.rows[tuple(getattr(record, name) for name in key)] = record
                whole += len(line)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._file.truncate(whole)

    def __contains__(self, key: tuple[Any, ...]) -> bool:
        return key in self.rows

    def add(self, records: Iterable[Any]) -> None:
        """Appends the records and flushes them to disk."""
        for record in records:
            self.rows[tuple(getattr(record, name) for name in self.key)] = record
            self._file.write(json.dumps(to_row(record), ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def close(self, *, remove: bool = True) -> None:
        """Closes the journal and, by default, removes it."""
        self._file.close()
        if remove:
            self.path.unlink(missing_ok=True)
