"""Stored values into what is shown: windows, bit depths, and colour of 16 bits a sample, which Pillow cuts to 8.

Deep colour is decoded twice: once as it is, which keeps the upper byte of each sample, and once with the bytes of a
sample taken the other way round, which keeps the lower one.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from clinalign.errors import RowError, UsageError, nearest

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

BIT_DEPTHS = (8, 10, 12, 14, 16, 32)


@dataclass(frozen=True, slots=True)
class Window:
    """`center` and `width` in the units after rescaling (HU in CT); `shape` as in DICOM's VOI LUT Function."""

    name: str
    center: float
    width: float
    shape: str = "LINEAR"

    def as_dict(self) -> dict[str, Any]:
        """For `meta`: rounded, so that a table does not depend on the last bit."""
        return asdict(self) | {"center": round(self.center, 3), "width": round(self.width, 3)}


ROWS_AT_ONCE = 512
WINDOWS = {
    "lung": Window("lung", -600.0, 1500.0),
    "chest": Window("chest", -400.0, 1600.0),
    "soft": Window("soft", 40.0, 400.0),
    "bone": Window("bone", 400.0, 1800.0),
    "brain": Window("brain", 40.0, 80.0),
    "liver": Window("liver", 60.0, 160.0),
}
PRESETS = {"medgemma": "-1024/1024+-135/215+0/80"}
"""Three windows by one name: those of a CT for MedGemma 1.5 (wide, soft tissue, brain) as red, green and blue."""


MINUS = dict.fromkeys(map(ord, "\u2212\u2013\u2012\ufe63\uff0d"), "-")
"""What is typed or pasted for a minus."""


def parse_window(text: str) -> list[Window]:
    """One window, or three (as red, green and blue): a name of `PRESETS`, or joined by '+' names of `WINDOWS` or
    low/high such as -1200/400.

    Numbers may be written as people type them (see `typed_number`). Raises `UsageError` for anything else.
    """
    parts = PRESETS.get(text.strip().lower(), text).split("+")
    if len(parts) not in (1, 3):
        raise UsageError(f"data.window: '{text}' joins {len(parts)} windows; use one, or three as colour channels")
    return [_window(part.strip()) for part in parts]


def _window(text: str) -> Window:
    if text.lower() in WINDOWS:
        return WINDOWS[text.lower()]
    low, slash, high = text.replace("\\", "/").partition("/")
    bottom, top = typed_number(low), typed_number(high)
    if bottom is None or top is None:
        known = ", ".join(["auto", "file:N", *WINDOWS, *PRESETS])
        raise UsageError(f"data.window: '{text}' is none of {known} or low/high{nearest(text, WINDOWS)}")
    if not bottom < top:
        raise UsageError(f"data.window: '{text}' is empty; low/high needs low below high")
    return Window(f"{bottom:g}/{top:g}", (bottom + top) / 2, top - bottom, "LINEAR_EXACT")


def file_window(text: str) -> int | None:
    """The N of "file:N", 0 for "file", None for any other text."""
    found = re.fullmatch(r"file(?::\s*([0-9]{1,6}))?", text.strip())
    return int(found[1] or 0) if found else None


def typed_number(text: str) -> float | None:
    """A finite number as people type it: a decimal comma, a typographic minus, blanks around it. None for others, and
    for "1,000", which is a thousand to some and one to others."""
    plain = text.strip().translate(MINUS)
    if re.fullmatch(r"[+-]?[1-9]\d{0,2}(,\d{3})+", plain):
        return None
    if "," in plain:
        whole, _, part = plain.rpartition(",")
        plain = plain.replace(",", "") if "." in part else f"{whole.replace('.', '')}.{part}"
    try:
        number = float(plain)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in plain else None


def typed_numbers(text: str) -> list[float] | None:
    """Several of them, as in a DICOM header or "[00400, 00400]": parted by backslashes, semicolons or blanks. None
    where one is no number."""
    parts = re.split(r"\\|;|,\s+|\s+", text.strip("[]()\0 \t\r\n"))
    numbers = [typed_number(part) for part in parts if part]
    return None if None in numbers else [number for number in numbers if number is not None]


def percentile_window(values: npt.NDArray[Any]) -> Window:
    """From the 0.5th to the 99.5th percentile of those values that are finite."""
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        values = values if finite.all() else values[finite]
    low, high = (float(v) for v in np.percentile(values, [0.5, 99.5])) if values.size else (0.0, 1.0)
    return Window("percentile", (low + high) / 2, max(high - low, 1e-6), "LINEAR_EXACT")


def apply_window(values: npt.NDArray[Any], window: Window) -> Pixels:
    """Values [H, W] to uint8 by DICOM PS3.3 C.11.2.1.2 (LINEAR) and C.11.2.1.3 (LINEAR_EXACT, SIGMOID).

    LINEAR with a width of 1 or less has no slope and is a threshold at the center. NaN is black.
    """
    shown = np.empty(values.shape, dtype=np.uint8)
    for start in range(0, len(values), ROWS_AT_ONCE):  # as float64, a large picture takes eight times its size
        rows = slice(start, start + ROWS_AT_ONCE)
        shown[rows] = _through(np.asarray(values[rows], dtype=np.float64), window)
    return shown


def _through(values: npt.NDArray[np.float64], window: Window) -> Pixels:
    if window.shape == "SIGMOID":
        shown = 255.0 / (1 + np.exp(np.clip(-4 * (values - window.center) / window.width, -700, 700)))
    elif window.shape == "LINEAR_EXACT":
        shown = (values - (window.center - window.width / 2)) / window.width * 255
    elif window.width <= 1:
        shown = np.where(values > window.center - 0.5, 255.0, 0.0)
    else:
        shown = ((values - (window.center - 0.5)) / (window.width - 1) + 0.5) * 255
    return np.round(np.nan_to_num(np.clip(shown, 0, 255))).astype(np.uint8)


def to_8_bit(values: npt.NDArray[Any]) -> Pixels:
    """Integers of any depth to 0..255 by the rule of this module; negative values become 0."""
    brightest = max(int(values.max(initial=0)), 0)
    bits = next(bits for bits in BIT_DEPTHS if brightest < 2**bits or bits == BIT_DEPTHS[-1])
    top = 2**bits - 1
    if bits <= 16 and values.dtype.kind in "ui":
        scale = np.round(np.arange(top + 1) * (255.0 / top)).astype(np.uint8)
        return np.asarray(scale[np.maximum(values, 0)])
    return np.round(np.clip(np.asarray(values, dtype=np.float64) * (255.0 / top), 0, 255)).astype(np.uint8)


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


def deep_colour(picture: Any, field: str) -> Samples | None:
    """The samples [H, W, 3], or [H, W, 4] with transparency, as stored; None for a picture that is not deep.

    Raises `RowError(field, ...)` for a kind of deep colour that is not known, and for a damaged file.
    """
    if not is_deep(picture):
        return None
    reason = f"unreadable_{'image' if field == 'images' else field}"
    try:
        kind, _, order = _raw_modes(picture)[0].partition(";16")
        if kind == "LA":  # four bytes a pixel, all of them kept
            four = _decoded_again(picture, "RGBA", "RGBA").astype(np.uint16)
            samples = (four[:, :, [0, 0, 0, 2]] << 8) | four[:, :, [1, 1, 1, 3]]
        else:
            mode = {"RGB": "RGB", "RGBX": "RGB", "RGBA": "RGBA"}[kind]
            upper, lower = (_decoded_again(picture, mode, f"{kind};16{way}") for way in (order, OTHER_WAY[order]))
            samples = (upper.astype(np.uint16) << 8) | lower
    except KeyError as error:
        raise RowError(field, reason, "this kind of 16-bit colour is not read; save 8 bits, or RGB as PNG") from error
    except Exception as error:  # as in images.py
        raise RowError(field, reason, f"damaged or cut short ({type(error).__name__}); export it again") from error
    transparent = picture.info.get("transparency")
    if isinstance(transparent, tuple) and samples.shape[2] == 3:
        samples[(samples == np.array(transparent)).all(axis=2)] = 0
    return samples.astype(np.uint16)


def _decoded_again(picture: Any, mode: str, raw_mode: str) -> npt.NDArray[np.uint8]:
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


def oriented(shown: npt.NDArray[np.uint8], source: Image.Image) -> Image.Image:
    """8-bit pixels as a picture that carries the source's orientation tag."""
    picture = Image.fromarray(shown)
    if source.format != "TIFF" and ORIENTATION_TAG in source.getexif():  # Pillow has turned a TIFF while decoding it
        picture.getexif()[ORIENTATION_TAG] = source.getexif()[ORIENTATION_TAG]
    return picture
