"""A model into answers, judged outcomes and measurements. Imported on first use, so that recipes load fast."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clinalign.measuring.asking import answer
    from clinalign.measuring.measure import evaluate
    from clinalign.measuring.pictures import picture_examples

__all__ = ["answer", "evaluate", "picture_examples"]
_FILES = {"answer": "asking", "evaluate": "measure", "picture_examples": "pictures"}


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f"clinalign.measuring.{_FILES[name]}"), name)
    raise AttributeError(f"module 'clinalign.measuring' has no attribute '{name}'")
