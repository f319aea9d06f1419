"""How a command ends: an exit code, and one line for whatever is not our own fault."""

from __future__ import annotations

import errno
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from clinalign.errors import UsageError

INTERRUPTED = "interrupted; the same command with --resume goes on from here"
NO_ROOM = {
    errno.ENOSPC: "no space left",
    errno.EFBIG: "file size limit reached",
    errno.EDQUOT: "disk quota exceeded",
    errno.EROFS: "read-only file system",
}
NO_PATH = {
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOTDIR: "a file where a folder belongs",
    errno.EISDIR: "a folder where a file belongs",
    errno.EEXIST: "a file where a folder belongs",
    errno.ELOOP: "links that lead in a circle",
}


def ending_well(command: Callable[[], Any]) -> None:
    """Runs a command. Exit code 2 for input that cannot be used (one line), 130 for Ctrl-C, 143 for SIGTERM, 1 for our
    own errors."""
    try:
        command()
    except UsageError as error:
        _stop(str(error), 2)
    except OSError as error:
        if error.errno in NO_ROOM:
            where = f"{error.filename}: " if error.filename else ""
            _stop(f"{where}{NO_ROOM[error.errno]}; free some space or choose another --out, then add --resume", 2)
        if error.errno in NO_PATH and error.filename:
            _stop(f"{str(error.filename)[:120]}: {NO_PATH[error.errno]}; give another path", 2)
        if error.errno in (errno.EACCES, errno.EPERM) and error.filename:
            _stop(f"{error.filename}: permission denied; choose a folder you can write to with --out", 2)
        _bug()
    except KeyboardInterrupt:
        _stop(INTERRUPTED, 130)
    except SystemExit as end:  # Typer turns Ctrl-C into one
        if end.code in (130, 128 + signal.SIGTERM):
            _stop(INTERRUPTED, int(end.code))
        raise
    except Exception as error:
        if f"os error {errno.ENOSPC}" in str(error):  # safetensors writes with its own error type
            _stop("no space left; free some space or choose another --out, then add --resume", 2)
        _bug()


def _bug() -> None:
    traceback.print_exc()
    _stop("this is an error in clinalign; please report it with the lines above and the output of `clinalign env`", 1)


def _stop(text: str, code: int) -> None:
    print(f"clinalign: {text}", file=sys.stderr)
    raise SystemExit(code)
