"""One safetensors file that holds all a run needs to go on: weights, optimiser, position. No pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from clinalign.errors import UsageError
from clinalign.storage.tensors import read_facts, write_tensors

NAME = "checkpoint.safetensors"
DELETE = "delete it to start over"


def save(path: Path, params: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, meta: dict[str, Any]) -> None:
    """Writes trained parameters, AdamW moments and `meta` (JSON) as one file, atomically.

    Learning rate, data order and RNG are functions of the step and the seeds (`loop.py`): there is no state to keep.
    """
    tensors: dict[str, Tensor] = {f"param/{name}": value.detach() for name, value in params.items()}
    for name, value in params.items():
        for key, state in optimizer.state.get(value, {}).items():
            tensors[f"optimizer/{key}/{name}"] = state
    write_tensors(path, tensors, meta)


def read_meta(path: Path) -> dict[str, Any]:
    """The `meta` of a checkpoint. A torn or foreign file is a `UsageError`."""
    try:
        with safe_open(path, framework="pt") as file:
            return read_facts(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"{path}: not a checkpoint of this program ({error}); {DELETE}") from error


def restore(path: Path, params: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Puts weights, optimiser moments back. Names or shapes that differ are a `UsageError`."""
    with safe_open(path, framework="pt") as file:
        stored = {key for key in file.keys() if key.startswith("param/")}
        if stored != {f"param/{name}" for name in params}:
            raise UsageError(f"{path}: holds other parameters than the model trains; {DELETE}")
        states: dict[str, dict[str, Tensor]] = {}
        for key in file.keys():
            kind, _, rest = key.partition("/")
            if kind == "param":
                _copy(params[rest], file.get_tensor(key), path, rest)
            elif kind == "optimizer":
                field, _, name = rest.partition("/")
                states.setdefault(name, {})[field] = file.get_tensor(key)
        for name, state in states.items():
            value = params[name]
            optimizer.state[value] = {k: v.to(value.device) if k != "step" else v for k, v in state.items()}


def _copy(into: Tensor, value: Tensor, path: Path, name: str) -> None:
    if into.shape != value.shape:
        raise UsageError(f"{path}: {name} is {list(value.shape)}, the model has {list(into.shape)}; {DELETE}")
    with torch.no_grad():
        into.copy_(value)
