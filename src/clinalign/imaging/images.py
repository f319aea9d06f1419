"""Images in and out: the one place where a file becomes pixels.

Every image inside clinalign is uint8 [H, W, 3] and every mask bool [H, W]. Files with more than 8 bits a sample are
scaled by their bit depth: the smallest of 8, 10, 12, 14, 16 and 32 bits that holds the brightest value is the range,
so a 12-bit radiograph saved as a 16-bit PNG does not come out black, and two images of one device share one scale; in
colour as in grey (`pixels.py`).
Transparency is laid on black, a camera's orientation tag is applied, and DICOM goes through its window (`dicom.py`).
"""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from clinalign.errors import RowError
from clinalign.imaging.limits import MAX_PIXELS, check_picture
from clinalign.imaging.pixels import Mask, Pixels, deep_colour, is_deep, oriented, to_8_bit
from clinalign.storage import atomic, is_file

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
PNG_LEVEL = 1
COPIED = re.compile(r"[0-9a-f]{24}\.png")
"""A name by `content_name`."""
DICOM_SUFFIXES = (".dcm", ".dicom")


def read_image(path: Path, *, window: str = "auto", frame: int = 0, max_pixels: int | None = None) -> Pixels:
    """The image as uint8 [H, W, 3]. `window` and `frame` matter to DICOM only (see `dicom.read_dicom`).

    A picture of more than `max_pixels` is refused; without it, one of more than `MAX_PIXELS` that is not named by its
    content (`content_name`): those a run has copied, and checked. Raises
    `RowError("images", "missing_image" | "unreadable_image" | "too_large" | ...)`; the detail does not repeat the path.
    """
    path = Path(path)
    if max_pixels is None:
        max_pixels = 0 if COPIED.fullmatch(path.name) else MAX_PIXELS
    if is_dicom(path):
        from clinalign.imaging.dicom import read_dicom

        return read_dicom(path, window=window, frame=frame, max_pixels=max_pixels).image
    return _rgb(_open(path, "images", max_pixels))


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """The image in the bytes of a PNG, JPEG, TIFF, BMP or WebP file, as data sets carry them inside a table.

    Raises `RowError("images", "unreadable_image" | "too_large")`.
    """
    return _rgb(_load(io.BytesIO(data), "images", max_pixels))


def read_mask(path: Path, value: int | None = None, *, max_pixels: int | None = None) -> Mask:
    """A mask as bool [H, W]: inside where any colour is not zero; in a JPEG, which is lossy, above half the range.

    With `value`, a map of labels: inside where the first channel is that number. A palette's indices count as they
    are, NaN is outside. Raises `RowError("mask", "missing_mask" | "unreadable_mask" | "too_large")`.
    """
    path = Path(path)
    if max_pixels is None:
        max_pixels = 0 if COPIED.fullmatch(path.name) else MAX_PIXELS
    picture = _open(path, "mask", max_pixels)
    lossy = picture.format == "JPEG"
    colours = deep_colour(picture, "mask")
    pixels: npt.NDArray[Any]
    if colours is not None:
        pixels = colours[:, :, :3]
    elif picture.mode.startswith("I") or picture.mode in ("F", "1", "L") or (value is not None and picture.mode == "P"):
        pixels = np.nan_to_num(np.asarray(picture))
    else:
        pixels = _rgb(picture)
    if value is not None:
        return np.asarray((pixels if pixels.ndim == 2 else pixels[:, :, 0]) == value, dtype=bool)
    inside = pixels > 127 if lossy else pixels != 0
    return np.asarray(inside.any(axis=2) if inside.ndim == 3 else inside, dtype=bool)


def write_png(path: Path, array: npt.NDArray[Any]) -> None:
    """Writes uint8 [H, W] or [H, W, 3], or a bool mask as 0 and 255, atomically; the same pixels give the same bytes.

    A colour image whose channels are equal is written as grey: `read_image` gives the same array back.
    """
    with atomic(Path(path)) as temporary:
        with temporary.open("wb") as file:
            Image.fromarray(_plain(array)).save(file, format="PNG", compress_level=PNG_LEVEL)


def content_name(array: npt.NDArray[Any]) -> str:
    """24 hex digits that name an array by its shape and content."""
    digest = hashlib.sha256(repr((array.shape, array.dtype.str)).encode())
    digest.update(array.tobytes())
    return digest.hexdigest()[:24]


def content_path(kind: str, name: str) -> str:
    """Where an image of that hash lies below a run folder, its kind (images, masks, corrupted) first: in one of 4 096
    folders, so that none of 100 000 images holds as many as 1 000."""
    return f"{kind}/{name[:3]}/{name}.png"


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: by its name, or by the mark at byte 128 that every DICOM file carries."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    if path.suffix.lower() in (".png", ".jpg", ".jpeg") or not is_file(path):
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _open(path: Path, field: str, max_pixels: int) -> Image.Image:
    what = "image" if field == "images" else field
    if not is_file(path):
        raise RowError(field, f"missing_{what}", "no such file; paths are relative to the table's folder")
    return _load(path, field, max_pixels)


def _load(source: Path | io.BytesIO, field: str, max_pixels: int) -> Image.Image:
    what = "image" if field == "images" else field
    known = Image.MAX_IMAGE_PIXELS
    try:
        Image.MAX_IMAGE_PIXELS = None  # the limit is ours, see `limits.py`
        picture = Image.open(source, formats=FORMATS)
        check_picture(*picture.size, field, max_pixels, deep=is_deep(picture))
        if not is_deep(picture):  # that one is unpacked in its own way
            picture.load()
    except UnidentifiedImageError as error:
        names = ", ".join(FORMATS)
        raise RowError(field, f"unreadable_{what}", f"not one of {names} or DICOM; convert it") from error
    except RowError:
        raise
    except Exception as error:  # a damaged file makes Pillow's plugins stumble over anything
        detail = f"damaged or cut short ({type(error).__name__}); export it again"
        raise RowError(field, f"unreadable_{what}", detail) from error
    finally:
        Image.MAX_IMAGE_PIXELS = known
    if 0 in picture.size:
        raise RowError(field, f"unreadable_{what}", "it has no pixels; export it again")
    return picture


def _rgb(picture: Image.Image) -> Pixels:
    form = picture.format
    colours = deep_colour(picture, "images")
    if colours is not None:
        alpha = colours[:, :, 3:] if colours.shape[2] == 4 else None
        shown = to_8_bit(colours[:, :, :3])
        if alpha is not None:
            shown = np.round(shown * (alpha / 65535.0)).astype(np.uint8)
        return np.array(ImageOps.exif_transpose(oriented(shown, picture)))
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F":
        raise RowError("images", "unreadable_image", f"a {form} of real numbers has no fixed range; save 8 or 16 bits")
    if picture.mode.startswith("I"):
        grey = to_8_bit(np.asarray(picture))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        colour = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", colour.size, (0, 0, 0, 255)), colour)
    return np.array(picture.convert("RGB"))


def _plain(array: npt.NDArray[Any]) -> Pixels:
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ValueError(f"an image is uint8 [H, W] or [H, W, 3], not {array.dtype} {array.shape}")
    if array.ndim == 3 and (array[:, :, :1] == array[:, :, 1:]).all():
        array = array[:, :, 0]
    return np.ascontiguousarray(array)
