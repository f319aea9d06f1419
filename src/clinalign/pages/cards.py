"""The cards of the page: test questions before and after, and the pairs that are shown for review."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clinalign.evaluation.cases import changes, shown_examples
from clinalign.evaluation.metrics import question_kind
from clinalign.evaluation.scores import Margins, flipped
from clinalign.pages.markup import difference, shaded, spans_marked
from clinalign.pages.pictures import SMALL_SIDE, framed, heat
from clinalign.pages.results import shown_name
from clinalign.records import PLACE, Example, Outcome, Pair, Region

MOST_SHOWN = 4
"""Images of one question, or corrupted ones of one kind, that a card shows."""
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
    "counterfactual": "lesion absent",
    "inpainted": "lesion inpainted",
}
"""Condition -> how the page names it."""


def example_cards(
    examples: Mapping[str, Example],
    outcomes: Sequence[Outcome],
    systems: Sequence[str],
    folder: Path,
    pictures: Mapping[str, Any],
    margins: Margins,
    times: int = 1,
) -> list[dict[str, Any]]:
    """One card a shown question. `pictures`: the content of `evaluation/pictures.json`, or nothing.

    A card whose pictures cannot be drawn, for whatever reason, is shown without them and costs a line."""
    before, after = systems
    clean = {(o.system, o.example_id): o for o in outcomes if o.condition == "clean"}
    measured = pictures.get("examples", {})
    kinds = changes(examples, outcomes, systems)
    change = {id: kind for kind, ids in kinds.items() for id in ids}
    return [
        _card(
            example,
            change[example.id],
            [clean[system, example.id] for system in (before, after)],
            folder,
            measured.get(example.id, {}),
            margins,
        )
        for example in shown_examples(examples, outcomes, systems, times)
    ]


def options(cards: Iterable[Mapping[str, Any]], field: str) -> list[tuple[str, int]]:
    """The values of a card's field with how many shown cards have them, for a filter."""
    counted = Counter(value for card in cards for value in card[field].split("\n") if value)
    return sorted(counted.items())


def _card(
    example: Example,
    kind: str,
    answers: Sequence[Outcome],
    folder: Path,
    measured: Mapping[str, Any],
    margins: Margins,
) -> dict[str, Any]:
    was, now = answers
    systems = [was.system, now.system]
    flips = [f"{c}/{s}" for c in CONDITIONS for s in systems if flipped(margins, c, s, example.id)]
    region = example.regions[0] if example.regions else None
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
        "images": _own_images(folder, example.images, example.regions),
        "corrupted": _corrupted(folder, measured.get("images", {})),
        "heats": _heats(folder, measured),
        "peak": measured.get("peak"),
        "effects": _effects(example, margins, systems),
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


def _own_images(folder: Path, paths: Sequence[str], regions: Sequence[Region]) -> list[dict[str, Any]]:
    """The images of a question or pair with the region of its finding, the one that shows it first; of many (slices)
    those that show it, or some spread over all."""
    first = regions[0] if regions else None
    seen = {first.image: first} if first else {}
    for region in regions:
        if first is not None and region.label == first.label:
            seen.setdefault(region.image, region)
    order = [*seen, *(n for n in range(len(paths)) if n not in seen)]
    if len(paths) > MOST_SHOWN:
        order = list(seen)[:MOST_SHOWN] or [n * len(paths) // MOST_SHOWN for n in range(MOST_SHOWN)]
    label = "image" if len(paths) == 1 else "image {} of " + str(len(paths))
    drawn = [framed(folder, paths[n], label.format(n + 1), seen.get(n)) for n in order if n < len(paths)]
    return [image for image in drawn if image]


def _corrupted(folder: Path, paths: Mapping[str, str]) -> list[dict[str, Any]]:
    drawn = [framed(folder, paths[name], label, side=SMALL_SIDE) for name, label in CONDITIONS.items() if name in paths]
    return [picture for picture in drawn if picture]


def _heats(folder: Path, measured: Mapping[str, Any]) -> list[dict[str, str]]:
    found = [(name, heat(folder / path)) for name, path in measured.get("attention", {}).items()]
    return [{"label": f"attention, {shown_name(name)}", "uri": uri} for name, uri in found if uri]


def _effects(example: Example, margins: Margins, systems: Sequence[str]) -> list[dict[str, Any]]:
    """How strongly each system prefers its own answer over the opposite, condition by condition."""

    id = example.id

    def row(condition: str, label: str) -> dict[str, Any]:
        cells = [
            {"value": _margin(margins.get((condition, s, id))), "flipped": flipped(margins, condition, s, id)}
            for s in systems
        ]
        return {"label": label, "cells": cells}

    conditions = {"clean": "image as it is"} | CONDITIONS
    rows = [row(c, label) for c, label in conditions.items() if any((c, s, id) in margins for s in systems)]
    return rows if len(rows) > 1 else []


def _margin(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}".replace("-", "−")


PAIRS_SHOWN = 60
CORRUPTIONS = {
    "noise": "noise",
    "inpaint": "lesion painted over",
    "counterfactual": "lesion absent",
    "crop": "cropped",
    "black": "black",
    "none": "none",
}


def pair_cards(
    pairs: Sequence[Pair], examples: Mapping[str, Example], folder: Path, count: int = PAIRS_SHOWN
) -> list[dict[str, Any]]:
    """Cards of at most `count` pairs, evenly spread over the table (0: all)."""
    step = max(1, -(-len(pairs) // count)) if count else 1
    return [_pair_card(pair, examples.get(pair.example_id), folder) for pair in pairs[::step]]


def shown_rule(shown: int, total: int) -> str:
    """Which pairs are on the page, in words."""
    if shown == total:
        return f"All {total} pairs are shown."
    step = -(-total // shown)
    return (
        f"{shown} of {total} pairs are shown, one in {step} of the table; clinalign report FOLDER --pairs 0 shows all."
    )


def _pair_card(pair: Pair, example: Example | None, folder: Path) -> dict[str, Any]:
    region = pair.region if pair.region is not None and (pair.region.mask or pair.region.box) else None
    area = {"lesion": "in the lesion", "image": "over the whole image"}.get(pair.corruption_area, "")
    corruption = (
        f"{CORRUPTIONS.get(pair.corruption, pair.corruption)} {area if pair.corruption == 'noise' else ''}".strip()
    )
    regions = [region, *(example.regions if example else [])] if region else []
    images: list[Any] = [*_own_images(folder, pair.images, regions)]
    for label, paths in ((f"corrupted: {corruption}", pair.corrupted_images), ("control", pair.control_images)):
        changed = [path for path in paths or [] if path not in pair.images]
        images += [framed(folder, path, label, side=SMALL_SIDE) for path in changed[:MOST_SHOWN]]
    keys = ("round", "chosen", "rejected", "own")
    return {
        "id": pair.id,
        "prompt": pair.prompt.replace(PLACE, ""),
        "truth": example.answer if example else "",
        "own": pair.own,
        "sides": [
            _side(pair, "chosen", "preferred", pair.chosen, pair.chosen_spans),
            _side(pair, "rejected", "rejected", pair.rejected, pair.rejected_spans),
        ],
        "ekind": pair.edit_kind,
        "corruption": corruption,
        "was": "right" if pair.was_correct else "wrong",
        "editor": pair.editor,
        "modality": " ".join(example.modality.split()) if example else "",
        "images": [image for image in images if image],
        "data": json.dumps({"pair": pair.id} | {key: getattr(pair, key) for key in keys}, ensure_ascii=False),
    }


def _side(pair: Pair, side: str, label: str, text: str, spans: Sequence[Sequence[int]]) -> dict[str, Any]:
    return {
        "state": side,
        "label": label,
        "who": "the model's own words" if pair.own == side else "edited",
        "text": spans_marked(text, spans, side),
    }
