"""What a check found, and the table of them."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from clinalign.errors import UsageError

T = TypeVar("T")
Verdict = Literal["ready", "warning", "refused"]
ORDER: tuple[Verdict, ...] = ("ready", "warning", "refused")
NARROWEST = 40


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried. `field` is the recipe's key, `text` says what was found and, unless it is ready, what
    to do about it."""

    verdict: Verdict
    subject: str
    field: str
    text: str

    def line(self, file: str) -> str:
        """The finding as an error says it: file, field, what and remedy."""
        return f"{file}: {self.field}: {self.text.removeprefix(f'{self.field}: ')}"


def tried(subject: str, field: str, call: Callable[[], T]) -> tuple[T | None, list[Finding]]:
    """What `call` gives, or the refusal that it raised."""
    try:
        return call(), []
    except UsageError as error:
        return None, [Finding("refused", subject, field, " ".join(str(error).split()))]


def as_table(findings: Sequence[Finding]) -> str:
    """The findings, what is refused last, each whole within the terminal's width."""
    lines = []
    for finding in sorted(findings, key=lambda found: ORDER.index(found.verdict)):
        text = finding.text if finding.verdict == "ready" else finding.line("").removeprefix(": ")
        head = f"{finding.verdict:<8} {finding.subject:<10} "
        lines += wrapped(text, head)
    return "\n".join(lines)


def wrapped(text: str, head: str = "", hang: int | None = None) -> list[str]:
    """Lines of a text behind a head within the terminal's width; those that follow hang `hang` columns in, or under
    the text."""
    width = max(shutil.get_terminal_size((80, 24)).columns, NARROWEST)
    indent = " " * (len(head) if hang is None else hang)
    return textwrap.wrap(text, width - 1, initial_indent=head, subsequent_indent=indent) or [head]
