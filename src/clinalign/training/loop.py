"""The optimisation loop: batches in a seeded order, accumulation, AdamW, rows of metrics, exact resume.

Everything that could have a hidden state is a function of the step instead: the learning rate, the order of the pairs
(seed and epoch) and the dropout masks (seed, step, pair). A resumed run therefore repeats an uninterrupted one, and how
a batch is cut into micro-batches or shared among processes does not change its numbers.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from clinalign.errors import Diverged, UsageError
from clinalign.models.memory import Shrinking, out_of_memory
from clinalign.processes import count, first_of, join, rank, share, summed
from clinalign.progress import say, track
from clinalign.storage import set_aside
from clinalign.training import checkpoint
from clinalign.training.checkpoint import held_signals
from clinalign.training.constants import StepConstants
from clinalign.training.metrics import MetricsFile, Row, check_gradients
from clinalign.training.options import TrainOptions
from clinalign.training.sharding import clip_gradients, groups, sum_gradients

TOO_LARGE = "set align.gradient_checkpointing=true, dtype=bfloat16 or a smaller align.lora.r, or take a smaller model"
"""What helps where a single pair does not fit."""


class Steps(Protocol):
    """What the loop needs to know about the pairs: how many tokens each costs, and the loss of some of them."""

    sizes: Sequence[int]
    draw: int
    """A number for the seed and the step, set before each step; whatever is random follows from it and the pair."""

    def loss(self, indexes: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss over the pairs, and values per pair `[len(indexes)]` (NaN where one does not apply), detached."""
        ...


def total_steps(pairs: int, options: TrainOptions) -> int:
    """Optimiser steps of a run."""
    return options.max_steps or max(1, math.ceil(round(options.epochs * pairs) / options.batch))


def batch_at(step: int, pairs: int, options: TrainOptions, seed: int) -> list[int]:
    """Indexes of the pairs of one step: consecutive stretches of seeded permutations, one permutation an epoch.

    The last batch of a run set by `epochs` may be smaller; with `max_steps` every batch is full.
    """
    end = (step + 1) * options.batch
    if not options.max_steps:
        end = min(end, max(1, round(options.epochs * pairs)))
    return [int(_permutation(pairs, seed, i // pairs)[i % pairs]) for i in range(step * options.batch, end)]


@lru_cache(maxsize=2)
def _permutation(pairs: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(pairs)


def learning_rate(step: int, total: int, options: TrainOptions) -> float:
    """Rate of one step: linear warm-up that ends at `lr`, then constant or half a cosine towards zero."""
    warm = math.ceil(options.warmup_ratio * total)
    if step < warm:
        return options.lr * (step + 1) / warm
    if options.schedule == "constant":
        return options.lr
    return options.lr * 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def micro_batches(indexes: Sequence[int], sizes: Sequence[int], size: int) -> Iterator[list[int]]:
    """Cuts a batch into micro-batches of similar length, longest first, so that running out of memory shows at once."""
    ordered = sorted(indexes, key=lambda i: (-sizes[i], i))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def accumulate(
    steps: Steps, indexes: Sequence[int], size: int, share: int, idle: Sequence[int] = ()
) -> tuple[dict[str, Tensor], int]:
    """Backward over the micro-batches; each pair weighs 1 / `share`. Returns values per metric `[pairs]` and tokens.

    `idle`: pairs, each a micro-batch of weight 0 behind the others, for a process that has fewer than another: where
    layers are in shares, one that ran no forward would let the others wait for its share for ever.
    """
    values: dict[str, list[Tensor]] = {}
    for micro in micro_batches(indexes, steps.sizes, size):
        loss, metrics = steps.loss(micro)
        backward(loss * (len(micro) / share))
        for name, value in (metrics | {"loss": loss.detach().expand(len(micro))}).items():
            values.setdefault(name, []).append(value)
    for index in idle:
        backward(steps.loss([index])[0] * 0.0)
    return {name: torch.cat(parts) for name, parts in values.items()}, sum(steps.sizes[i] for i in indexes)


def backward(loss: Tensor) -> None:
    """Gradients of a loss; none where nothing that trains is in it: a projector, of pairs without an image."""
    if loss.requires_grad:
        loss.backward()


def _gradients(
    steps: Steps,
    constants: StepConstants | None,
    params: Mapping[str, Parameter],
    batch: Sequence[int],
    seed: int,
    shrink: Shrinking,
    options: TrainOptions,
) -> tuple[dict[str, Tensor], int]:
    """`accumulate` of this process's share of one step's batch, from the start of the step where its micro-batches turn
    out too large for the memory: half a backward pass must not stay in the gradients.

    Where layers are in shares no process may begin again alone; there too little memory is a `UsageError`."""
    mine, size = share(batch), options.micro_batch or options.batch
    sharded = any(isinstance(value, DTensor) for value in params.values())

    def tried(size: int) -> tuple[dict[str, Tensor], int]:
        torch.manual_seed(seed)
        for value in params.values():
            value.grad = None
        if constants is not None:
            constants.start(params)
        most = math.ceil(math.ceil(len(batch) / count()) / size)
        idle = [batch[0]] * (most - math.ceil(len(mine) / size)) if sharded else []
        return accumulate(steps, mine, size, len(batch), idle)

    if not sharded:
        return shrink(tried, size)
    try:
        return tried(size)
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            raise UsageError(
                f"out of memory with micro-batches of {size}; set align.micro_batch, or {TOO_LARGE}"
            ) from None
        raise


def fit(
    steps: Steps,
    params: Mapping[str, Parameter],
    options: TrainOptions,
    out: Path,
    *,
    label: str,
    seeds: tuple[int, int],
    fingerprint: str,
    resume: bool = True,
) -> list[Row]:
    """Trains `params` in place and returns the rows of `out/metrics.jsonl`.

    `seeds` are those of the model (dropout) and of the data order. With `resume`, goes on from
    `out/checkpoint.safetensors`, if it was made under this `fingerprint`; one of other settings, data or weights stays
    unused until the next one takes its place, a damaged one is set aside. Several processes (`accelerate launch`)
    share each batch and sum their gradients, those of weights in shares too. Micro-batches that do not fit in memory
    are made smaller. Of one process Ctrl-C and SIGTERM wait for the end of the step and leave a checkpoint.
    """
    device = next(iter(params.values())).device
    join(cpu=device.type == "cpu")
    if options.batch < count():
        raise UsageError(f"batch {options.batch} is smaller than the {count()} processes; raise it")
    pairs = len(steps.sizes)
    total = total_steps(pairs, options)
    kinds = [{"params": part} for part in groups(params.values())]
    optimizer = torch.optim.AdamW(kinds, lr=options.lr, weight_decay=options.weight_decay)
    path = out / checkpoint.NAME
    start, before = _resume(path, params, optimizer, fingerprint) if resume and path.is_file() else (0, [])
    metrics = _metrics(out, before, options, label)
    pending = _Pending(device)
    shrink = Shrinking("align.micro_batch", TOO_LARGE)
    unchecked = {} if start else dict(params)
    unreached: Callable[[Sequence[int]], Collection[str]] = getattr(steps, "unreached", lambda batch: ())
    constants: StepConstants | None = getattr(steps, "constants", None)
    if constants is not None:
        constants.resume(before)
    with _rng_kept(), held_signals() if count() == 1 else nullcontext(lambda: None) as stopped:
        for step in track(range(start, total), f"train {label}", total - start):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, total, options)
            batch = batch_at(step, pairs, options, seeds[1])
            steps.draw = _mix(seeds[0], step)
            seed = _mix(seeds[0], step, rank())
            if constants is not None:
                constants.before(share(batch), options.micro_batch or options.batch, summed)
            values, tokens = _gradients(steps, constants, params, batch, seed, shrink, options)
            sum_gradients(params)
            if unchecked:
                later = unreached(batch)
                check_gradients({name: unchecked[name] for name in unchecked if name not in later}, step + 1)
                unchecked = {name: unchecked[name] for name in unchecked if name in later}
            norm = clip_gradients(params.values(), options.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seen = (step * options.batch + len(batch)) / pairs
            row: Row = {"step": step + 1, "epoch": round(seen, 6), "lr": learning_rate(step, total, options)}
            row |= constants.finish(summed) if constants is not None else {}
            pending.add(row, values, norm, tokens)
            stop = stopped()
            save = bool(options.checkpoint_every) and (step + 1) % options.checkpoint_every == 0 or stop is not None
            if save or (step + 1) % options.log_every == 0 or step + 1 == total:
                rows = pending.flush()
                if metrics:
                    metrics.add(rows)
            if save:
                meta = {"step": step + 1, "fingerprint": fingerprint}
                checkpoint.save(path, params, optimizer, meta, metrics.rows if metrics else [])
            if stop is not None:
                say(f"stopped after step {step + 1} of {total}, which {path} holds")
                stop()
    if metrics:
        metrics.close()
    return metrics.rows if metrics else []


def _resume(
    path: Path,
    params: Mapping[str, Parameter],
    optimizer: torch.optim.Optimizer,
    fingerprint: str,
) -> tuple[int, list[Row]]:
    """How many steps are done, and their rows of metrics; none where the checkpoint is another's or damaged."""
    try:
        meta = checkpoint.read_meta(path)
        if meta.get("fingerprint") != fingerprint:
            say(f"{path}: made with other settings, pairs, images or weights; trained anew from step 1")
            return 0, []
        rows = checkpoint.restore(path, params, optimizer)
        say(f"resumed at step {meta['step']} from {path}")
        return int(meta["step"]), rows
    except UsageError:
        if rank() == 0:
            set_aside(path, "damaged, or not a checkpoint of this program")
        return 0, []


def _metrics(out: Path, before: list[Row], options: TrainOptions, label: str) -> MetricsFile | None:
    if rank():
        return None
    settings = options.model_dump()
    return MetricsFile(out / "metrics.jsonl", before, report_to=options.report_to, label=label, settings=settings)


class _Pending:
    """Steps whose numbers are still on the device. They are fetched together, so a step never waits for a metric."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.names: list[str] | None = None
        self.rows: list[tuple[Row, dict[str, Tensor], Tensor]] = []
        self.since = time.perf_counter()

    def add(self, row: Row, values: dict[str, Tensor], norm: Tensor, tokens: int) -> None:
        """Keeps sum and count [2] of each metric of one step, and [tokens, norm]; NaN values count nowhere."""
        sums = {name: torch.stack([torch.nansum(v.float()), (~v.isnan()).sum()]) for name, v in values.items()}
        rest = torch.stack([torch.tensor(float(tokens), device=self.device), norm.detach().float()])
        self.rows.append((row, sums, rest))

    def flush(self) -> list[Row]:
        """Fetches the pending steps as rows. A loss that is not finite is a `UsageError` naming the step."""
        if not self.rows:
            return []
        if self.names is None:  # a process without a pair has no metrics of its own to name; the first has pairs
            self.names = first_of(sorted({name for _, sums, _ in self.rows for name in sums}))
        none = torch.zeros(2, device=self.device)
        table = torch.stack(
            [torch.cat([*(sums.get(name, none) for name in self.names or ()), rest]) for _, sums, rest in self.rows]
        )
        table[:, :-1] = summed(table[:, :-1].contiguous())
        fetched = table.tolist()
        seconds = time.perf_counter() - self.since
        rows = [self._row(row, values, seconds) for (row, _, _), values in zip(self.rows, fetched, strict=True)]
        self.rows, self.since = [], time.perf_counter()
        return rows

    def _row(self, row: Row, values: list[float], seconds: float) -> Row:
        *sums, tokens, norm = values
        each = seconds / len(self.rows)
        for name, total, number in zip(self.names or (), sums[::2], sums[1::2], strict=True):
            row[name] = total / number if number else None
        if row["loss"] is None or not math.isfinite(row["loss"] + norm):
            what = f"loss {row['loss']}, gradient norm {norm}"
            raise Diverged(f"step {row['step']}: {what}; lower lr, or turn bf16 off")
        row["grad_norm"] = norm
        row |= {"tokens_per_s": round(tokens / each, 1), "peak_memory_mb": peak_memory_mb(self.device)}
        return row | {"seconds": round(each, 4)}


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MB: of the accelerator's allocator, or of the process on CPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)


@contextmanager
def _rng_kept() -> Iterator[None]:
    """Leaves the caller's RNG as it was."""
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        yield


def _mix(*numbers: Any) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
