"""The one idea behind reuse: a key is a hash of plain values, and what was made under another key is made anew. With it
the images of a stage, listed with their hashes in the layout of `sha256sum` (`sha256sum -c` reads it too), and the
folder of the caches that several runs share.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from clinalign.extensions import code_of
from clinalign.storage.atomic import write_text

LONGEST_NAME = 4096
"""Characters; a longer text names no file."""


def canonical(value: Any) -> str:
    """Plain values as JSON text that is the same for equal values, whatever order a dict was filled in."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def key_of(value: Any) -> str:
    """64 hex digits that name plain values (numbers, text, lists, dicts): sha256 of their canonical JSON."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


def key_with_rows(values: dict[str, Any], name: str, rows: Iterable[Any]) -> str:
    """`key_of(values | {name: list(rows)})`, taking the rows one at a time."""
    before, after = ({k: v for k, v in values.items() if test(k)} for test in (lambda k: k < name, lambda k: k > name))
    digest = hashlib.sha256()

    def add(text: str) -> None:
        digest.update(text.encode("utf-8", "surrogatepass"))

    add(canonical(before)[:-1] + (", " if before else "") + f"{canonical(name)}: [")
    for number, row in enumerate(rows):
        add((", " if number else "") + canonical(row))
    add("]" + (", " if after else "") + canonical(after)[1:])
    return digest.hexdigest()


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


LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_manifest(path: Path, folder: Path, files: Iterable[Path]) -> Path:
    """Lists files below `folder` with the hashes they have now, in the order of their names."""
    named = sorted({file.relative_to(folder).as_posix(): file for file in files}.items())
    write_text(path, "".join(f"{file_hash(file)}  {name}\n" for name, file in named))
    return path


def read_manifest(path: Path) -> dict[str, str]:
    """Name -> hash as listed; lines that are no such pair are left out."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return {found[2]: found[1] for line in lines if (found := LINE.fullmatch(line))}


def first_changed(path: Path, folder: Path) -> str:
    """The first listed file that is not what it was, or not there; "" where all are."""
    return next((name for name, known in read_manifest(path).items() if file_hash(folder / name) != known), "")


def content_key(path: Path, folder: Path) -> str:
    """A key of what the listed files hold now, whatever the list says."""
    return key_of([[name, file_hash(folder / name)] for name in read_manifest(path)])


def cache_folder(setting: str = "") -> Path | None:
    """The user's choice, or $CLINALIGN_CACHE, or ~/.cache/clinalign; None for "off"."""
    return None if setting == "off" else shared_folder(setting)


def shared_folder(setting: str = "") -> Path:
    """The same where there is no "off": downloads and the patient key."""
    return Path(setting or os.environ.get("CLINALIGN_CACHE") or Path.home() / ".cache" / "clinalign").expanduser()
