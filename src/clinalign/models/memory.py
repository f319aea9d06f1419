"""Out of memory, answered with a smaller batch: a run that nearly fits goes on; one that does not says what would."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import TypeVar

import torch

from clinalign.errors import UsageError
from clinalign.progress import say

T = TypeVar("T")
WORDS = re.compile(r"out of memory|can't allocate memory|not enough memory|_ALLOC_FAILED", re.IGNORECASE)
"""How CUDA, the CPU's allocator and cuBLAS say it; only some of them have an error type of its own."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's memory is used up."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and WORDS.search(str(error)) is not None
    )


class Shrinking:
    """Calls that get a batch size, and half of it each time that the memory is not enough for it; later calls start
    from what fitted. `setting` is the key that sets the size, `remedy` what helps where a batch of one is too much."""

    def __init__(self, setting: str, remedy: str) -> None:
        self.setting, self.remedy = setting, remedy
        self.largest: int | None = None

    def __call__(self, call: Callable[[int], T], size: int) -> T:
        """What `call(size)` gives, or a smaller size does. Raises `UsageError` where not even 1 fits."""
        size = min(size, self.largest or size)
        while True:
            try:
                return call(size)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if size <= 1:
                    raise UsageError(f"out of memory with {self.setting}=1; {self.remedy}") from None
            # behind the handler: the error's frames hold the tensors of the try
            size = self.largest = size // 2
            release()
            say(f"out of memory; going on with {self.setting}={size}, which may be set from the start")


def release() -> None:
    """Gives back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
