"""What was left out, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clinalign.storage.atomic import set_aside, write_text
from clinalign.storage.keys import key_of
from clinalign.storage.text import whole_lines

FIELDS = {"stage": str, "file": str, "row": int | None, "id": str, "field": str, "reason": str, "detail": str}


class Quarantine:
    """`quarantine.jsonl`: every record that was left out, with stage, file, row, field, reason and remedy.

    Rows are held in memory per stage and written at `flush`, which replaces that stage's earlier rows: a stage that
    runs again after a kill does not report a record twice. A damaged file is set aside; its whole rows are kept, and
    the stages whose rows are no longer what they wrote (`key`) are run again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.missing: list[str] = []
        """Files that rows name and that are not there: said on the terminal, never written."""
        aside = path.is_dir()
        if aside:
            set_aside(path, "a folder where the quarantine belongs")
        rows, damaged = whole_lines(path)
        self.rows = [row for row in rows if _whole(row)]
        damaged += len(rows) - len(self.rows)
        if damaged:
            set_aside(path, f"{damaged} of {damaged + len(self.rows)} rows are damaged")
        if aside or damaged:
            self.flush()  # where no stage has a row, none runs again and would write the file

    def start(self, stage: str) -> None:
        """Forgets what `stage` reported before; call when the stage starts over."""
        self.rows = [row for row in self.rows if row["stage"] != stage]

    def add(
        self,
        stage: str,
        *,
        reason: str,
        file: str = "",
        row: int | None = None,
        id: str = "",
        field: str = "",
        detail: str = "",
    ) -> None:
        """Leaves one record out. `row` is 1-based, header not counted."""
        self.rows.append(
            {"stage": stage, "file": file, "row": row, "id": id, "field": field, "reason": reason, "detail": detail}
        )

    def count(self, stage: str | None = None) -> int:
        """How many records were left out, in one stage or in all."""
        return sum(stage in (None, row["stage"]) for row in self.rows)

    def key(self, stage: str) -> str:
        """A key of what one stage left out."""
        return key_of([row for row in self.rows if row["stage"] == stage])

    def flush(self) -> None:
        """Writes the file atomically."""
        write_text(self.path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows))


def _whole(row: dict[str, Any]) -> bool:
    return all(name in row and isinstance(row[name], kind) for name, kind in FIELDS.items())
