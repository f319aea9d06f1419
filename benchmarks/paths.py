"""Folders of the repository that a benchmark imports from besides its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment(*folders: str) -> dict[str, str]:
    """The environment with folders of the repository on Python's path."""
    entries = [str(ROOT / folder) for folder in folders] + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, entries)))}


def importable(*folders: str) -> None:
    """Starts the running script anew with the folders on Python's path, where they are not there yet; the processes
    that it starts inherit them."""
    wanted = environment(*folders)
    if wanted["PYTHONPATH"] != os.environ.get("PYTHONPATH"):
        os.execve(sys.executable, [sys.executable, *sys.argv], wanted)
