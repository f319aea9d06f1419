"""Tiles back to source pixels: a bright square is found by the rectangles of exactly the tokens that change with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_types import build

from clinalign.errors import UsageError
from clinalign.lesions.regions import box_mask
from clinalign.measuring.attention import token_fractions
from clinalign.models import VLM, load_vlm
from clinalign.models.families.tiles import LAYOUTS, Tile, each_tile, merged, tiles_of

SIZES = [(96, 64), (64, 160), (120, 120)]
SIDE = 14
BLEED = 3.0
"""Source pixels over which resampling spreads an edge."""


def without_mixing(kind: str) -> VLM:
    """A tiny model whose vision tower attends to nothing: a token is its own pixels alone."""
    vlm = build(kind)
    ends = ("out_proj", "o_proj", "projection_layer")
    outputs = [m for n, m in vlm.model.named_modules() if "vision" in n and n.rsplit(".", 1)[-1] in ends]
    assert outputs
    for module in outputs:
        for parameter in module.parameters():
            parameter.data.zero_()
    return vlm


def overlaps(rects: np.ndarray, x: float, y: float, side: float) -> np.ndarray:
    """Which rectangles share pixels with a square."""
    across = np.minimum(rects[:, 0] + rects[:, 2], x + side) - np.maximum(rects[:, 0], x)
    down = np.minimum(rects[:, 1] + rects[:, 3], y + side) - np.maximum(rects[:, 1], y)
    return (across > 0) & (down > 0)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_the_tokens_of_a_bright_square_are_those_whose_rectangles_hold_it(kind: str) -> None:
    vlm = without_mixing(kind)
    assert vlm.located and not vlm.family.geometry
    for height, width in SIZES:
        image = np.random.default_rng(0).integers(90, 110, (height, width, 3)).astype(np.uint8)
        rects, places = vlm.image_token_rects(image), vlm.image_places(image)
        plain = vlm.image_features([image])[0]
        assert rects.shape == (len(plain), 4) and (rects >= 0).all()
        assert (rects[:, 0] + rects[:, 2]).max() <= width and (rects[:, 1] + rects[:, 3]).max() <= height
        for y, x in ((5, 6), (height - 20, width - 22), (height // 2 - 8, width // 2 - 8)):
            bright = image.copy()
            bright[y : y + SIDE, x : x + SIDE] = 255
            change = (vlm.image_features([bright])[0] - plain).norm(dim=1).numpy()
            changed = change > 1e-3 * change.max()
            assert not (overlaps(rects, x, y, SIDE) & ~changed).any(), "a token of the square did not change"
            near = overlaps(rects, x - BLEED, y - BLEED, SIDE + 2 * BLEED)
            assert not (changed & ~near).any() and not changed[~places].any(), "a token elsewhere changed"
            shares = token_fractions(box_mask([x, y, SIDE, SIDE], (height, width)), rects)
            assert (shares[overlaps(rects, x + 0.5, y + 0.5, SIDE - 1)] > 0).all()
            assert not (shares[~overlaps(rects, x - 0.5, y - 0.5, SIDE + 1)] > 1e-9).any()


@pytest.mark.parametrize("kind", ["internvl", "llava_next"])
def test_every_pixel_is_seen_by_the_tiles_of_an_image(kind: str) -> None:
    """Areas of the rectangles: the whole image once for each time the model sees it, and newlines nothing."""
    vlm = build(kind)
    for height, width in SIZES:
        image = np.zeros((height, width, 3), np.uint8)
        rects = vlm.image_token_rects(image)
        times = np.zeros((height * 2, width * 2))
        for x, y, w, h in rects:
            times[round(y * 2) : round((y + h) * 2), round(x * 2) : round((x + w) * 2)] += 1
        assert np.median(times) == 2 and (times >= 1).mean() > 0.97, "once coarsely, once in tiles"


def test_a_tile_by_hand() -> None:
    """A processor that cuts a picture of 40 x 100 into its left and right half, pads each to a square below, and
    doubles it: tiles [0, 0, 50, 50] and [50, 0, 50, 50] of 100 x 100 pixels, of each the lower fifth beyond the
    picture."""

    def pixels(picture):
        array = np.asarray(picture.convert("RGB"), dtype=float).transpose(2, 0, 1) / 127.5 - 1
        halves = np.split(array, [array.shape[2] // 2], axis=2)
        side = max(array.shape[1], array.shape[2] // 2)
        padded = [
            np.pad(h, ((0, 0), (0, side - h.shape[1]), (0, side - h.shape[2])), constant_values=-1) for h in halves
        ]
        return np.stack(padded).repeat(2, axis=2).repeat(2, axis=3)

    left, right = tiles_of(pixels, 40, 100)
    assert left.rect == pytest.approx([0, 0, 50, 50], abs=0.3) and right.rect == pytest.approx([50, 0, 50, 50], abs=0.3)
    assert (left.height, left.width) == (100, 100)
    cells = each_tile(None, [left, right], (40, 100), 8)
    assert cells[3] == pytest.approx([25, 25, 25, 25], abs=0.3) and cells[5] == pytest.approx([75, 0, 25, 25], abs=0.3)


def test_joined_tiles_by_hand() -> None:
    """LLaVA-NeXT on 40 x 100 pixels, a whole and two tiles of 2 x 2 tokens side by side: 2 rows of 4 columns over
    100 x 50 pixels, of which 5 above and 5 below are padding. Rows to keep: int(40 * 4 / 100) = 1, so (2 - 1) // 2 = 0
    are cut off; a newline ends each row: 4 + 2 * 5 tokens."""

    class Config:
        class vision_config:
            image_size, patch_size = 8, 4

    whole = Tile(np.array([0.0, 0, 100, 40]), 8, 8)
    cut = [Tile(np.array([x, -5.0, 50, 50]), 8, 8) for x in (0, 50)]
    rects = merged(Config, [whole, *cut], (40, 100), 14)
    assert rects.shape == (14, 4) and rects[1].tolist() == [50, 0, 50, 20]
    assert rects[4].tolist() == [0, -5, 25, 25] and rects[7].tolist() == [75, -5, 25, 25]
    assert rects[8].tolist() == rects[13].tolist() == [0, 0, 0, 0] and rects[12].tolist() == [75, 20, 25, 25]


def test_tiles_are_asked_for_by_name(tmp_path: Path) -> None:
    """The families that are written down see one tile an image; with `tiles` what their own processor cuts."""
    built = build("internvl")
    built.model.config.image_seq_length = built.processor.image_seq_length
    built.model.save_pretrained(tmp_path / "m")
    built.processor.save_pretrained(tmp_path / "m")
    image = np.zeros((64, 160, 3), np.uint8)
    plain, cut = load_vlm(str(tmp_path / "m")), load_vlm(str(tmp_path / "m"), tiles=True)
    counts = [len(vlm.image_token_rects(image)) for vlm in (plain, cut)]
    assert counts[0] < counts[1] == len(cut.image_features([image])[0])
    assert counts == [sum(i == v.image_token_id for i in v.prompt_ids("Where?", [image])) for v in (plain, cut)]
    assert not cut.unpacked and cut.generate([("Where?", [image, image])], max_new_tokens=2)
    with torch.no_grad(), pytest.raises(UsageError, match="cuts no image"):
        load_vlm("embedded", tiles=True)
