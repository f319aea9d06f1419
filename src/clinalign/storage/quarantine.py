"""What was left out, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clinalign.storage.atomic import write_text


class Quarantine:
    """`quarantine.jsonl`: every record that was left out, with stage, file, row, field, reason and remedy.

    Rows are held in memory per stage and written at `flush`, which replaces that stage's earlier rows: a stage that
    runs again after a kill does not report a record twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.is_file():
            self.rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]

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

    def flush(self) -> None:
        """Writes the file atomically."""
        write_text(self.path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows))
