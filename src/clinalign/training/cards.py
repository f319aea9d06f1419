"""What a training takes on a card that is not here: time by part from FLOPs and bandwidth, and settings that fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from clinalign.errors import UsageError, nearest
from clinalign.training.batches import ScoringPlan
from clinalign.training.estimate import EFFICIENCY
from clinalign.training.options import TrainOptions

GB = 10**9
RUNTIME = 2**30
"""Bytes that the runtime, its kernels and the cached features of a step take beside what is counted."""


class Card(NamedTuple):
    """A card as its data sheet has it: bytes of memory, bytes a second, dense FLOPs a second in bfloat16."""

    memory: float
    bandwidth: float
    flops: float


CARDS: dict[str, Card] = {
    "rtx4090": Card(24 * GB, 1008 * GB, 165e12),
    "l40s": Card(48 * GB, 864 * GB, 362e12),
    "a100": Card(80 * GB, 2039 * GB, 312e12),
    "h100": Card(80 * GB, 3350 * GB, 989e12),
    "h200": Card(141 * GB, 4800 * GB, 989e12),
    "b200": Card(180 * GB, 8000 * GB, 2250e12),
}


def card_named(name: str) -> Card:
    """A card of `CARDS`. Raises `UsageError` for another."""
    if name not in CARDS:
        known = ", ".join(CARDS)
        raise UsageError(f"--card {name}: unknown card{nearest(name, CARDS)}; there are {known}")
    return CARDS[name]


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to train on: pairs, tokens of a prompt and of an answer, image tokens within the prompt, and
    parameters of the image tower."""

    pairs: int
    prompt: float
    answer: float
    image: float
    tower: int


def seconds_on(card: Card, config: Any, work: Work, plan: ScoringPlan, options: TrainOptions) -> dict[str, float]:
    """Seconds by part on one card: answering (weights read once a token of a batch of 8), images, reference, steps.

    A forward of T tokens takes 2 Nb T + 2 L d T^2 FLOPs (Nb block parameters, L layers, width d); a LoRA step twice
    that, a full one three times, and once more with checkpointing; the head 6 R d V on answer rows. Both answers share
    their prompt. Images are encoded once a pair, clean and corrupted, and, unless `cache_features`, anew each epoch.
    """
    text = config.get_text_config()
    width, layers, inner, words = text.hidden_size, text.num_hidden_layers, text.intermediate_size, text.vocab_size
    kv = width * (text.num_key_value_heads or text.num_attention_heads) // text.num_attention_heads
    block = layers * (2 * width * width + 2 * width * kv + 3 * width * inner)
    views = [len(sides) for sides in plan.seen.values() if sides]
    forward = sum(_forward(block, layers, width, work.prompt + work.answer * sides) for sides in views)
    rows = sum(views) * work.answer
    passes = (2 if options.tune == "lora" else 3) + options.gradient_checkpointing
    seen = options.max_steps * options.batch if options.max_steps else options.epochs * work.pairs
    a_step = passes * forward + 6 * rows * width * words
    rate = EFFICIENCY * card.flops
    encoded = work.pairs * (1 if options.cache_features else max(1.0, options.epochs))
    token = (block + width * words) * 2 / card.bandwidth / 8
    prompts = work.pairs * _forward(block, layers, width, work.prompt) / rate
    return {
        "answers": work.pairs * work.answer * token + prompts,
        "images": len(views) * encoded * 2 * work.tower * work.image / rate,
        "reference": work.pairs * (forward + 2 * rows * width * words) / rate if plan.needs_reference else 0.0,
        "steps": seen * a_step / rate,
    }


def _forward(block: int, layers: int, width: int, tokens: float) -> float:
    return 2 * block * tokens + 2 * layers * width * tokens**2


def proposals(
    memory: float, needed: Callable[[TrainOptions, str], int], options: TrainOptions, weights: Sequence[str]
) -> Iterator[tuple[dict[str, Any], int]]:
    """Settings that fit within `memory` bytes, with what they need, the fastest first: without checkpointing and with
    it, for each of the recipe's `quantize` in `weights`, the largest micro-batch. `needed` gives the bytes of both."""
    for checkpointing in (False, True):
        for quantize in weights:
            size = options.batch
            while size:
                update = {"gradient_checkpointing": checkpointing, "micro_batch": size}
                bytes_ = needed(options.model_copy(update=update), quantize) + RUNTIME
                if bytes_ <= memory:
                    yield {f"align.{name}": value for name, value in update.items()} | {"quantize": quantize}, bytes_
                    break
                size //= 2
