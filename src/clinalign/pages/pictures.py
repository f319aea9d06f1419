"""Images for the page: data URIs, and lesion outlines as SVG paths that follow the mask's pixels exactly."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from clinalign.data.images import read_image, read_mask
from clinalign.records import Region

LONGEST_SIDE = 256


def data_uri(array: np.ndarray) -> str:
    """A PNG of a uint8 [H, W] or [H, W, 3] array as a data URI; larger images are reduced to 256 px."""
    image = Image.fromarray(array)
    if max(image.size) > LONGEST_SIDE:
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@lru_cache(maxsize=512)
def picture(path: Path) -> str:
    """An image file as a data URI, grey where it has no colour."""
    array = read_image(path)
    grey = np.array_equal(array[..., 0], array[..., 1]) and np.array_equal(array[..., 0], array[..., 2])
    return data_uri(array[..., 0] if grey else array)


def outline(region: Region | None, folder: Path, size: tuple[int, int]) -> dict[str, object] | None:
    """`{"path", "view"}` of a region's outline for an overlay on an image of `size` (height, width)."""
    if region is None:
        return None
    if region.mask:
        mask = read_mask(folder / region.mask)
        return {"path": mask_path(mask), "view": f"0 0 {mask.shape[1]} {mask.shape[0]}"}
    if region.box:
        x, y, w, h = region.box
        return {"path": f"M{x:g} {y:g}h{w:g}v{h:g}h{-w:g}z", "view": f"0 0 {size[1]} {size[0]}"}
    return None


def mask_path(mask: np.ndarray) -> str:
    """The border between inside and outside of a bool [H, W] mask as an SVG path of runs along pixel edges."""
    padded = np.pad(mask.astype(np.int8), 1)
    across, down = np.diff(padded, axis=0) != 0, np.diff(padded, axis=1) != 0
    parts = [f"M{start - 1} {y}h{length}" for y, start, length in _runs(across)]
    parts += [f"M{x} {start - 1}v{length}" for x, start, length in _runs(down.T)]
    return "".join(parts)


def _runs(edges: np.ndarray) -> list[tuple[int, int, int]]:
    """(row, start, length) of every run of True along each row."""
    steps = np.diff(np.pad(edges.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    return [(int(r), int(s), int(e - s)) for r, s, e in zip(rows, starts, ends)]
