"""Tiny models of transformers' image-text-to-text types, built from their configurations."""

from .build import build

__all__ = ["build"]
