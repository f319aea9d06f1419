"""Pairs into an adapter. `train` is imported on first use, so that reading the options does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clinalign.training.trainer import TrainResult, train

__all__ = ["TrainResult", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from clinalign.training import trainer

        return getattr(trainer, name)
    raise AttributeError(f"module 'clinalign.training' has no attribute '{name}'")
