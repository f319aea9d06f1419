"""The processes of one run under a launcher (`accelerate launch`, `torchrun`): who they are, what they add up, and one
word between them. accelerate's state joins them and sums; nothing else knows a process's number.

The first process does a run's stages as if it were alone. Where a stage trains, it tells the others which, and they
join. In between they wait, for hours where need be, on a group of their own that does not time out on that account.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
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


def share(items: Sequence[T]) -> list[T]:
    """This process's items: every `count`-th, so that the first process has none fewer than any other."""
    return list(items[rank() :: count()])


def join(*, cpu: bool) -> None:
    """Meets the other processes, on the device of this one; the first call of a training. Nothing where it is alone."""
    if count() > 1:
        from accelerate import PartialState

        PartialState(cpu=cpu)


def summed(value: Tensor) -> Tensor:
    """The sum of a tensor over the processes that joined."""
    if count() == 1:
        return value
    from accelerate.utils import reduce

    total: Tensor = reduce(value, "sum")
    return total


def first_of(value: Any) -> Any:
    """What the first process has, in all that joined."""
    if count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


def wait(*, cpu: bool) -> None:
    """Until all processes are here, however long one of them takes."""
    if count() > 1:
        import torch

        torch.distributed.barrier(group=_group(cpu))


@cache
def _group(cpu: bool) -> Any:
    """A gloo group over all processes; the default group, on which training sums gradients, is accelerate's."""
    import torch

    join(cpu=cpu)
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
