"""What takes long to make and is only read, made once by whichever worker asks first."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path

Once = Callable[[str, Callable[[Path], object]], Path]
"""A folder by its name, and what fills it. A test that changes anything in it takes a copy."""


def once(shared: Path) -> Once:
    """Folders below `shared`, which several processes use at the same time: who comes second waits for the first."""

    def filled(name: str, fill: Callable[[Path], object]) -> Path:
        shared.mkdir(exist_ok=True)
        folder, done = shared / name, shared / f"{name}.done"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return filled
