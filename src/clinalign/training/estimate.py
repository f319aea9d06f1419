"""Memory and time of a run, said before its first step. Rough on purpose: will it fit, and is it an hour or a day."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import Parameter

from clinalign.training.loop import batch_at, micro_batches, total_steps
from clinalign.training.options import TrainOptions

EFFICIENCY = 0.4
"""Share of the speed of a large matrix product that a training step reaches."""


@dataclass(frozen=True)
class Estimate:
    """Bytes by part, seconds for the whole run, and the tokens of the largest micro-batch."""

    weights: int
    optimizer: int
    activations: int
    seconds: float
    tokens: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.weights + self.optimizer + self.activations

    def __str__(self) -> str:
        parts = (f"{name} {_size(getattr(self, name))}" for name in ("weights", "optimizer", "activations"))
        return f"estimate: {_size(self.total)} ({', '.join(parts)}), {_duration(self.seconds)} for the whole run"


def estimate(
    model: Any, params: Mapping[str, Parameter], sizes: Sequence[int], options: TrainOptions, seed: int
) -> Estimate:
    """Estimate for pairs whose packed rows hold `sizes` tokens.

    Activations without checkpointing are (32 d + 8 d_ff) L bytes a token in 16 bit and twice that in 32 bit; a step
    costs 4 FLOPs a block parameter and token (6 when all weights train), half as much again with checkpointing.
    """
    config = model.config.get_text_config()
    width, layers, inner = config.hidden_size, config.num_hidden_layers, config.intermediate_size
    heads = config.num_attention_heads
    kv = width * (config.num_key_value_heads or heads) // heads
    block = layers * (2 * width * width + 2 * width * kv + 3 * width * inner)
    weights = sum(value.numel() * value.element_size() for value in model.parameters())
    first = next(iter(params.values()))
    dtype = torch.bfloat16 if options.bf16 else next(model.parameters()).dtype
    steps = total_steps(len(sizes), options)
    batches = [batch_at(step, len(sizes), options, seed) for step in range(min(steps, 200))]
    size = options.micro_batch or options.batch
    tokens = max(sum(sizes[i] for i in micro) for batch in batches for micro in micro_batches(batch, sizes, size))
    per_token = (32 * width + 8 * inner) * (1 if options.gradient_checkpointing else layers) * (dtype.itemsize // 2)
    a_step = sum(sizes[i] for batch in batches for i in batch) / len(batches)
    factor = (4 if options.tune == "lora" else 6) * (1.5 if options.gradient_checkpointing else 1.0)
    return Estimate(
        weights=weights,
        optimizer=sum(value.numel() * (2 * 4 + value.element_size()) for value in params.values()),
        activations=per_token * tokens,
        seconds=steps * a_step * block * factor / (EFFICIENCY * _matmul_rate(first.device, dtype)),
        tokens=tokens,
    )


def _matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of a large matrix product here, the best of three."""
    n = 8192 if device.type == "cuda" else 512
    a = torch.ones(n, n, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
