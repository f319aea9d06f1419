"""Images for the page: data URIs, and lesion outlines as SVG paths that follow the mask's pixels exactly."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clinalign.errors import RowError, first_line
from clinalign.imaging.images import read_image, read_mask
from clinalign.progress import say
from clinalign.records import Region

LONGEST_SIDE, SMALL_SIDE = 400, 256
LOSSLESS_BYTES = 20_000
HEAT = (255, 64, 160)
"""Colour of attention: apart from the outline's yellow for every kind of colour vision, and from grey."""
_SHOWN: ContextVar[bool] = ContextVar("shown", default=True)


def data_uri(array: np.ndarray, side: int = LONGEST_SIDE) -> str:
    """A uint8 [H, W], [H, W, 3] or [H, W, 4] array as a data URI: a PNG, or where that is over 20 kB a fine WebP.
    Images larger than `side` are reduced to it.
    """
    image = Image.fromarray(array)
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    kind, content = "png", _encoded(image, "PNG", optimize=True)
    if len(content) > LOSSLESS_BYTES:
        kind, content = "webp", _encoded(image, "WEBP", quality=88, method=4)
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


@contextmanager
def shown(images: bool) -> Iterator[None]:
    """While open, pictures are made, or none is: the page then holds no pixel and no outline of a patient's image."""
    token = _SHOWN.set(images)
    _picture.cache_clear()
    try:
        yield
    finally:
        _SHOWN.reset(token)


def are_shown() -> bool:
    """Whether the page that is being written shows pictures."""
    return _SHOWN.get()


def picture(path: Path, side: int = LONGEST_SIDE) -> dict[str, Any] | None:
    """`{"uri", "width", "height"}` of an image file (its own size), grey where it has no colour; None if it is
    unreadable or the page is to show none."""
    return _picture(path, side) if _SHOWN.get() else None


@lru_cache(maxsize=512)
def _picture(path: Path, side: int) -> dict[str, Any] | None:
    try:
        array = read_image(path)
    except RowError:
        return None
    grey = np.array_equal(array[..., 0], array[..., 1]) and np.array_equal(array[..., 0], array[..., 2])
    uri = data_uri(array[..., 0] if grey else array, side)
    return {"uri": uri, "width": array.shape[1], "height": array.shape[0]}


def framed(
    folder: Path, path: str, label: str, region: Region | None = None, side: int = LONGEST_SIDE
) -> dict[str, Any] | None:
    """A picture with its caption and, where a region is given, the outline to lie over it; None where it cannot be
    drawn, be it for want of memory: the page can do without a picture, but not end on one."""
    try:
        found = picture(folder / path, side)
        if found is None:
            return None
        return found | {"label": label, "outline": outline(region, folder, (found["height"], found["width"]))}
    except Exception as error:
        left_out(error)
        return None


def left_out(error: Exception) -> None:
    """Says in one line that a picture is missing on the page; never which file, whose name may be a patient's."""
    say(f"page: a picture is left out: {type(error).__name__}: {first_line(error)}")


def heat(path: Path) -> str:
    """A grey attention map as one colour whose opacity is the attention, to lie over its image; empty if it is
    unreadable or the page is to show none."""
    if not _SHOWN.get():
        return ""
    try:
        grey = read_image(path)[..., 0]
        colour = np.broadcast_to(np.array(HEAT, np.uint8), (*grey.shape, 3))
        return data_uri(np.dstack([colour, (grey * 0.85).astype(np.uint8)]))
    except RowError:
        return ""
    except Exception as error:
        left_out(error)
        return ""


def outline(region: Region | None, folder: Path, size: tuple[int, int]) -> dict[str, object] | None:
    """`{"path", "view"}` of a region's outline for an overlay on an image of `size` (height, width)."""
    if region is None:
        return None
    if region.mask:
        try:
            mask = read_mask(folder / region.mask)
        except RowError:
            return None
        step = -(-max(mask.shape) // LONGEST_SIDE)
        mask = mask[::step, ::step]
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
