"""Progress of long work: a bar with rate and time left on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from clinalign.processes import rank

T = TypeVar("T")
LOG_EVERY_SECONDS = 15.0


_heard: list[list[str]] = []


def say(text: str) -> None:
    """One plain line on stderr (stdout is kept for results); of several processes the first one speaks."""
    if _heard:
        _heard[-1].append(text)
    elif rank() == 0:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def heard() -> Iterator[list[str]]:
    """What the block says, in a list and not on stderr: for whoever has it said elsewhere."""
    _heard.append([])
    try:
        yield _heard[-1]
    finally:
        _heard.pop()


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yields the items and shows how far the work is. `total` is taken from `items` where it has a length."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    if rank():
        return iter(items)
    return _bar(items, label, total) if sys.stderr.isatty() else _lines(items, label, total)


def _bar(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, rate="")
        start = time.monotonic()
        for done, item in enumerate(items, 1):
            yield item
            bar.update(task, advance=1, rate=f"{done / max(time.monotonic() - start, 1e-9):.1f}/s")


def _lines(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    start = last = time.monotonic()
    done = 0
    for done, item in enumerate(items, 1):  # noqa: B007
        yield item
        now = time.monotonic()
        if now - last >= LOG_EVERY_SECONDS:
            rate = done / (now - start)
            left = f", {(total - done) / rate:.0f} s left" if total else ""
            say(f"{label}: {done}{f'/{total}' if total else ''} ({rate:.1f}/s{left})")
            last = now
    seconds = time.monotonic() - start
    say(f"{label}: {done} done in {seconds:.1f} s")
