"""One owner at a time: of a run folder, of what a cache writes. And `run.json`, what a run folder says about itself:
`folder.py` writes it, the page, `merge` and `compare` read it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import weakref
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from clinalign.errors import UsageError
from clinalign.progress import say
from clinalign.storage.atomic import set_aside

NAME = ".lock"
NOT_OFFERED = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}
"""What a file system says that knows no locks."""


class Lock:
    """`with Lock(folder):` this process is the folder's one owner. Held twice by one process, it counts once.

    The file `folder/.lock` names host, process and since when. The system's own lock on it ends with the process, so
    what a killed process of this host left is taken over. Another host's is not, since nobody here can tell whether
    that process lives: a `UsageError` says what to do, as it does while the owner lives. With `wait` (caches, where
    the owner is soon done) the owner is waited for instead. Processes of a launcher after the first (`RANK`) own
    nothing: the first one does it for all.
    """

    def __init__(self, folder: Path, *, wait: bool = False) -> None:
        self.path, self.wait = folder.absolute() / NAME, wait
        self._end: Any = None

    def acquire(self) -> Self:
        """Becomes the owner. Raises `UsageError` where somebody else is."""
        if os.environ.get("RANK", "0") != "0" or (self._end is not None and self._end.alive):
            return self
        if self.path not in _HELD:
            _HELD[self.path] = _Held(self._take())
        _HELD[self.path].count += 1
        self._end = weakref.finalize(self, _let_go, self.path, os.getpid())
        return self

    def release(self) -> None:
        """Gives the folder back; so does the end of the process, and of the object."""
        if self._end is not None:
            self._end()

    __enter__ = acquire

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.release()

    def _take(self) -> Any:
        """The open and locked file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_dir():
            set_aside(self.path, "a folder where the lock belongs")
        while True:
            file = self.path.open("a+", encoding="utf-8")
            try:
                free = self._locked(file)
                owner = _owner(self.path)
                if not free or (owner and owner.get("host") != socket.gethostname() and not self.wait):
                    raise UsageError(self._refusal(owner, elsewhere=free))
            except BaseException:
                file.close()
                raise
            with contextlib.suppress(OSError):  # deleted by its owner just before it was locked: begin again
                if os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                    break
            file.close()
        if owner and not self.wait:
            say(f"{self.path.parent}: process {owner.get('pid')}, its owner since {owner.get('since')}, is gone")
        file.truncate(0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": since}, file)
        file.flush()
        return file

    def _locked(self, file: Any) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if self.wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in NOT_OFFERED:
                raise
            owner = _owner(self.path)
            return not (owner and owner.get("host") == socket.gethostname() and _lives(owner.get("pid")))
        return True

    def _refusal(self, owner: dict[str, Any], *, elsewhere: bool) -> str:
        who = f"process {owner.get('pid')} on {owner.get('host')} since {owner.get('since')}" if owner else "a process"
        remedy = f"if it is gone, delete {self.path}" if elsewhere else "wait for it, or choose another folder"
        return f"{self.path.parent}: in use by {who}; {remedy}"


@dataclass
class _Held:
    """A lock of this process: its open file, and how many `Lock`s stand for it."""

    file: Any
    count: int = 0


_HELD: dict[Path, _Held] = {}


def _let_go(path: Path, pid: int) -> None:
    if pid != os.getpid() or path not in _HELD:  # a forked child owns nothing of its parent's
        return
    held = _HELD[path]
    held.count -= 1
    if held.count == 0:
        del _HELD[path]
        path.unlink(missing_ok=True)
        held.file.close()


def _owner(path: Path) -> dict[str, Any]:
    """Who wrote the file; empty where nobody did, or it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _lives(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, TypeError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


STAGE = {"key": str, "outputs": dict, "quarantined": int, "seconds": int | float}
REMEDY = "run the recipe again with --resume, which sets it aside and makes it anew"


def read_state(path: Path) -> dict[str, Any]:
    """The object in a `run.json`. A damaged one, or JSON that is none, is a `UsageError`."""
    try:
        state = json.loads(path.read_bytes())
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise UsageError(f"{path}: not valid JSON, so it holds no recipe ({str(error)[:100]}); {REMEDY}") from error
    stages = state.setdefault("stages", {}) if isinstance(state, dict) else None
    if not isinstance(stages, dict) or not all(map(_is_stage, stages.values())):
        raise UsageError(f"{path}: not what a run writes; {REMEDY}")
    if not isinstance(state.get("recipe", {}), dict):
        raise UsageError(f"{path}: holds no recipe; {REMEDY}")
    return dict(state)


def _is_stage(stage: Any) -> bool:
    if not isinstance(stage, dict) or not all(isinstance(stage.get(name), kind) for name, kind in STAGE.items()):
        return False
    return all(isinstance(value, str) for value in stage["outputs"].values())
