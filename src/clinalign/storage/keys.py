"""The one idea behind reuse: a key is a hash of plain values, and what was made under another key is made anew."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any

from clinalign.extensions import code_of

LONGEST_NAME = 4096
"""Characters; a longer text names no file."""


def canonical(value: Any) -> str:
    """Plain values as JSON text that is the same for equal values, whatever order a dict was filled in."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def key_of(value: Any) -> str:
    """64 hex digits that name plain values (numbers, text, lists, dicts): sha256 of their canonical JSON."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes, "" where there is no file.

    A file is read once a process: its hash is kept under path, size and both times. The time of change (`ctime`) is
    set by the system on every write and every move, so a file put in another's place is read again even where its
    size and its `mtime` were made to look the same.
    """
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ""
    if not stat.S_ISREG(found.st_mode):
        return ""
    return _hashed(str(path.absolute()), found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def named_files(options: Any) -> list[list[str]]:
    """Every text in plain values that names a file, or code of the user's own (`module:name`), with the file's hash: it
    counts by what it holds."""
    named = [text for text in texts(options) if 0 < len(text) < LONGEST_NAME]
    hashed = [[text, file_hash(code_of(text) or Path(os.path.expanduser(text)))] for text in named]
    return [pair for pair in hashed if pair[1]]


def texts(value: Any) -> list[str]:
    """Every text in nested plain values."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [text for inner in value for text in texts(inner)]
    return [value] if isinstance(value, str) else []


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes, read now."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=1_000_000)
def _hashed(path: str, size: int, mtime: int, ctime: int) -> str:
    return sha256(Path(path))
