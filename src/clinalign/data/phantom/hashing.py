"""Randomness that is the same on every machine: splitmix64 over integer keys (Steele, Lea and Flood 2014).

No generator state is shared: every number is a pure function of the keys that name it, so a finding can be added to
or taken from a case without moving anything else.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX1 = 0xBF58476D1CE4E5B9
_MIX2 = 0x94D049BB133111EB


def mix(value: int) -> int:
    """The splitmix64 finaliser of one unsigned 64-bit integer."""
    value = (value ^ (value >> 30)) * _MIX1 & _MASK
    value = (value ^ (value >> 27)) * _MIX2 & _MASK
    return value ^ (value >> 31)


def key(*parts: int | str) -> int:
    """One unsigned 64-bit key from integers and ASCII words, sensitive to their order."""
    state = 0
    for part in parts:
        number = int.from_bytes(part.encode("ascii"), "big") if isinstance(part, str) else part
        while True:
            state = mix((state + _GOLDEN + (number & _MASK)) & _MASK)
            number >>= 64
            if number in (0, -1):
                break
    return state


class Stream:
    """A splitmix64 sequence started at a key."""

    def __init__(self, *parts: int | str) -> None:
        self._state = key(*parts)

    def bits(self) -> int:
        """The next unsigned 64-bit integer."""
        self._state = (self._state + _GOLDEN) & _MASK
        return mix(self._state)

    def below(self, bound: int) -> int:
        """A uniform integer in [0, bound); the bias is below bound / 2**64."""
        return self.bits() * bound >> 64

    def between(self, low: int, high: int) -> int:
        """A uniform integer in [low, high], both ends included."""
        return low + self.below(high - low + 1)

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices, uniformly."""
        return choices[self.below(len(choices))]


def hash_grid(side: int, *parts: int | str) -> npt.NDArray[np.uint64]:
    """[side, side] independent uint64 hashes keyed by the parts and the cell."""
    start = np.uint64(key(*parts))
    # numpy wraps uint64 array arithmetic silently, which is the modulus splitmix64 asks for
    z = start + np.arange(1, side * side + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX2)
    return (z ^ (z >> np.uint64(31))).reshape(side, side)
