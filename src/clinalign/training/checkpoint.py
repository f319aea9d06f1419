"""What an interrupted training goes on from: one safetensors file (weights, optimiser, position, metrics; no pickle),
and signals that wait for the end of a step, so that it can be written."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from clinalign.errors import UsageError
from clinalign.processes import rank
from clinalign.storage.tensors import read_facts, write_tensors
from clinalign.training.sharding import shared_like, whole

NAME = "checkpoint.safetensors"
ROWS = "metrics"
DELETE = "delete it to start over"


def save(
    path: Path,
    params: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    meta: dict[str, Any],
    rows: Sequence[dict[str, Any]],
) -> None:
    """Writes trained parameters, AdamW moments, the metrics' `rows` so far and `meta` (JSON) as one file, atomically.

    Learning rate, data order and RNG are functions of the step and the seeds (`loop.py`): there is no state to keep.
    Every process calls it, since shares of a tensor are put together; the first one writes. The file does not know how
    many there were.
    """
    tensors: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> None:
        together = whole(value.detach())
        if rank() == 0:
            tensors[name] = together if together is value else together.cpu()

    for name, value in params.items():
        keep(f"param/{name}", value)
        for key, state in optimizer.state.get(value, {}).items():
            keep(f"optimizer/{key}/{name}", state)
    if rank() == 0:
        tensors[ROWS] = torch.tensor(list(json.dumps(list(rows)).encode()), dtype=torch.uint8)
        write_tensors(path, tensors, meta)


def read_meta(path: Path) -> dict[str, Any]:
    """The `meta` of a checkpoint. A torn or foreign file is a `UsageError`."""
    try:
        with safe_open(path, framework="pt") as file:
            return read_facts(file)
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: not a checkpoint of this program ({error}); {DELETE}") from error


def restore(path: Path, params: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Puts weights and optimiser moments back and gives the metrics' rows. What does not fit is a `UsageError`, and
    then nothing was changed."""
    with safe_open(path, framework="pt") as file:
        stored = {key: file.get_slice(key).get_shape() for key in file.keys() if key.startswith("param/")}
        if stored != {f"param/{name}": list(value.shape) for name, value in params.items()}:
            raise UsageError(f"{path}: holds other parameters than the model trains; {DELETE}")
        rows: list[dict[str, Any]] = json.loads(bytes(file.get_tensor(ROWS).tolist()))
        states: dict[str, dict[str, Tensor]] = {}
        for key in file.keys():
            kind, _, rest = key.partition("/")
            if kind == "param":
                with torch.no_grad():
                    params[rest].copy_(shared_like(file.get_tensor(key), params[rest]))
            elif kind == "optimizer":
                field, _, name = rest.partition("/")
                states.setdefault(name, {})[field] = file.get_tensor(key)
        for name, state in states.items():
            value = params[name]
            optimizer.state[value] = {k: shared_like(v, value) if k != "step" else v for k, v in state.items()}
    return rows


SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_signals() -> Iterator[Callable[[], Callable[[], None] | None]]:
    """While open, the first signal is noted and its handler not called; the function that it gives returns that handler
    ready to be called, None where no signal came. A second signal goes through. Only the main thread holds any."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    noted: list[Callable[[], None]] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        handler = before[number]
        if noted or not callable(handler):
            signal.signal(number, handler)
            signal.raise_signal(number)
        noted.append(lambda: handler(number, None))

    for held in SIGNALS:
        before[held] = signal.signal(held, note)
    try:
        yield lambda: noted[0] if noted else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
