"""The border around every row: whatever it makes the code stumble over costs the row, in words without its cells."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import Any, TypeVar

from clinalign.data.rows import described
from clinalign.errors import RowError, UsageError

T = TypeVar("T")
OURS = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.EIO)
"""Faults of the machine, not of a row."""
QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|\u2018[^\u2019]*\u2019|\b\d{4,}\b")
LONGEST = 160


def guarded(make: Callable[[], T], row: Any = None) -> T | RowError:
    """What `make` gives; a `RowError` it raises, as a value; any other error as one with the reason `unexpected`.

    `UsageError` and faults of the machine (a full disk) pass.
    """
    try:
        return make()
    except RowError as error:
        return error
    except UsageError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in OURS:
            raise
        return RowError("row", "unexpected", f"{type(error).__name__}: {_words(error, row)}")


def _words(error: Exception, row: Any) -> str:
    """An error's own words, without what may be a cell: quoted parts, long numbers, and the row's own texts."""
    words = " ".join(str(error).split())
    for text in sorted(_texts(row), key=len, reverse=True):
        words = words.replace(text, f"[{described(text)}]")
    return QUOTED.sub(lambda found: f"[{described(found[0].strip(chr(39) + chr(34)))}]", words)[:LONGEST]


def _texts(row: Any) -> list[str]:
    values = row.values() if isinstance(row, dict) else []
    return [" ".join(value.split()) for value in values if isinstance(value, str) and len(value.strip()) > 2]
