"""A child process that calls the command line, limited in time and memory and used again until something kills it."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 20.0
GIB = 1 << 30
MEMORY = 3 * GIB
CALLS = 150
"""Calls of one child: the peak of its memory only grows."""


@dataclass
class Case:
    """One call: what is given (`count` inputs of `area`), and what may come out.

    `codes`: exit codes that are right; `lost` tells, afterwards, which good rows are gone; `work` is called in the
    child instead of the command line.
    """

    area: str
    count: int
    arguments: list[str] = field(default_factory=list)
    codes: tuple[int, ...] = (0, 2)
    lost: Callable[[], int] = lambda: 0
    work: Callable[[], Any] | None = None
    note: str = ""


@dataclass
class Outcome:
    """`code` None: an error that was not caught, or the child's end; `words` is what was printed last."""

    code: int | None
    seconds: float
    slow: bool
    words: str


class Worker:
    """`with Worker() as worker: worker.run(case)`."""

    def __init__(self) -> None:
        self.child: Any = None
        self.calls = 0

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, case: Case) -> Outcome:
        """The outcome; a child that takes too long is killed."""
        if self.child is None or self.calls >= CALLS:
            self._start(case.work)
        elif case.work is not None:  # a function goes into a child by being forked with it
            self._start(case.work)
        self.calls += 1
        started = time.monotonic()
        try:
            self.pipe.send(case.arguments)
            if not self.pipe.poll(SECONDS + 1):
                self._end()
                return Outcome(None, time.monotonic() - started, True, f"no end within {SECONDS:g} s")
            code, words, peak = self.pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            status = self.child.exitcode
            self._end()
            return Outcome(None, time.monotonic() - started, True, f"the process died ({status})")
        seconds = time.monotonic() - started
        if peak > MEMORY:
            self._end()
        return Outcome(code, seconds, seconds > SECONDS or peak > MEMORY, words)

    def _start(self, work: Callable[[], Any] | None) -> None:
        self._end()
        forked = multiprocessing.get_context("fork")
        self.pipe, there = forked.Pipe()
        self.child = forked.Process(target=_serve, args=(there, work), daemon=True)
        self.child.start()
        there.close()
        self.calls = CALLS if work is not None else 0

    def _end(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.join()
            self.pipe.close()
        self.child = None


def _serve(pipe: Any, work: Callable[[], Any] | None) -> None:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    held = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY + GIB, mapped + MEMORY + GIB))
    while True:
        try:
            arguments = pipe.recv()
        except EOFError:
            return
        code, words = _called(arguments, work)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        pipe.send((code, words, max(peak - held, 0)))


def _called(arguments: list[str], work: Callable[[], Any] | None) -> tuple[int | None, str]:
    """The exit code (0 of a function that returns), None for an error that came through, and the last words."""
    from clinalign.cli import main
    from clinalign.errors import RowError, UsageError

    out = io.StringIO()
    code: int | None = 0
    sys.argv = ["clinalign", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            work() if work is not None else main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        except (RowError, UsageError) as error:
            code, _ = 2, out.write(str(error))
        except BaseException as error:
            code, _ = None, out.write(f"{type(error).__name__}: {error}")
    text = out.getvalue()
    return (None if "Traceback" in text else code), text[-1500:]
