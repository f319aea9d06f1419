"""The findings that a corpus speaks of: mistakes are drawn from these, so that no edit names a finding of its own."""

from __future__ import annotations

from collections.abc import Sequence

from clinalign.language.graph import CONCEPTS
from clinalign.language.parse import parse
from clinalign.records import Example


def values_of(examples: Sequence[Example]) -> dict[str, list[str]]:
    """{"finding": names} of the examples' questions, truths and slots; empty where there are fewer than three."""
    found: set[str] = set()
    for example in examples:
        found.update(name for name in example.slots if name in CONCEPTS)
        texts = [example.question] + ([example.answer] if example.task != "report" else [])
        found.update(m.value for text in texts for m in parse(text).of("finding"))
    named = sorted(name for name in found if name in CONCEPTS and CONCEPTS[name].group not in ("any", "device"))
    return {"finding": named} if len(named) > 2 else {}
