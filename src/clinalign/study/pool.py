"""The processes that do a sweep's jobs side by side."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import Any

from clinalign.errors import UsageError
from clinalign.progress import say


class Pool:
    """So many processes of one kind; they end with the process that began them, even where it is killed."""

    def __init__(self, workers: int, threads: int) -> None:
        context = get_context("spawn")
        given = (threads, os.getpid())
        self.pool = ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker, initargs=given)

    def each(self, work: Callable[..., Any], calls: Iterable[Sequence[Any]], label: str) -> list[Any]:
        """Results in the order of the calls, with a line and the time left after each that ends."""
        began = time.monotonic()
        futures: list[Future[Any]] = [self.pool.submit(work, *call) for call in calls]
        for number, future in enumerate(as_completed(futures), 1):
            try:
                future.result()
            except BrokenProcessPool:
                raise UsageError(
                    f"{label}: the system ended a worker, most likely because memory ran out; set sweep.workers=1 or a "
                    "smaller align.micro_batch, and go on with --resume"
                ) from None
            left = (time.monotonic() - began) / number * (len(futures) - number)
            say(f"{label}: {number}/{len(futures)}" + (f", {left / 60:.1f} min left" if left else ""))
        return [future.result() for future in futures]

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Waits for the workers, or after an error ends them at once: what they still wrote would fall into a folder
        that somebody else may have by then."""
        if kind is not None:
            self.pool.shutdown(wait=False, cancel_futures=True)
            for worker in active_children():
                worker.terminate()
                worker.join()
        self.pool.shutdown()


def start_worker(threads: int, parent: int) -> None:
    """What a worker starts with: its threads, and an end when the process `parent` is killed, be it before this."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        import torch

        torch.set_num_threads(threads)


def _end_with(parent: int) -> None:
    """A pool's worker whose parent was killed would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
