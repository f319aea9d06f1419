"""The processes of one run under a launcher (`accelerate launch`, `torchrun`): who they are, and one word between them.

The first process does a run's stages as if it were alone. Where a stage trains, it tells the others which, and they
join. In between they wait, for hours where need be, on a group of their own that does not time out on that account.
"""

from __future__ import annotations

import os
from datetime import timedelta
from functools import cache
from typing import Any

PATIENCE = timedelta(days=30)


def rank() -> int:
    """This process's number among those of its launcher; 0 for one that is alone."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1") or 1)


def reachable() -> bool:
    """Whether a launcher said where the processes meet; some clusters set WORLD_SIZE for a job that has none."""
    return count() == 1 or "MASTER_ADDR" in os.environ


@cache
def _group(cpu: bool) -> Any:
    """A gloo group over all processes; the default group, on which training sums gradients, is accelerate's."""
    import torch
    from accelerate import PartialState

    PartialState(cpu=cpu)
    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)


def tell(word: Any, *, cpu: bool) -> None:
    """Gives a word to the processes that `hear` it; the first process's part. Nothing where it is alone."""
    if count() > 1 and reachable():
        _broadcast(word, cpu)


def hear(*, cpu: bool) -> Any:
    """The next word of the first process."""
    return _broadcast(None, cpu)


def _broadcast(word: Any, cpu: bool) -> Any:
    import torch

    words = [word]
    torch.distributed.broadcast_object_list(words, src=0, group=_group(cpu), device=torch.device("cpu"))
    return words[0]
