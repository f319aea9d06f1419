"""The region of an example (the data set's own mask, else its box, else none: the caller's fallback is recorded), and
the matched control of a region: the same shape elsewhere inside the body, as similar a place as there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

from clinalign.errors import RowError
from clinalign.imaging.images import read_mask
from clinalign.imaging.pixels import Mask, Pixels
from clinalign.records import Example, Region


def region_of(example: Example) -> Region | None:
    """The region of the finding that the question is about, or None. A report is about the whole image."""
    if example.task == "report" or not example.images:
        return None
    return next((region for region in example.regions[:1] if region.mask or region.box), None)


def lesion_regions(example: Example) -> dict[int, Region]:
    """The finding that the question is about wherever it is seen: its region by the number of the image, one an image.

    Raises `RowError` for a region on an image that the example does not have.
    """
    first = region_of(example)
    if first is None:
        return {}
    found = {first.image: first}
    for region in example.regions[1:]:
        if region.label == first.label and (region.mask or region.box):
            found.setdefault(region.image, region)
    if max(found) >= len(example.images) or min(found) < 0:
        detail = f"a region lies on image {max(found)} of {len(example.images)} (counted from 0); correct its image"
        raise RowError("regions", "no_such_image", detail)
    return dict(sorted(found.items()))


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


def control_region(mask: Mask, image: Pixels, avoid: Mask | None = None) -> Mask | None:
    """A mask bool [H, W] of the same area and shape as `mask`, moved (and mirrored left to right where that is how it
    fits) inside the body, apart from `mask` and from `avoid`. None where no such place exists.

    The mirrored site (the other lung, the other hemisphere) comes first; otherwise the nearest free place to it.
    Deterministic: no randomness is involved.
    """
    if not mask.any():
        return None
    lesion = mask if avoid is None else mask | avoid
    # one pixel apart, so that a control never touches the lesion's blurred edge
    body = body_mask(image)
    free = body & ~ndimage.binary_dilation(lesion, structure=np.ones((3, 3)))
    rows, cols = np.nonzero(mask)
    top, left = int(rows.min()), int(cols.min())
    shape = mask[top : rows.max() + 1, left : cols.max() + 1]
    columns = np.nonzero(body.any(axis=0))[0]
    axis = int(columns[0] + columns[-1]) if len(columns) else mask.shape[1] - 1
    target = (top, axis - left - shape.shape[1] + 1)
    for patch in (shape[:, ::-1], shape):
        place = _nearest(free, patch, target)
        if place is not None:
            out = np.zeros_like(mask)
            out[place[0] : place[0] + patch.shape[0], place[1] : place[1] + patch.shape[1]] = patch
            return out
    return None


def body_mask(image: Pixels) -> Mask:
    """Roughly where the patient is: brighter than Otsu's threshold of the smoothed image or a tenth of the range,
    whichever is lower; the largest connected piece, its holes filled. The whole image where that leaves nothing."""
    grey = ndimage.uniform_filter(image.astype(np.float64).mean(axis=2), size=3)
    threshold = min(_otsu(grey), 25.5)
    bright = grey > threshold
    labels, count = ndimage.label(bright)
    if not count:
        return np.ones(bright.shape, dtype=bool)
    largest = 1 + int(np.argmax(ndimage.sum_labels(bright, labels, range(1, count + 1))))
    return np.asarray(ndimage.binary_fill_holes(labels == largest), dtype=bool)


def _nearest(free: Mask, patch: Mask, target: tuple[int, int]) -> tuple[int, int] | None:
    """Top left corner, nearest to the target, where every pixel of the patch is free."""
    covered = signal.fftconvolve(free.astype(np.float64), patch[::-1, ::-1].astype(np.float64), mode="valid")
    fits = covered > patch.sum() - 0.5
    if not fits.any():
        return None
    rows, cols = np.nonzero(fits)
    best = int(np.argmin((rows - target[0]) ** 2 + (cols - target[1]) ** 2))
    return int(rows[best]), int(cols[best])


def _otsu(grey: npt.NDArray[np.float64]) -> float:
    """The threshold that parts the histogram into two classes of the least variance (Otsu 1979)."""
    counts = np.bincount(grey.astype(np.int64).ravel(), minlength=256).astype(np.float64)
    weight = np.cumsum(counts)
    mean = np.cumsum(counts * np.arange(256))
    rest = weight[-1] - weight
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mean[-1] * weight / weight[-1] - mean) ** 2 / (weight * rest)
    return float(np.nanargmax(np.where(np.isfinite(between), between, -1.0)))
