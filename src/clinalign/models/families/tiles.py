"""Which source pixels each image token stands for where a processor cuts images into tiles.

Nothing of a processor's arithmetic is written down twice: it is asked. A picture whose red rises from left to right and
whose green from top to bottom goes through it, and what comes out tells of every tile where it was cut, resized or
padded (blue is full inside the picture). How a model lays the tokens of its tiles out is known by its type.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from clinalign.errors import UsageError

Rects = npt.NDArray[np.float64]
INSIDE = 0.9
"""Share of full blue above which a pixel of a tile is of the picture, and no padding."""
RIM = 2
"""Columns or rows at each end of the picture that resampling mixes with what is beyond it."""


class Tile(NamedTuple):
    """A tile's place [x, y, w, h] in source pixels (it may reach beyond the picture), and its own height and width."""

    rect: npt.NDArray[np.float64]
    height: int
    width: int


Layout = Callable[[Any, list[Tile], tuple[int, int], int], Rects]


def tiles_of(pixels: Callable[[Image.Image], Any], height: int, width: int) -> list[Tile]:
    """The tiles that a processor makes of a picture of a size; `pixels` gives its pixel values, [(1,) T, 3, H, W]."""
    low, high = (_tiles(pixels(Image.new("RGB", (64, 64), (v, v, v))))[0, :, 8, 8] for v in (0, 255))
    across = (np.arange(width) + 0.5) / width * 255
    down = (np.arange(height) + 0.5) / height * 255
    probe = np.full((height, width, 3), 255, np.uint8)
    probe[..., 0], probe[..., 1] = np.round(across)[None], np.round(down)[:, None]
    found = []
    for tile in _tiles(pixels(Image.fromarray(probe))):
        shares = (tile - low[:, None, None]) / (high - low)[:, None, None]
        there = shares[2] > INSIDE
        x, w = _ends(shares[0], there, width, axis=0)
        y, h = _ends(shares[1], there, height, axis=1)
        found.append(Tile(np.array([x, y, w, h]), tile.shape[1], tile.shape[2]))
    return found


def _tiles(values: Any) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return array.reshape(-1, *array.shape[-3:])


def _ends(shares: npt.NDArray[np.float64], there: npt.NDArray[np.bool_], size: int, axis: int) -> tuple[float, float]:
    """Where a tile begins along one axis and how far it reaches, in source pixels: a line through its ramp."""
    inside = np.asarray(there.any(axis=axis))
    level = np.where(there, shares, 0).sum(axis=axis) / np.maximum(there.sum(axis=axis), 1) * size
    rim = min(RIM, max(0.5, size / 4))
    usable = inside & (level > rim) & (level < size - rim)
    at = np.flatnonzero(usable)
    if len(at) < 2:
        raise UsageError(f"which pixels an image token stands for cannot be told of a picture {size} pixels long")
    slope, first = np.polyfit(at + 0.5, level[at], 1)
    return float(first), float(slope * len(inside))


def _cells(rect: npt.NDArray[np.float64], rows: int, columns: int) -> Rects:
    """A rectangle in equal cells, row by row, [rows * columns, 4]."""
    x, y, w, h = rect
    tops, lefts = np.meshgrid(np.arange(rows) * h / rows + y, np.arange(columns) * w / columns + x, indexing="ij")
    size = np.broadcast_to(np.array([w / columns, h / rows]), (*tops.shape, 2))
    return np.concatenate([lefts[..., None], tops[..., None], size], axis=-1).reshape(-1, 4)


def each_tile(config: Any, tiles: list[Tile], size: tuple[int, int], count: int) -> Rects:
    """Tile after tile, each row by row."""
    each = count / len(tiles)
    rows = [max(1, round(math.sqrt(each * tile.height / tile.width))) for tile in tiles]
    return np.concatenate([_cells(t.rect, n, round(each / n)) for t, n in zip(tiles, rows, strict=True)])


def merged(config: Any, tiles: list[Tile], size: tuple[int, int], count: int) -> Rects:
    """The whole picture first; then the tiles as one picture, padding cut off, a token at the end of every row."""
    side = config.vision_config.image_size // config.vision_config.patch_size
    whole, *cut = tiles
    columns = sum(abs(tile.rect[1] - cut[0].rect[1]) < tile.rect[3] / 2 for tile in cut)
    rows = len(cut) // columns
    high, wide = rows * side, columns * side
    x, y, w, h = cut[0].rect
    top, left = _padding(size, high, wide)
    kept_rows, kept_columns = high - 2 * top, wide - 2 * left
    rect = np.array([x + left * w / side, y + top * h / side, kept_columns * w / side, kept_rows * h / side])
    limit = str(getattr(config, "vision_aspect_ratio", "") or "")
    if limit.startswith("anyres_max_"):
        ratio = math.sqrt(kept_rows * kept_columns / (int(limit.removeprefix("anyres_max_")) * side**2))
        if ratio > 1.1:
            kept_rows, kept_columns = int(kept_rows // ratio), int(kept_columns // ratio)
    grid = _cells(rect, kept_rows, kept_columns).reshape(kept_rows, kept_columns, 4)
    ends = np.zeros((kept_rows, 1, 4))
    return np.concatenate([_cells(whole.rect, side, side), np.concatenate([grid, ends], axis=1).reshape(-1, 4)])


def _padding(size: tuple[int, int], rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns of tokens that LLaVA-NeXT cuts off at each side of the joined tiles: its own rounding."""
    height, width = size
    if width / height > columns / rows:
        return (rows - int(round(height * (columns / width), 7))) // 2, 0
    return 0, (columns - int(round(width * (rows / height), 7))) // 2


LAYOUTS: dict[str, Layout] = {
    "llava_next": merged,
    "llava_onevision": merged,
    "internvl": each_tile,
    "idefics3": each_tile,
    "smolvlm": each_tile,
    "gemma3": each_tile,
    "mistral3": each_tile,
}
"""Model types whose tokens' places are known. (Mistral 3 cuts nothing: its one tile keeps the picture's shape.)"""


def token_rects(
    config: Any, pixels: Callable[[Image.Image], Any], size: tuple[int, int], count: int
) -> npt.NDArray[np.float64]:
    """Each of an image's `count` tokens as [x, y, w, h] in pixels of an image of a size (height, width), cut at its
    border, in the order of the tokens; without area where a token is no place. `UsageError` where they do not add up.
    """
    height, width = size
    rects = LAYOUTS[config.model_type](config, tiles_of(pixels, height, width), size, count)
    if len(rects) != count:
        raise UsageError(
            f"a {config.model_type} model gives {count} tokens to an image of {width} x {height}, its tiles have "
            f"{len(rects)}: which pixels a token stands for is not known"
        )
    left, top = np.clip(rects[:, 0], 0, width), np.clip(rects[:, 1], 0, height)
    right, bottom = np.clip(rects[:, 0] + rects[:, 2], 0, width), np.clip(rects[:, 1] + rects[:, 3], 0, height)
    return np.stack([left, top, right - left, bottom - top], axis=1)
