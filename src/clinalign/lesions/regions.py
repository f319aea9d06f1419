"""The region of an example: the data set's own mask, else its box, else none (the caller's fallback is recorded)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from clinalign.errors import RowError
from clinalign.imaging.images import read_mask
from clinalign.imaging.pixels import Mask
from clinalign.records import Example, Region


def region_of(example: Example) -> Region | None:
    """The region of the finding that the question is about, or None. A report is about the whole image."""
    if example.task == "report" or not example.images:
        return None
    return next((region for region in example.regions[:1] if region.mask or region.box), None)


def native_mask(region: Region, folder: Path, shape: tuple[int, int]) -> Mask:
    """The region as bool [H, W] on an image of that shape; a mask wins over a box.

    Raises `RowError` when the mask is missing, unreadable or of another size, or when nothing of it is inside.
    """
    if region.mask:
        mask = read_mask(folder / region.mask)
        if mask.shape != shape:
            sizes = f"the mask is {_size(mask.shape)}, the image {_size(shape)}; resample it"
            raise RowError("mask", "mask_size", sizes)
    elif region.box:
        mask = box_mask(region.box, shape)
    else:
        raise RowError("regions", "no_region", "neither a mask nor a box")
    if not mask.any():
        field = "mask" if region.mask else "box"
        raise RowError(field, "empty_region", "no pixel is inside; leave the cell empty instead")
    return mask


def box_mask(box: list[float], shape: tuple[int, int]) -> Mask:
    """A box [x, y, w, h] in pixels as bool [H, W]: every pixel it touches."""
    x, y, w, h = box
    mask = np.zeros(shape, dtype=bool)
    mask[max(0, int(np.floor(y))) : int(np.ceil(y + h)), max(0, int(np.floor(x))) : int(np.ceil(x + w))] = True
    return mask


def input_mask(vlm: Any, mask: Mask) -> Mask | None:
    """The mask at the model's input resolution. A region that is lost between the samples of a coarser grid is grown
    by a few source pixels until a sample hits it; None when the model's crop leaves it outside."""
    out = np.asarray(vlm.input_mask(mask), dtype=bool)
    for _ in range(max(mask.shape) // min(out.shape) + 1):
        if out.any():
            return out
        mask = np.asarray(ndimage.binary_dilation(mask, structure=np.ones((3, 3))), dtype=bool)
        out = np.asarray(vlm.input_mask(mask), dtype=bool)
    return out if out.any() else None


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
