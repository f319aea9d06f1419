"""Outcomes and measurements into metrics with intervals and tests. Imported on first use, so that recipes load fast."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clinalign.evaluation.compare import compare_runs
    from clinalign.evaluation.peers import add_external
    from clinalign.evaluation.summary import card_note, card_rows, summarise

__all__ = ["add_external", "card_note", "card_rows", "compare_runs", "summarise"]
_FILES = {
    "add_external": "peers",
    "compare_runs": "compare",
    "summarise": "summary",
    "card_rows": "summary",
    "card_note": "summary",
}


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f"clinalign.evaluation.{_FILES[name]}"), name)
    raise AttributeError(f"module 'clinalign.evaluation' has no attribute '{name}'")
