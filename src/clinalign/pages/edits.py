"""The pairs that the page shows for review: image, twin, both answers with their edit, and what a decision needs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clinalign.pages.markup import spans_marked
from clinalign.pages.pictures import TWIN_SIDE, framed
from clinalign.records import Example, Pair

SHOWN = 60
CORRUPTIONS = {
    "noise": "noise",
    "inpaint": "lesion painted over",
    "counterfactual": "lesion removed",
    "crop": "cropped",
    "black": "black",
    "none": "none",
}


def pair_cards(
    pairs: Sequence[Pair], examples: Mapping[str, Example], folder: Path, count: int = SHOWN
) -> list[dict[str, Any]]:
    """Cards of at most `count` pairs, evenly spread over the table (0: all)."""
    step = max(1, -(-len(pairs) // count)) if count else 1
    return [_card(pair, examples.get(pair.example_id), folder) for pair in pairs[::step]]


def shown_rule(shown: int, total: int) -> str:
    """Which pairs are on the page, in words."""
    if shown == total:
        return f"All {total} pairs are shown."
    step = -(-total // shown)
    return (
        f"{shown} of {total} pairs are shown, one in {step} of the table; clinalign report FOLDER --pairs 0 shows all."
    )


def _card(pair: Pair, example: Example | None, folder: Path) -> dict[str, Any]:
    region = pair.region if pair.region is not None and (pair.region.mask or pair.region.box) else None
    area = {"lesion": "in the lesion", "image": "over the whole image"}.get(pair.corruption_area, "")
    corruption = (
        f"{CORRUPTIONS.get(pair.corruption, pair.corruption)} {area if pair.corruption == 'noise' else ''}".strip()
    )
    images = [framed(folder, path, "image", region if n == 0 else None) for n, path in enumerate(pair.images)]
    for label, paths in ((f"twin: {corruption}", pair.corrupted_images), ("control", pair.control_images)):
        images += [framed(folder, path, label, side=TWIN_SIDE) for path in paths or [] if path not in pair.images]
    keys = ("round", "chosen", "rejected", "own")
    return {
        "id": pair.id,
        "prompt": pair.prompt,
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
