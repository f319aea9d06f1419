"""How much a file may unpack to. A small file can claim, or hold, gigabytes: sizes are checked before it is read."""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import IO

from clinalign.errors import RowError

MAX_PIXELS = 2**26
"""8192 x 8192, below Pillow's own limit. The whole way of one to PNG stays below 3 GB and 20 s."""
DEEP = 4
"""A pixel of 16-bit colour counts as so many: it is unpacked twice, and held in more bytes."""
MAX_VOXELS = 2**27
"""512 slices of 512 x 512: 1 GiB as float64."""
CHUNK = 1 << 20


def check_picture(width: int, height: int, field: str, limit: int, *, deep: bool = False) -> None:
    """Raises `RowError(field, "too_large")` for a picture of more than `limit` pixels; 0: no limit. A `deep` one is of
    16-bit colour."""
    if limit and width * height * (DEEP if deep else 1) > limit:
        counted = f" (each counts {DEEP} times in 16-bit colour)" if deep else ""
        detail = (
            f"{width}x{height} is {width * height} pixels{counted}, data.max_pixels is {limit}; the file is whole: "
            "tile or downscale it, or raise the limit"
        )
        raise RowError(field, "too_large", detail)


def check_volume(shape: Sequence[int], kind: str, field: str, reason: str, limit: int) -> None:
    """Raises `RowError` unless a header tells of three axes of real numbers (`kind` as of a dtype), and of no more than
    `limit` voxels."""
    sizes = "x".join(map(str, shape))
    if len(shape) != 3:
        raise RowError(field, reason, f"expected three axes, got {sizes or 'none'}; split the series or the channels")
    if kind not in "buif":
        raise RowError(field, reason, "its voxels are colours or complex, not one real number each; convert it")
    if min(shape) < 1:
        raise RowError(field, reason, "the volume has no voxel; export it again")
    if prod(shape) > limit:
        detail = f"{sizes} is {prod(shape)} voxels, data.max_voxels is {limit}; crop or resample it, or raise the limit"
        raise RowError(field, "too_large", detail)


def unpacked(file: IO[bytes], encoding: str, size: int) -> bytes:
    """The first `size` bytes of what a file holds from here on; `encoding` is raw, gzip, bzip2 or deflate."""
    if encoding == "raw":
        return file.read(size)
    packed = bz2.BZ2Decompressor() if encoding == "bzip2" else zlib.decompressobj(-15 if encoding == "deflate" else 31)
    out = bytearray()
    pending = b""
    while len(out) < size and not packed.eof:
        pending = pending or file.read(CHUNK)
        if not pending and (encoding != "bzip2" or packed.needs_input):  # type: ignore[union-attr]
            break
        out += packed.decompress(pending, size - len(out))
        pending = b"" if encoding == "bzip2" else packed.unconsumed_tail  # type: ignore[union-attr]
    return bytes(out)


def deflates_beyond(path: Path, start: int, size: int) -> bool:
    """Whether the deflated rest of a file, from `start` on, unpacks to more than `size` bytes."""
    packed = zlib.decompressobj(-15)
    count = 0
    with path.open("rb") as file:
        file.seek(start)
        pending = file.read(CHUNK)
        while pending and not packed.eof and count <= size:
            count += len(packed.decompress(pending, CHUNK))
            pending = packed.unconsumed_tail or file.read(CHUNK)
    return count > size
