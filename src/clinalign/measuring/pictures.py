"""What the page shows of its examples besides the answers: corrupted images, where the model looked, and each
token's reward.

Written to `evaluation/pictures.json`, with the images beside it:

    systems: [baseline, method]
    examples: {id: {"images": {condition: path}, "attention": {system: path}, "peak": x, "tokens": {system: rows}}}

A row of `tokens` is [start, end, reward]: a character range of that system's answer and log pi - log ref of its token
in nats, pi the method and ref the baseline. An attention map is grey: 0 where the question draws no more attention
than a general description does, 255 at `peak` times as much, `peak` shared by both systems.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clinalign.errors import RowError, first_line
from clinalign.imaging.images import read_image, write_png
from clinalign.language.offsets import decode, token_offsets
from clinalign.lesions import example_conditions
from clinalign.measuring.asking import in_words
from clinalign.measuring.attention import GENERAL, to_images
from clinalign.models.features import from_arrays
from clinalign.models.memory import release
from clinalign.models.tree import Fork, score, tree_of
from clinalign.progress import say
from clinalign.records import Example, Outcome
from clinalign.storage import write_json

DRAWN = ("lesion_noise", "control", "counterfactual", "inpainted")
MAP_SIDE = 48
Load = Callable[[], Any]
Seen = dict[str, Any]


def picture_examples(
    systems: Mapping[str, Load], examples: Sequence[Example], outcomes: Sequence[Outcome], folder: Path, sigma: float
) -> Path:
    """Measures the shown `examples` under two `systems` (baseline first, each a loader) and writes `pictures.json`.

    Both models read both answers, so that the reward is that of the very words on the page. An example that cannot be
    read or drawn, for whatever reason, has no entry and costs a line: the page can do without a picture, a run cannot
    end on one.
    """
    texts = {(o.system, o.example_id): o.text for o in outcomes if o.condition == "clean"}
    readable = [e for e in examples if all((name, e.id) in texts for name in systems)]
    said = {e.id: {name: texts[name, e.id] for name in systems} for e in readable}
    seen: dict[str, dict[str, Seen]] = {}
    images: dict[str, dict[str, str]] = {}
    for name, load in systems.items():
        vlm = load()
        for example in list(readable):
            try:
                if example.id not in images:
                    images[example.id] = _conditions(vlm, example, folder, sigma)
                seen.setdefault(example.id, {})[name] = look(vlm, example, folder, said[example.id])
                continue
            except Exception as error:  # want of memory among them
                _left_out(example.id, error)
            readable.remove(example)
            release()
    rows = {}
    for id in [example.id for example in readable]:
        try:
            rows[id] = _entry(id, seen[id], folder) | {"images": images[id]}
        except Exception as error:
            _left_out(id, error)
    path = folder / "evaluation" / "pictures.json"
    write_json(path, {"systems": list(systems), "general_prompt": GENERAL, "examples": rows})
    return path


def _left_out(id: str, error: Exception) -> None:
    say(f"pictures: example '{id}' is left out: {type(error).__name__}: {first_line(error)}")


def look(vlm: Any, example: Example, folder: Path, texts: Mapping[str, str]) -> Seen:
    """`logps`: of every answer in `texts`, (character ranges, log-probabilities) by token, EOS left out; `map`: float
    [h, w] attention of the last prompt token to the pictured image, relative to that of a general prompt (mean over
    heads and decoder layers each), or None without an image and where the family is not known.
    """
    [example] = in_words(vlm, [example], folder)
    shown = [read_image(folder / image) for image in example.images]
    features, [keys] = from_arrays(vlm, [shown])
    ids = {text: list(vlm.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts.values()}
    trees = [tree_of(vlm, example.prompt, shown, keys, [Fork([answer]) for answer in ids.values()])]
    located = bool(shown) and vlm.located
    trees += [tree_of(vlm, replace(example, question=GENERAL).prompt, shown, keys)] if located else []
    scores = score(vlm, trees, features, batch_size=len(trees), attention=located)
    read = {
        text: (token_offsets(vlm.tokenizer, row, decode(vlm.tokenizer, row)), found[0].tolist())
        for (text, row), found in zip(ids.items(), scores[0].logps, strict=True)
    }
    seen: Seen = {"logps": {name: read[text] for name, text in texts.items()}, "map": None}
    if located:
        at = pictured_image(example)
        asked, general = (
            to_images(vlm, tree, one.attention, shown)[at].mean(0) for tree, one in zip(trees, scores, strict=True)
        )
        seen["map"] = raster(asked / general, vlm.image_token_rects(shown[at]), shown[at].shape[:2])
    return seen


def pictured_image(example: Example) -> int:
    """The number of the image that the page draws on: the first that shows the finding."""
    return min(example.regions[0].image, len(example.images) - 1) if example.regions else 0


def raster(values: np.ndarray, rects: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Token values [N] with their rectangles [N, 4] (x, y, w, h) on an image of `size` (height, width) as a float map
    of at most 48 a side. Tokens that cover the whole image (class tokens) say nothing about a place and are left
    out; where tiles overlap, their mean.
    """
    height, width = size
    scale = MAP_SIDE / max(height, width)
    shape = max(1, round(height * scale)), max(1, round(width * scale))
    out, times = np.zeros(shape), np.zeros(shape)
    for value, (x, y, w, h) in zip(values, rects, strict=True):
        if w * h <= 0 or (w >= width and h >= height and len(values) > 1):
            continue
        rows = slice(round(y * shape[0] / height), max(round((y + h) * shape[0] / height), 1))
        columns = slice(round(x * shape[1] / width), max(round((x + w) * shape[1] / width), 1))
        out[rows, columns] += value
        times[rows, columns] += 1
    return np.asarray(out / np.maximum(times, 1))


def _conditions(vlm: Any, example: Example, folder: Path, sigma: float) -> dict[str, str]:
    """The corrupted and counterfactual images of an example at the model's input resolution, by condition."""
    drawn = example_conditions(example, folder, vlm, sigma=sigma) if example.regions else {}
    paths = {condition: f"evaluation/images/{_stem(example.id)}-{condition}.png" for condition in DRAWN}
    for condition in drawn.keys() & paths.keys():
        write_png(folder / paths[condition], drawn[condition][pictured_image(example)])
    return {condition: path for condition, path in paths.items() if condition in drawn}


def _entry(id: str, seen: Mapping[str, Seen], folder: Path) -> dict[str, Any]:
    reference, policy = seen
    entry: dict[str, Any] = {"tokens": {}, "attention": {}}
    for name in seen:
        ranges, values = seen[policy]["logps"][name]
        known = seen[reference]["logps"][name][1]
        rewards = [a - b for a, b in zip(values, known, strict=True)]
        if not np.isfinite(rewards).all():
            raise RowError("text", "not_finite", "the log-probability of a token is not a finite number")
        entry["tokens"][name] = [[*at, round(value, 4)] for at, value in zip(ranges, rewards, strict=True)]
    maps = {name: one["map"] for name, one in seen.items() if one["map"] is not None}
    maps = {name: values for name, values in maps.items() if np.isfinite(values).all()}
    peak = max((float(values.max()) for values in maps.values()), default=0.0)
    if peak > 1.0:
        for name, values in maps.items():
            path = f"evaluation/attention/{_stem(f'{id}/{name}')}.png"
            write_png(folder / path, (np.clip((values - 1.0) / (peak - 1.0), 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8))
            entry["attention"][name] = path
        entry["peak"] = round(peak, 3)
    return entry


def _stem(name: str) -> str:
    """A file name for any id, however long or odd."""
    return hashlib.sha256(name.encode()).hexdigest()[:24]
