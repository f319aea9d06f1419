"""Does the model look at the lesion, and does training reward the words that name it?

Attention (VGMED protocol as in FiRe-MPO): the row of the last prompt token to the image tokens, averaged over heads and
divided element by element by the same row under a prompt that asks for a general description. With A that ratio and M
the share of each token's rectangle that the lesion covers, per decoder layer: `ratio` = mean of A in M over mean of A;
`kl` = KL(M || A) and `js` = Jensen-Shannon divergence, both normalised to sum 1, in nats; `pointing`: whether the
largest A lies on the lesion.

Spans: tokens of a right answer in order of log pi - log ref; the share of its span tokens in the top 5 ... 75 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clinalign.errors import RowError
from clinalign.evaluation.metrics import TOPS
from clinalign.language.offsets import token_offsets
from clinalign.lesions.regions import lesion_regions, native_mask
from clinalign.measuring.asking import own_images
from clinalign.measuring.evidence import Paired, Rows
from clinalign.models.features import from_arrays
from clinalign.models.tree import Fork, Tree, score, tree_of
from clinalign.records import Example

GENERAL = "Write a general description of the image."
"""The prompt that relative attention is measured against (VGMED protocol)."""

TINY = 1e-30


def token_fractions(mask: np.ndarray, rects: np.ndarray) -> np.ndarray:
    """Share of each rectangle [x, y, w, h] (float, pixels) that a bool [H, W] mask covers: [N], exact.

    From the integral image, linear between pixel edges. A rectangle without area has share 0.
    """
    height, width = mask.shape
    integral = np.zeros((height + 1, width + 1))
    integral[1:, 1:] = mask.astype(float).cumsum(0).cumsum(1)
    x0, y0, w, h = np.asarray(rects, float).T

    def area(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        i, j = np.clip(y.astype(int), 0, height - 1), np.clip(x.astype(int), 0, width - 1)
        v, u = y - i, x - j
        upper = (1 - u) * integral[i, j] + u * integral[i, j + 1]
        lower = (1 - u) * integral[i + 1, j] + u * integral[i + 1, j + 1]
        return np.asarray((1 - v) * upper + v * lower)

    covered = area(x0 + w, y0 + h) - area(x0, y0 + h) - area(x0 + w, y0) + area(x0, y0)
    return np.where(w * h > 0, covered / np.maximum(w * h, TINY), 0.0).clip(0, 1)


def attention_measures(attention: np.ndarray, general: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """`ratio`, `kl`, `js` and `pointing` of one layer: attention and general attention [N], mask share [N].

    [.2, .3, .1] over [.2, .1, .1] is A = [1, 3, 1]; with mask [0, 1, 0]: ratio 3 / (5/3) = 1.8, kl = ln(5/3), pointing
    1, js = (ln(1/0.8) + 0.4 ln(0.2/0.1) + 0.6 ln(0.6/0.8)) / 2. KL is infinite where the lesion gets no attention.
    Nothing is measured where the layer does not see the image, as behind a sliding window.
    """
    if not general.all() or not attention.any():
        return {}
    relative = attention / general
    m, a = mask / mask.sum(), relative / relative.sum()
    mean = (m + a) / 2
    return {
        "ratio": float((m * relative).sum() / relative.mean()),
        "kl": _kl(m, a),
        "js": (_kl(m, mean) + _kl(a, mean)) / 2,
        "pointing": float(mask[relative.argmax()] > 0),
    }


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    there = p > 0
    with np.errstate(divide="ignore"):
        return float((p[there] * np.log(p[there] / q[there])).sum())


def span_ranking(rewards: Sequence[float], in_span: Sequence[bool]) -> dict[int, float]:
    """Share of the span tokens among the `k` % of tokens with the highest rewards (rounded up), by `k`.

    Rewards [3, 1, 2, 0] with the first two in a span: 1/2 in the top 25 %, 1/2 in the top 50 %, 1 in the top 75 %.
    """
    order = np.argsort(-np.asarray(rewards, float), kind="stable")
    inside = np.asarray(in_span)[order]
    return {top: float(inside[: math.ceil(top * len(order) / 100)].sum() / inside.sum()) for top in TOPS}


def relative_rows(
    vlm: Any, examples: Sequence[Example], images: Sequence[Sequence[np.ndarray]]
) -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
    """For each question its attention to the tokens of each of its images and the general prompt's, [layers, N] each.

    One batch; only the rows of the last prompt token are formed, never a whole map.
    """
    count = len(examples)
    features, keys = from_arrays(vlm, images)
    prompts = [e.prompt for e in examples] + [replace(e, question=GENERAL).prompt for e in examples]
    asked = list(zip(prompts, [*images, *images], [*keys, *keys], strict=True))
    trees = [tree_of(vlm, prompt, shown, names) for prompt, shown, names in asked]
    scores = score(vlm, trees, features, batch_size=2 * count, attention=True)
    found = [
        to_images(vlm, tree, one.attention, shown)
        for tree, one, (_, shown, _) in zip(trees, scores, asked, strict=True)
    ]
    return list(zip(found[:count], found[count:], strict=True))


def to_images(vlm: Any, tree: Tree, attention: Any, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Attention [layers, N] (mean over heads) to the N tokens of each of a tree's images; attention [layers, H, P]."""
    at = np.flatnonzero(np.array(tree.ids) == vlm.image_token_id)
    mean = np.asarray(attention.mean(1).double().cpu().numpy()[:, at])
    ends = np.cumsum([len(vlm.image_token_rects(image)) for image in images])
    return np.split(mean, ends[:-1], axis=1)


def attention_rows(vlm: Any, examples: Sequence[Example], *, pairs: Mapping[str, Paired], folder: Path) -> Rows:
    """Of each example `attention_ratio`, `_kl`, `_js` and `_pointing` (the level is the layer), `lesion_area` (the
    share of tokens that touch the lesion: what pointing at random hits) and, where the model has an adapter to compare
    with, `rewarded` (the level is the percentage of tokens). What could not be measured has a reason.
    """
    found: Rows = {}
    shown: dict[str, list[np.ndarray]] = {}
    masks: dict[str, list[np.ndarray]] = {}
    for example in examples:
        try:
            shown[example.id] = own_images(example, folder)
            masks[example.id] = _masks(vlm, example, folder, shown[example.id])
        except RowError as error:
            found[example.id] = [["clean", "attention", None, None, error.reason]]
    seen = [e for e in examples if e.id in masks]
    rows = relative_rows(vlm, seen, [shown[e.id] for e in seen]) if seen else []
    for example, (attention, general) in zip(seen, rows, strict=True):
        covered = np.concatenate(masks[example.id])
        places = [vlm.image_places(image) for image in shown[example.id]]
        asked, described = (_on_places(one, places) for one in (attention, general))
        found[example.id] = [["clean", "lesion_area", float((covered > 0).mean()), None, ""]]
        for layer, (own, other) in enumerate(zip(asked, described, strict=True)):
            values = attention_measures(own, other, covered)
            finite = {f"attention_{name}": value for name, value in values.items() if math.isfinite(value)}
            found[example.id] += [["clean", name, value, layer, ""] for name, value in finite.items()]
    if getattr(vlm, "peft", None) is not None:
        for name, tops in _rankings(vlm, seen, pairs, shown).items():
            found[name] += [["clean", "rewarded", share, top, ""] for top, share in tops.items()]
    return found


def _on_places(rows: Sequence[np.ndarray], places: Sequence[np.ndarray]) -> np.ndarray:
    """Attention [layers, N] to the tokens of all images that stand for a part of them, side by side."""
    return np.concatenate([row[:, there] for row, there in zip(rows, places, strict=True)], axis=1)


def _masks(vlm: Any, example: Example, folder: Path, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The lesion's share of each token that is a place, image by image."""
    regions, masks = lesion_regions(example), []
    for number, image in enumerate(images):
        rects = vlm.image_token_rects(image)[vlm.image_places(image)]
        region = regions.get(number)
        inside = None if region is None else native_mask(region, folder, image.shape[:2])
        masks.append(np.zeros(len(rects)) if inside is None else token_fractions(inside, rects))
    if not any(mask.any() for mask in masks):
        raise RowError("regions", "outside_the_input", "the model's crop leaves the region out")
    return masks


def _rankings(
    vlm: Any,
    examples: Sequence[Example],
    pairs: Mapping[str, Paired],
    shown: Mapping[str, Sequence[np.ndarray]],
) -> dict[str, dict[int, float]]:
    """`span_ranking` of the right answer to each question: the own one, or the own one repaired."""
    asked: dict[str, list[int]] = {}
    inside: dict[str, list[bool]] = {}
    for example in examples:
        own, edit = pairs[example.id].text, pairs[example.id].edit
        if edit is None:
            continue
        text, spans = (own, edit.chosen_spans) if edit.was_correct else (edit.text, edit.chosen_spans)
        ids = list(vlm.tokenizer(text, add_special_tokens=False)["input_ids"])
        offsets = token_offsets(vlm.tokenizer, ids)
        touched = [any(a < end and start < b for start, end in spans) for a, b in offsets]
        if any(touched):
            inside[example.id] = touched
            asked[example.id] = ids
    if not asked:
        return {}
    questions = {example.id: example.prompt for example in examples}
    features, keys = from_arrays(vlm, [shown[name] for name in asked])
    trees = [
        tree_of(vlm, questions[name], shown[name], own, [Fork([ids])])
        for (name, ids), own in zip(asked.items(), keys, strict=True)
    ]
    policy = score(vlm, trees, features, batch_size=len(trees))
    with vlm.adapter_off():
        reference = score(vlm, trees, features, batch_size=len(trees))
    rewards = [(p.logps[0][0] - r.logps[0][0]).tolist() for p, r in zip(policy, reference, strict=True)]
    return {name: span_ranking(values, inside[name]) for name, values in zip(asked, rewards, strict=True)}
