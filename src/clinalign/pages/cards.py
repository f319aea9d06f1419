"""The test questions that the page shows, before and after."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from clinalign.pages.headline import shown_name
from clinalign.pages.markup import difference, shaded
from clinalign.pages.pictures import TWIN_SIDE, framed, heat
from clinalign.records import Example, Outcome

SHOWN = {"fixed": 12, "broken": 12, "wrong": 8, "right": 4, "unjudged": 4}
LABELS = {
    "fixed": "fixed",
    "broken": "got worse",
    "wrong": "still wrong",
    "right": "right before and after",
    "unjudged": "no verdict",
}
RULE = (
    "Shown are the first questions of each kind of change in the order of the table, question kinds in turn, those "
    "with a marked region first; the counts are over all questions."
)
VERDICTS = {True: ("right", "✓ right"), False: ("wrong", "✗ wrong"), None: ("unjudged", "? no verdict")}
CONDITIONS = {
    "lesion_noise": "lesion covered with noise",
    "control": "same noise elsewhere (control)",
    "removal": "lesion removed",
}
"""Condition -> how the page names it."""

Outcomes = Mapping[tuple[str, str, str], Outcome]
"""Outcomes by (condition, system, example id)."""


def shown_examples(
    examples: Mapping[str, Example], outcomes: Sequence[Outcome], systems: Sequence[str], times: int = 1
) -> list[Example]:
    """The questions whose cards the page shows; `times` as many of each kind of change."""
    kinds = changes(examples, outcomes, systems)
    return [examples[id] for kind, ids in kinds.items() for id in _chosen(examples, ids, SHOWN[kind] * times)]


def example_cards(
    examples: Mapping[str, Example],
    outcomes: Sequence[Outcome],
    systems: Sequence[str],
    folder: Path,
    pictures: Mapping[str, Any],
    times: int = 1,
) -> list[dict[str, Any]]:
    """One card a shown question. `pictures`: the content of `evaluation/pictures.json`, or nothing."""
    before, after = systems
    by = {(o.condition, o.system, o.example_id): o for o in outcomes}
    measured = pictures.get("examples", {})
    kinds = changes(examples, outcomes, systems)
    change = {id: kind for kind, ids in kinds.items() for id in ids}
    return [
        _card(example, change[example.id], by, (before, after), folder, measured.get(example.id, {}))
        for example in shown_examples(examples, outcomes, systems, times)
    ]


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


def question_kind(example: Example) -> str:
    """The data set's own name for the kind of question where there is one, otherwise the task."""
    return " ".join((example.kind or example.task).split())


def counts_by_kind(examples: Mapping[str, Example], kinds: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """By kind of question: how many there are, how many were fixed, got worse, and stayed wrong."""
    counted = {kind: Counter(question_kind(examples[id]) for id in ids) for kind, ids in kinds.items()}
    names = sorted(set().union(*counted.values()))
    return [
        {"kind": name.replace("_", " "), "all": sum(c[name] for c in counted.values())}
        | {kind: c[name] for kind, c in counted.items()}
        for name in names
    ]


def options(cards: Iterable[Mapping[str, Any]], field: str) -> list[tuple[str, int]]:
    """The values of a card's field with how many shown cards have them, for a filter."""
    counted = Counter(value for card in cards for value in card[field].split("\n") if value)
    return sorted(counted.items())


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


def _card(
    example: Example, kind: str, by: Outcomes, systems: tuple[str, str], folder: Path, measured: Mapping[str, Any]
) -> dict[str, Any]:
    was, now = (by["clean", system, example.id] for system in systems)
    effects = _effects(example, by, systems)
    flips = [f"{condition}/{system}" for condition, system in _flips(example, by, systems)]
    region = example.regions[0] if example.regions else None
    images = [framed(folder, path, "image", region if n == 0 else None) for n, path in enumerate(example.images)]
    return {
        "id": example.id,
        "kind": kind,
        "label": LABELS[kind],
        "qkind": question_kind(example),
        "modality": " ".join(example.modality.split()),
        "flips": "\n".join(flips),
        "question": example.question,
        "truth": example.answer,
        "finding": region.label if region else "",
        "answers": [
            _answer(outcome, text, measured.get("tokens", {}).get(outcome.system))
            for outcome, text in zip((was, now), difference(was.text, now.text))
        ],
        "images": [image for image in images if image],
        "twins": _twins(folder, measured.get("images", {})),
        "heats": _heats(folder, measured),
        "peak": measured.get("peak"),
        "effects": effects,
    }


def _answer(outcome: Outcome, text: Any, tokens: Sequence[Sequence[Any]] | None) -> dict[str, Any]:
    state, verdict = VERDICTS[outcome.correct]
    return {
        "who": shown_name(outcome.system),
        "text": text if outcome.text.strip() else "(no answer)",
        "shaded": shaded(outcome.text, tokens) if tokens else None,
        "state": state,
        "verdict": verdict,
        "reason": outcome.reason.replace("_", " ") if outcome.correct is None else "",
    }


def _twins(folder: Path, paths: Mapping[str, str]) -> list[dict[str, Any]]:
    found = [framed(folder, paths[name], label, side=TWIN_SIDE) for name, label in CONDITIONS.items() if name in paths]
    return [picture for picture in found if picture]


def _heats(folder: Path, measured: Mapping[str, Any]) -> list[dict[str, str]]:
    found = [(name, heat(folder / path)) for name, path in measured.get("attention", {}).items()]
    return [{"label": f"attention, {shown_name(name)}", "uri": uri} for name, uri in found if uri]


def _flips(example: Example, by: Outcomes, systems: Iterable[str]) -> list[tuple[str, str]]:
    keys = [(condition, system) for condition in CONDITIONS for system in systems]
    return [(c, s) for c, s in keys if (o := by.get((c, s, example.id))) and o.metrics.get("flipped")]


def _effects(example: Example, by: Outcomes, systems: Sequence[str]) -> list[dict[str, Any]]:
    """How strongly each system prefers its own answer over the opposite, condition by condition."""
    rows = []
    for condition, label in CONDITIONS.items():
        cells = []
        for system in systems:
            outcome = by.get((condition, system, example.id))
            metrics = outcome.metrics if outcome else {}
            cells.append({"value": _margin(metrics.get("margin")), "flipped": bool(metrics.get("flipped"))})
        if any(cell["value"] != "–" for cell in cells):
            rows.append({"label": label, "cells": cells})
    if not rows:
        return []
    first = [next((o for c in CONDITIONS if (o := by.get((c, s, example.id)))), None) for s in systems]
    clean = [{"value": _margin(o.metrics.get("margin_clean") if o else None), "flipped": False} for o in first]
    return [{"label": "image as it is", "cells": clean}, *rows]


def _margin(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}".replace("-", "−")
