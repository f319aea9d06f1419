"""Files and folders that are either whole or absent: written under a temporary name beside them, then renamed."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clinalign.errors import UsageError
from clinalign.progress import say

OWNED = (".lock", "run.json")
"""What a folder holds that belongs to a process or a run of its own."""


class atomic:
    """`with atomic(path) as temporary:` write to `temporary`; it is renamed to `path` only when the block succeeds.

    A folder that stands where the file belongs is set aside, not deleted. The temporary name is this call's own: on a
    file system that several nodes share, two processes may have the same number.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}.part")

    def __enter__(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.temporary

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None:
            self.temporary.unlink(missing_ok=True)
            return
        if self.path.is_dir():
            set_aside(self.path, "a folder where a file belongs")
        os.replace(self.temporary, self.path)


@contextmanager
def atomic_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """`with atomic_folder(path) as temporary:` fill the folder `temporary`; it becomes `path` only when the block
    succeeds. Its name is this call's own: two processes never share one, and none removes another's.

    `path` may be absent or an empty folder; with `replace` what stands there makes way (a kill between the two renames
    leaves no `path` at all, never half of one), without it is a `UsageError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _fresh(path)
    temporary.chmod(0o777 & ~_umask())
    try:
        yield temporary
        try:
            os.rename(temporary, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            if not replace:
                raise UsageError(f"{path}: is there already; choose another folder") from error
            old = _fresh(path)
            os.rename(path, old / path.name)
            os.rename(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fresh(path: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent))


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def remove_parts(folder: Path) -> None:
    """Removes what killed writes left below a folder. Only its owner may call this (see `Lock`): folders below it that
    have an owner of their own are left alone."""
    for path in sorted(folder.iterdir()):
        part = path.name.startswith(".") and path.name.endswith(".part")
        if path.is_dir() and not path.is_symlink():
            if part:
                shutil.rmtree(path, ignore_errors=True)
            elif not any((path / name).exists() for name in OWNED):
                remove_parts(path)
        elif part:
            path.unlink(missing_ok=True)


def set_aside(path: Path, why: str, *, copy: bool = False) -> Path:
    """Renames (or copies) what cannot be used to `NAME.damaged-1`, or the next free number, and says so."""
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.damaged-{number}")):
        number += 1
    if copy:
        shutil.copyfile(path, aside)
    else:
        os.rename(path, aside)
    say(f"{path}: {why}; set aside as {aside.name}, and made anew")
    return aside


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically. Half a character, which UTF-8 cannot hold, becomes its escape (that of JSON)."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically, keys in insertion order; NaN is refused."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
