"""JSON lines that may have been cut short or damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def whole_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects of a file, one a line, and how many lines are none. No file: no lines."""
    if not path.is_file():
        return [], 0
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    rows = [row for row in map(_parsed, lines) if isinstance(row, dict)]
    return rows, len(lines) - len(rows)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
