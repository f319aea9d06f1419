"""Dropout that belongs to the token: the same for a pair in whatever row, micro-batch or process it is computed.

The usual mask comes from a stream of random numbers, so it depends on what else is in the batch. Here the number behind
each element is a hash of the token's key (whose it is and where it stands, see `training.batches`), of the step, of the
layer and of the feature: two multiplications of 32 bits, which costs less than drawing. Recomputation under gradient
checkpointing finds the same mask without a saved state.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

FIRST, SECOND = 0x85EBCA6B, 0xC2B2AE35  # multipliers of the 32-bit finaliser of MurmurHash3
STEP = 0x9E3779B9  # 2^32 over the golden ratio


def token_keys(*owner: Any, count: int) -> np.ndarray:
    """Keys int32 [count] of consecutive tokens of one owner, named by what tells it from all others."""
    base = int.from_bytes(hashlib.blake2b(repr(owner).encode(), digest_size=4).digest(), "big")
    counters = (base + STEP * np.arange(count, dtype=np.uint64)).astype(np.uint32)
    return _mixed(torch.from_numpy(counters.view(np.int32).copy())).numpy()


class TokenDropout:
    """The masks of one model's layers. `tokens` says whose tokens the next forward holds, `step` when it is."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.subset_keys: Tensor | None = None
        self.draw = 0
        self._features: dict[tuple[int, torch.device], Tensor] = {}

    def step(self, draw: int) -> None:
        """`draw`: a number for the seed and the step, the same in every process."""
        self.draw = draw

    def tokens(self, keys: Tensor | None, query_columns: Tensor | None = None) -> None:
        """keys int32 [B, L] of the tokens; query_columns [B, S]: columns that a layer may be given instead. None: no
        keys, and layers drop as usual."""
        self.keys = keys
        self.subset_keys = None if keys is None or query_columns is None else keys.gather(1, query_columns)

    def __call__(self, x: Tensor, rate: float, layer: int) -> Tensor | None:
        """x [B, L or S, D] with a share `rate` of its elements dropped and the others scaled up; None without keys."""
        keys = next((k for k in (self.keys, self.subset_keys) if k is not None and k.shape == x.shape[:-1]), None)
        if keys is None:
            return None
        number = _mixed(keys + _signed((self.draw ^ (self.draw >> 32)) + STEP * (layer + 1)))
        number = number[..., None] ^ self._feature(x.shape[-1], x.device)
        number = number.mul_(_signed(FIRST))
        number = number.bitwise_xor_((number >> 15).bitwise_and_(0x1FFFF)).mul_(_signed(SECOND))
        return x.masked_fill(number < int(rate * 2**32) - 2**31, 0.0) * (1 / (1 - rate))

    def _feature(self, width: int, device: torch.device) -> Tensor:
        if (width, device) not in self._features:
            self._features[width, device] = torch.from_numpy(token_keys("feature", count=width)).to(device)
        return self._features[width, device]


def _signed(value: int) -> int:
    """The low 32 bits as a signed number, which is what an int32 tensor takes."""
    return (value + 2**31) % 2**32 - 2**31


def _mixed(x: Tensor) -> Tensor:
    """Every bit of an int32 tensor spread over all of them (the finaliser of MurmurHash3)."""
    for shift, multiplier in ((16, FIRST), (13, SECOND), (16, 1)):
        x = (x ^ ((x >> shift) & (2 ** (32 - shift) - 1))) * _signed(multiplier)
    return x
