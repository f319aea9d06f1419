"""Examples into the model's own answers. Functions are imported on first use, so that recipes load fast."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clinalign.answers.local import answer

__all__ = ["answer"]


def __getattr__(name: str) -> Any:
    if name == "answer":
        return import_module("clinalign.answers.local").answer
    raise AttributeError(f"module 'clinalign.answers' has no attribute '{name}'")
