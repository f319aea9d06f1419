"""The test questions that a run shows, before and after: which they are is settled here and nowhere else."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from clinalign.evaluation.metrics import question_kind
from clinalign.records import Example, Outcome

SHOWN = {"fixed": 12, "broken": 12, "wrong": 8, "right": 4, "unjudged": 4}
"""How many questions are shown of each kind of change."""


def shown_examples(
    examples: Mapping[str, Example], outcomes: Sequence[Outcome], systems: Sequence[str], times: int = 1
) -> list[Example]:
    """The questions that are shown; `times` as many of each kind of change."""
    kinds = changes(examples, outcomes, systems)
    return [examples[id] for kind, ids in kinds.items() for id in _chosen(examples, ids, SHOWN[kind] * times)]


def changes(
    examples: Mapping[str, Example], outcomes: Sequence[Outcome], systems: Sequence[str]
) -> dict[str, list[str]]:
    """Example ids by how the verdict changed between two systems, in table order."""
    before, after = systems
    clean = {(o.system, o.example_id): o.correct for o in outcomes if o.condition == "clean"}
    kinds: dict[str, list[str]] = {kind: [] for kind in SHOWN}
    for system, id in clean:
        if system == before and (after, id) in clean and id in examples:
            kinds[_change(clean[before, id], clean[after, id])].append(id)
    return kinds


def counts_by_kind(examples: Mapping[str, Example], kinds: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """By kind of question: how many there are, how many were fixed, got worse, and stayed wrong."""
    counted = {kind: Counter(question_kind(examples[id]) for id in ids) for kind, ids in kinds.items()}
    names = sorted(set().union(*counted.values()))
    return [
        {"kind": name.replace("_", " "), "all": sum(c[name] for c in counted.values())}
        | {kind: c[name] for kind, c in counted.items()}
        for name in names
    ]


def _change(was: bool | None, now: bool | None) -> str:
    if was is None or now is None:
        return "unjudged"
    if now:
        return "right" if was else "fixed"
    return "broken" if was else "wrong"


def _chosen(examples: Mapping[str, Example], ids: Sequence[str], count: int) -> list[str]:
    groups: dict[str, list[str]] = defaultdict(list)
    for id in sorted(ids, key=lambda id: not examples[id].regions):
        groups[question_kind(examples[id])].append(id)
    turns = [id for turn in zip_longest(*groups.values()) for id in turn if id is not None]
    return sorted(turns, key=lambda id: not examples[id].regions)[:count]
