"""The images of a stage, listed with their hashes in the layout of `sha256sum`: `sha256sum -c` reads it too."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from clinalign.storage.atomic import write_text
from clinalign.storage.keys import file_hash, key_of

SUFFIX = ".sha256"
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
