"""The cards of the page: test questions before and after, and the pairs that taught the difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clinalign.data.images import read_image
from clinalign.pages.headline import shown_name
from clinalign.pages.markup import difference, spans_marked
from clinalign.pages.pictures import outline, picture
from clinalign.records import Example, Outcome, Pair, Region

SHOWN = {"fixed": 12, "broken": 6, "wrong": 6, "right": 6}
LABELS = {"fixed": "corrected", "broken": "got worse", "wrong": "still wrong", "right": "right before and after"}
PAIRS_SHOWN = 12
VERDICTS = {True: ("right", "right"), False: ("wrong", "wrong"), None: ("", "no judge could tell")}


def example_cards(
    examples: Mapping[str, Example], outcomes: Sequence[Outcome], systems: Sequence[str], folder: Path
) -> tuple[list[dict[str, Any]], list[tuple[str, str, int]]]:
    """Cards of the first questions (in table order) of every kind of change, and the filters with counts over all."""
    clean, kinds = _changes(examples, outcomes, systems)
    before, after = systems
    cards = []
    for kind, ids in kinds.items():
        for id in ids[: SHOWN[kind]]:
            example, was, now = examples[id], clean[before, id], clean[after, id]
            texts = difference(was.text, now.text)
            answers = [
                {
                    "who": shown_name(o.system),
                    "text": text,
                    "state": VERDICTS[o.correct][0],
                    "verdict": VERDICTS[o.correct][1],
                }
                for o, text in zip((was, now), texts)
            ]
            cards.append(
                {
                    "kind": kind,
                    "question": example.question,
                    "truth": example.answer,
                    "answers": answers,
                    "images": _images(example, folder),
                }
            )
    counts = [(kind, LABELS[kind], len(ids)) for kind, ids in kinds.items() if ids]
    return cards, [("all", "all shown", len(cards)), *counts]


def shown_examples(
    examples: Mapping[str, Example], outcomes: Sequence[Outcome], systems: Sequence[str]
) -> list[Example]:
    """The questions whose cards the page shows."""
    _, kinds = _changes(examples, outcomes, systems)
    return [examples[id] for kind, ids in kinds.items() for id in ids[: SHOWN[kind]]]


def pair_cards(pairs: Sequence[Pair], examples: Mapping[str, Example], folder: Path) -> list[dict[str, Any]]:
    """Cards of pairs spread over the corpus: image, corrupted twin, control, and both answers with their spans."""
    step = max(1, len(pairs) // PAIRS_SHOWN)
    shown = pairs[::step][:PAIRS_SHOWN]
    return [
        {
            "prompt": pair.prompt,
            "own": pair.own,
            "chosen": spans_marked(pair.chosen, pair.chosen_spans, "chosen"),
            "rejected": spans_marked(pair.rejected, pair.rejected_spans, "rejected"),
            "kind": f"{pair.edit_kind}; corruption {pair.corruption} ({pair.corruption_area})",
            "images": _pair_images(pair, folder),
        }
        for pair in shown
        if pair.example_id in examples
    ]


def _changes(
    examples: Mapping[str, Example], outcomes: Sequence[Outcome], systems: Sequence[str]
) -> tuple[dict[tuple[str, str], Outcome], dict[str, list[str]]]:
    """Clean outcomes by (system, example), and example ids by how the verdict changed, those with a region first."""
    before, after = systems
    clean = {(o.system, o.example_id): o for o in outcomes if o.condition == "clean"}
    kinds: dict[str, list[str]] = {kind: [] for kind in SHOWN}
    for system, id in clean:
        if system == before and (after, id) in clean and id in examples:
            kinds[_change(clean[before, id].correct, clean[after, id].correct)].append(id)
    return clean, {kind: sorted(ids, key=lambda id: not examples[id].regions) for kind, ids in kinds.items()}


def _change(was: bool | None, now: bool | None) -> str:
    if now:
        return "right" if was else "fixed"
    return "broken" if was else "wrong"


def _images(example: Example, folder: Path) -> list[dict[str, Any]]:
    region = example.regions[0] if example.regions else None
    images = [_image(folder, path, "image", region if n == 0 else None) for n, path in enumerate(example.images)]
    shown = folder / "evaluation" / "images"
    for condition, label in (("lesion_noise", "lesion noised"), ("removal", "lesion removed")):
        path = shown / f"{example.id}-{condition}.png"
        if path.is_file():
            images.append({"uri": picture(path), "alt": label, "outline": None})
    return images


def _pair_images(pair: Pair, folder: Path) -> list[dict[str, Any]]:
    images = [_image(folder, path, "image", pair.region if n == 0 else None) for n, path in enumerate(pair.images)]
    for label, paths in (("corrupted", pair.corrupted_images), ("control patch", pair.control_images)):
        images += [_image(folder, path, label, None) for path in paths or [] if path not in pair.images]
    return images


def _image(folder: Path, path: str, alt: str, region: Region | None) -> dict[str, Any]:
    size = read_image(folder / path).shape[:2] if region and not region.mask else (0, 0)
    return {"uri": picture(folder / path), "alt": alt, "outline": outline(region, folder, (size[0], size[1]))}
