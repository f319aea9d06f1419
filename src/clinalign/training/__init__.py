"""Pairs into an adapter. Names are imported on first use, so that reading the options does not import torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clinalign.training.result import TrainResult, write_card
    from clinalign.training.trainer import fill_caches, train

__all__ = ["TrainResult", "fill_caches", "train", "write_card"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'clinalign.training' has no attribute '{name}'")
    home = "trainer" if name in ("train", "fill_caches") else "result"
    return getattr(importlib.import_module(f"clinalign.training.{home}"), name)
