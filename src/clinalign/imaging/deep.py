"""Colour of 16 bits a sample, which Pillow cuts to 8.

Its decoder is run twice over the file's samples: once as they are, which keeps the upper byte of each, and once with
the bytes of a sample taken the other way round, which keeps the lower one.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from clinalign.errors import RowError

Samples = npt.NDArray[np.uint16]
OTHER_WAY = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
"""How bytes lie in a sample: big-endian, little-endian, native; and the same the other way round."""
BITS_TAG = 258
ORIENTATION_TAG = 0x0112


def is_deep(picture: Any) -> bool:
    """Whether a picture, opened by Pillow and not yet loaded, has colour, or transparency, of 16 bits a sample."""
    if any(";16" in mode and not mode.startswith("I") for mode in _raw_modes(picture)):
        return True
    bits = getattr(picture, "tag_v2", {}).get(BITS_TAG, (8,))
    return picture.format == "TIFF" and len(bits) > 1 and max(bits) > 8


def _raw_modes(picture: Any) -> list[str]:
    """How the decoder takes each tile apart, such as "RGB;16B"."""
    args = [tile.args for tile in picture.tile]
    return [str(one if isinstance(one, str) else (one or [""])[0]) for one in args]


def read(picture: Any, field: str) -> Samples | None:
    """The samples [H, W, 3], or [H, W, 4] with transparency, as stored; None for a picture that is not deep.

    Raises `RowError(field, ...)` for a kind of deep colour that is not known, and for a damaged file.
    """
    if not is_deep(picture):
        return None
    reason = f"unreadable_{'image' if field == 'images' else field}"
    try:
        kind, _, order = _raw_modes(picture)[0].partition(";16")
        if kind == "LA":  # four bytes a pixel, all of them kept
            four = _decoded(picture, "RGBA", "RGBA").astype(np.uint16)
            samples = (four[:, :, [0, 0, 0, 2]] << 8) | four[:, :, [1, 1, 1, 3]]
        else:
            mode = {"RGB": "RGB", "RGBX": "RGB", "RGBA": "RGBA"}[kind]
            upper, lower = (_decoded(picture, mode, f"{kind};16{way}") for way in (order, OTHER_WAY[order]))
            samples = (upper.astype(np.uint16) << 8) | lower
    except KeyError as error:
        raise RowError(field, reason, "this kind of 16-bit colour is not read; save 8 bits, or RGB as PNG") from error
    except Exception as error:  # as in images.py
        raise RowError(field, reason, f"damaged or cut short ({type(error).__name__}); export it again") from error
    transparent = picture.info.get("transparency")
    if isinstance(transparent, tuple) and samples.shape[2] == 3:
        samples[(samples == np.array(transparent)).all(axis=2)] = 0
    return samples.astype(np.uint16)


def _decoded(picture: Any, mode: str, raw_mode: str) -> npt.NDArray[np.uint8]:
    """The file decoded anew, its samples taken apart as `raw_mode` says."""
    picture.fp.seek(0)
    again: Any = Image.open(picture.fp, formats=[str(picture.format)])
    again.tile = [
        tile._replace(args=raw_mode if isinstance(tile.args, str) else (raw_mode, *tile.args[1:]))
        for tile in again.tile
    ]
    again._mode = mode
    again._exclusive_fp = False  # the second time needs the file, too
    again.load()
    return np.array(again)


def as_picture(shown: npt.NDArray[np.uint8], source: Image.Image) -> Image.Image:
    """8-bit pixels as a picture that carries the source's orientation tag."""
    picture = Image.fromarray(shown)
    if source.format != "TIFF" and ORIENTATION_TAG in source.getexif():  # Pillow has turned a TIFF while decoding it
        picture.getexif()[ORIENTATION_TAG] = source.getexif()[ORIENTATION_TAG]
    return picture
