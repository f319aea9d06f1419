"""Memory and time of a run, said before its first step: will it fit, and is it an hour or a day.

`estimate` counts from shapes, before there are pairs. `measure` puts in what a run that is ready really takes: its
largest micro-batch runs forward and backward, the first time with its images yet to be encoded, and so does its
smallest; the rest is scaled by tokens. What does not fit fails there and not in the middle of an epoch. What a card
would take that is not here is counted from shapes: `training/cards.py`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.nn import Parameter

from clinalign.training.loop import backward, batch_at, micro_batches, peak_memory_mb, total_steps
from clinalign.training.options import TrainOptions
from clinalign.training.step import PackedSteps

EFFICIENCY = 0.4
"""Share of the speed of a large matrix product that a training step reaches, where it has not been measured."""

LOOKED_AT = 200
"""Optimiser steps whose batches stand for the rest."""
SHORT, TRIES = 1.0, 5
"""Seconds below which a micro-batch is tried again, and how many times at most."""


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
    parts: Mapping[str, float] = field(default_factory=dict)
    """Seconds by part of the work, where they are known."""

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.weights + self.optimizer + self.activations

    def __str__(self) -> str:
        parts = (f"{name} {size_text(getattr(self, name))}" for name in ("weights", "optimizer", "activations"))
        text = (
            f"estimate: {size_text(self.total)} ({', '.join(parts)}), {duration_text(self.seconds)} for the whole run"
        )
        if self.micro_seconds is None or self.peak_mb is None:
            return text
        if len(self.parts) > 1:
            text += f" ({', '.join(f'{name} {duration_text(seconds)}' for name, seconds in self.parts.items())})"
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
    """The estimate with the time and peak memory of the largest micro-batch, tried, and of the smallest where it is
    another: seconds are a fixed part and one by tokens. An optimiser step on copies of the weights counts once a step.
    Gradients and random state are left as they were."""
    count = len(steps.sizes)
    total = total_steps(count, options)
    batches = [batch_at(step, count, options, seed) for step in range(min(total, LOOKED_AT))]
    size = options.micro_batch or options.batch
    micros = [micro for batch in batches for micro in micro_batches(batch, steps.sizes, size)]
    tokens = [sum(steps.sizes[i] for i in micro) for micro in micros]
    order = sorted(range(len(micros)), key=tokens.__getitem__)
    largest, smallest = order[-1], order[0]
    a_micro, an_image, an_update = _try(steps, params, micros[largest])
    a_token, fixed = a_micro / tokens[largest], 0.0
    if tokens[smallest] < tokens[largest]:
        less, *_ = _try(steps, params, micros[smallest])
        a_token = max(0.0, a_micro - less) / (tokens[largest] - tokens[smallest])
        fixed = a_micro - a_token * tokens[largest]
    samples = [steps.samples[i] for i in {i for batch in batches for i in batch}]
    images = {key for sample in samples for key in (*sample.images, *(sample.corrupted or ()), *sum(sample.ladder, []))}
    parts = {
        "images": len(images) * an_image,
        "steps": total / len(batches) * (len(micros) * fixed + sum(tokens) * a_token + len(batches) * an_update),
    }
    return replace(
        found,
        seconds=sum(parts.values()),
        parts=parts,
        micro_seconds=a_micro,
        peak_mb=peak_memory_mb(next(iter(params.values())).device),
    )


def _try(steps: PackedSteps, params: Mapping[str, Parameter], micro: list[int]) -> tuple[float, float, float]:
    """Seconds of a micro-batch, forward and backward; seconds that an image takes the first time; and of an update.

    The first time counts for the images alone: it warms up whatever is slow once. Short ones are tried again."""
    taken: list[float] = []
    encoded = steps.features.encoded
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        while len(taken) < 2 or (sum(taken[1:]) < SHORT and len(taken) <= TRIES):
            for value in params.values():
                value.grad = None
            began = time.perf_counter()
            loss, _ = steps.loss(micro)
            backward(loss)
            loss.item()  # waits for the device
            taken.append(time.perf_counter() - began)
    fresh = steps.features.encoded - encoded
    again = sorted(taken[1:])[(len(taken) - 1) // 2]
    an_update = _try_update(params)
    for value in params.values():
        value.grad = None
    return again, max(0.0, taken[0] - again) / fresh if fresh else 0.0, an_update


def _try_update(params: Mapping[str, Parameter]) -> float:
    """Seconds of the optimiser's second step, on copies of the weights with the gradients that they have now."""
    copies = [Parameter(value.detach().clone()) for value in params.values() if value.grad is not None]
    for copy, grad in zip(copies, (value.grad for value in params.values() if value.grad is not None), strict=True):
        copy.grad = grad
    if not copies:
        return 0.0
    optimizer, began = torch.optim.AdamW(copies), 0.0
    for _ in range(2):
        began = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(copies, torch.inf)
        optimizer.step()
        copies[0].flatten()[0].item()  # waits for the device
    return time.perf_counter() - began


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


def size_text(count: int) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"


def duration_text(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
