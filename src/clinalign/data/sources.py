"""What a source holds now, as a hash, so that an ingest is done again when its data changed.

The table itself counts by its bytes. Images count by name, size and times, as `make` and `rsync` tell files apart:
they may be terabytes, and their pixels are in the run folder once they are ingested. No file's name is kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clinalign.data.options import DataOptions
from clinalign.data.rows import raw_rows
from clinalign.errors import RowError
from clinalign.storage import file_hash, key_of, texts

LONGEST_NAME = 1024
ELSEWHERE = ("phantom", "real", "hub")
"""Sources that are drawn, checked by hash, or kept by another library."""


def source_hash(options: DataOptions, *, exclude: Path) -> str:
    """Hash of the files that a source is read from. `exclude` is a run folder, which may lie in the data's folder."""
    if options.source in ELSEWHERE or not options.path:
        return ""
    path = Path(options.path).expanduser()
    images = Path(options.images).expanduser() if options.images else None
    if path.is_dir():
        return key_of([[_looks(file) for file in _below(folder, exclude)] for folder in (path, images) if folder])
    return key_of([file_hash(path), sorted(_looks(file) for file in set(_named(path, images or path.parent)))])


def _looks(path: Path) -> list[Any]:
    try:
        found = path.stat()
    except OSError:
        return [str(path)]
    return [str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _below(folder: Path, exclude: Path) -> Iterator[Path]:
    """Every file below a folder, in order; links to folders are followed once, other run folders left out."""
    seen = {exclude.resolve()}
    for here, folders, files in os.walk(folder, followlinks=True):
        real = Path(here).resolve()
        folders[:] = [] if real in seen or "run.json" in files else sorted(f for f in folders if not f.startswith("."))
        if real not in seen and "run.json" not in files:
            seen.add(real)
            yield from (Path(here) / name for name in sorted(files))


def _named(path: Path, base: Path) -> Iterator[Path]:
    """Every file that a cell of a table names, whatever its column is called."""
    try:
        for _, row in raw_rows(path):
            if not isinstance(row, RowError):
                yield from (base / text for text in texts(row) if _is_file(base, text))
    except Exception:  # whatever is wrong with the table, its reader will say
        return


def _is_file(base: Path, text: str) -> bool:
    try:
        return 0 < len(text) < LONGEST_NAME and (base / text).is_file()
    except (OSError, ValueError):
        return False
