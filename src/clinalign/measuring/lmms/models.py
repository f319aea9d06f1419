"""The runner asks every plug-in for models; this one has none."""

from __future__ import annotations

AVAILABLE_MODELS: dict[str, str] = {}
