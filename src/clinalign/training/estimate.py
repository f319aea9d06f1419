"""Memory and time of a run, said before its first step: will it fit, and is it an hour or a day.

`estimate` counts from shapes, before there are pairs. `measure` puts in what a run that is ready really takes: its
largest micro-batch runs forward and backward twice, the first time with its images yet to be encoded, and the rest is
scaled by tokens. What does not fit fails there and not in the middle of an epoch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import Parameter

from clinalign.training.loop import batch_at, micro_batches, peak_memory_mb, total_steps
from clinalign.training.options import TrainOptions
from clinalign.training.step import PackedSteps

EFFICIENCY = 0.4
"""Share of the speed of a large matrix product that a training step reaches, where it has not been measured."""

LOOKED_AT = 200
"""Optimiser steps whose batches stand for the rest."""


@dataclass(frozen=True)
class Estimate:
    """Bytes by part, seconds for the whole run, the tokens of the largest micro-batch; where that was tried, its
    seconds and the peak memory of the process (on a GPU: of its allocator) so far."""

    weights: int
    optimizer: int
    activations: int
    seconds: float
    tokens: int
    micro_seconds: float | None = None
    peak_mb: float | None = None

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.weights + self.optimizer + self.activations

    def __str__(self) -> str:
        parts = (f"{name} {_size(getattr(self, name))}" for name in ("weights", "optimizer", "activations"))
        text = f"estimate: {_size(self.total)} ({', '.join(parts)}), {_duration(self.seconds)} for the whole run"
        if self.micro_seconds is None or self.peak_mb is None:
            return text
        return f"{text}; tried: {self.tokens:,} tokens in {self.micro_seconds:.2f} s, peak {self.peak_mb:,.0f} MB"


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
    batches = [batch_at(step, len(sizes), options, seed) for step in range(min(steps, LOOKED_AT))]
    size = options.micro_batch or options.batch
    tokens = max(sum(sizes[i] for i in micro) for batch in batches for micro in micro_batches(batch, sizes, size))
    a_step = sum(sizes[i] for batch in batches for i in batch) / len(batches)
    factor = (4 if options.tune == "lora" else 6) * (1.5 if options.gradient_checkpointing else 1.0)
    return Estimate(
        weights=weights,
        optimizer=sum(value.numel() * (2 * 4 + value.element_size()) for value in params.values()),
        activations=activation_bytes(model, tokens, options),
        seconds=steps * a_step * block * factor / (EFFICIENCY * _matmul_rate(first.device, dtype)),
        tokens=tokens,
    )


def activation_bytes(model: Any, tokens: int, options: TrainOptions) -> int:
    """Bytes of activations of a micro-batch of so many tokens; needs the model's shapes alone."""
    config = model.config.get_text_config()
    dtype = torch.bfloat16 if options.bf16 else next(model.parameters()).dtype
    kept = 1 if options.gradient_checkpointing else config.num_hidden_layers
    return (32 * config.hidden_size + 8 * config.intermediate_size) * kept * (dtype.itemsize // 2) * tokens


def measure(
    found: Estimate, steps: PackedSteps, params: Mapping[str, Parameter], options: TrainOptions, seed: int
) -> Estimate:
    """The estimate with the time and peak memory of the largest micro-batch, tried. Gradients and random state are left
    as they were."""
    count = len(steps.sizes)
    total = total_steps(count, options)
    batches = [batch_at(step, count, options, seed) for step in range(min(total, LOOKED_AT))]
    size = options.micro_batch or options.batch
    micros = (micro for batch in batches for micro in micro_batches(batch, steps.sizes, size))
    largest = max(micros, key=lambda micro: sum(steps.sizes[i] for i in micro))
    a_micro, an_image = _try(steps, params, largest)
    a_step = sum(steps.sizes[i] for batch in batches for i in batch) / len(batches)
    samples = [steps.samples[i] for i in {i for batch in batches for i in batch}]
    images = {key for sample in samples for key in (*sample.images, *(sample.corrupted or ()), *sum(sample.ladder, []))}
    return replace(
        found,
        seconds=total * a_step / found.tokens * a_micro + len(images) * an_image,
        micro_seconds=a_micro,
        peak_mb=peak_memory_mb(next(iter(params.values())).device),
    )


def _try(steps: PackedSteps, params: Mapping[str, Parameter], micro: list[int]) -> tuple[float, float]:
    """Seconds of a micro-batch, forward and backward, and seconds that an image takes the first time."""
    taken, encoded = [], steps.features.encoded
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        for _ in range(2):
            began = time.perf_counter()
            loss, _ = steps.loss(micro)
            loss.backward()
            loss.item()  # waits for the device
            taken.append(time.perf_counter() - began)
    for value in params.values():
        value.grad = None
    first, again = taken
    return again, max(0.0, first - again) / max(1, steps.features.encoded - encoded)


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
