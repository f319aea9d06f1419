"""The two ways a run can fail: the user's input (exit code 2) and one bad row (quarantine)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import partial
from typing import Any


class UsageError(Exception):
    """Input that cannot be used at all: one line saying what, where and what to do. The command line exits with 2."""


class Diverged(UsageError):
    """A training whose loss is no number any more: one setting among several may do so and the others go on."""


class RowError(Exception):
    """One row that cannot be used. The stage writes it to the quarantine and goes on.

    `field` names the column, `reason` is a short code ("missing_image"), `detail` says what to do. `path` is a
    file that is not there: for the terminal alone, since a name may be a patient's and nothing of it is to be kept.
    """

    def __init__(self, field: str, reason: str, detail: str = "", *, path: str = "") -> None:
        super().__init__(f"{field}: {reason}" + (f" ({detail})" if detail else ""))
        self.field, self.reason, self.detail, self.path = field, reason, detail, path

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(RowError, path=self.path), (self.field, self.reason, self.detail)


def nearest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` when a known name is close to `name`, otherwise the empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
