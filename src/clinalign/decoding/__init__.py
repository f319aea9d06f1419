"""Decoders against hallucination, one file each, behind one call: `decode`. Imported on first use, so that recipes load
fast; `options.py` says what each can be told."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clinalign.decoding.decoders import answer, check, decode, function_of

__all__ = ["answer", "check", "decode", "function_of"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("clinalign.decoding.decoders"), name)
    raise AttributeError(f"module 'clinalign.decoding' has no attribute '{name}'")
