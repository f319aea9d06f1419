"""Ctrl-C and SIGTERM between two steps instead of within one, so that what is done can be kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_signals() -> Iterator[Callable[[], Callable[[], None] | None]]:
    """While open, the first signal is noted and its handler not called; the function that it gives returns that handler
    ready to be called, None where no signal came. A second signal goes through. Only the main thread holds any."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    noted: list[Callable[[], None]] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        handler = before[number]
        if noted or not callable(handler):
            signal.signal(number, handler)
            signal.raise_signal(number)
        noted.append(lambda: handler(number, None))

    for held in SIGNALS:
        before[held] = signal.signal(held, note)
    try:
        yield lambda: noted[0] if noted else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
