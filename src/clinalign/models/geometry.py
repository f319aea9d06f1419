"""The image processor's resize and crop alone: the image as the model sees it, masks alike, and the way back.

The arithmetic is the processor's own (its PIL backend), called without rescaling and normalisation, so what comes out
goes through the processor again unchanged, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

NEAREST = 0


def as_rgb(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3] as [H, W, 3]."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise TypeError(f"an image is uint8 [H, W] or [H, W, 3], not {image.dtype} {image.shape}")
    return np.ascontiguousarray(np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image)


def input_image(image_processor: Any, image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] at the model's input resolution. Idempotent."""
    padded = _pad(image_processor, as_rgb(image), fill=None)
    return _crop(image_processor, _resize(image_processor, padded, image_processor.resample))


def input_mask(image_processor: Any, mask: np.ndarray) -> np.ndarray:
    """bool [H, W] through the same geometry with nearest-neighbour sampling."""
    grey = as_rgb(mask.astype(np.uint8) * 255)
    padded = _pad(image_processor, grey, fill=0)
    return _crop(image_processor, _resize(image_processor, padded, NEAREST))[..., 0] > 127


def token_rects(image_processor: Any, image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Rectangles [x, y, w, h] (float, source pixels) of the cells of a token grid, row by row: [rows * columns, 4].

    Cells are cut at the image's border: with padding a cell may have no area.
    """
    height, width = image.shape[:2]
    padded = _pad(image_processor, as_rgb(image), fill=0)
    left, top = (padded.shape[1] - width) // 2, (padded.shape[0] - height) // 2
    resized = _resize(image_processor, padded, NEAREST)
    cropped = _crop(image_processor, resized)
    crop_top, crop_left = (resized.shape[0] - cropped.shape[0]) // 2, (resized.shape[1] - cropped.shape[1]) // 2
    scale_y, scale_x = padded.shape[0] / resized.shape[0], padded.shape[1] / resized.shape[1]
    ys = (np.arange(grid[0] + 1) * cropped.shape[0] / grid[0] + crop_top) * scale_y - top
    xs = (np.arange(grid[1] + 1) * cropped.shape[1] / grid[1] + crop_left) * scale_x - left
    ys, xs = np.clip(ys, 0, height), np.clip(xs, 0, width)
    y0, x0 = np.meshgrid(ys[:-1], xs[:-1], indexing="ij")
    y1, x1 = np.meshgrid(ys[1:], xs[1:], indexing="ij")
    return np.stack([x0, y0, x1 - x0, y1 - y0], axis=-1).reshape(-1, 4)


def _pad(image_processor: Any, image: np.ndarray, fill: int | None) -> np.ndarray:
    """LLaVA's image processor may pad to a square first, with the mean colour."""
    if not (getattr(image_processor, "do_pad", False) and hasattr(image_processor, "pad_to_square")):
        return image
    mean = image_processor.image_mean if fill is None else None
    colour = tuple(int(x * 255) for x in mean) if mean else (0, 0, 0)
    return _hwc(image_processor.pad_to_square(_chw(image), background_color=colour))


def _resize(image_processor: Any, image: np.ndarray, resample: int) -> np.ndarray:
    if not image_processor.do_resize:
        return image
    extra = {}
    if hasattr(image_processor, "merge_size"):
        extra["factor"] = image_processor.patch_size * image_processor.merge_size
    size = _size(image_processor.size)
    return _hwc(image_processor.resize(_chw(image), size=size, resample=Image.Resampling(resample), **extra))


def _crop(image_processor: Any, image: np.ndarray) -> np.ndarray:
    if not getattr(image_processor, "do_center_crop", False):
        return image
    return _hwc(image_processor.center_crop(_chw(image), _size(image_processor.crop_size))).astype(np.uint8)


def _size(size: Any) -> Any:
    from transformers.image_utils import SizeDict

    return size if isinstance(size, SizeDict) else SizeDict(**size)


def _chw(image: np.ndarray) -> np.ndarray:
    return np.moveaxis(image, -1, 0)


def _hwc(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(image, 0, -1))
