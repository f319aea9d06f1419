"""NRRD files into an array with its axes in the patient's space. The header is read by pynrrd, and so are the values,
out of no more bytes than the header's sizes ask for."""

from __future__ import annotations

import io
import re
import warnings
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clinalign.errors import RowError, UsageError
from clinalign.imaging.limits import check_volume, unpacked

Matrix = npt.NDArray[np.float64]
ENCODINGS = {"gz": "gzip", "gzip": "gzip", "bz2": "bzip2", "bzip2": "bzip2", "raw": "raw"}
TEXT_ENCODINGS = ("ascii", "text", "txt")
LETTERS_A_NUMBER = 64
SPACE_WORDS = ({"left": 1, "right": -1}, {"posterior": 1, "anterior": -1}, {"superior": 1, "inferior": -1})
"""The sign of each axis of a space, seen from left-posterior-superior."""


class Found(NamedTuple):
    """`values` [x, y, z] as stored; `axes` [3, 3], a column an array axis in mm left, back and up; `origin` [3] of the
    first voxel, None where the file has none."""

    values: npt.NDArray[Any]
    axes: Matrix
    origin: Matrix | None


def read_nrrd(path: Path, field: str, reason: str, max_voxels: int) -> Found:
    """Raises `RowError(field, reason)` for a damaged file and a space that is not the patient's, and what
    `limits.check_volume` raises; `UsageError` without pynrrd."""
    try:
        import nrrd
    except ImportError as error:
        raise UsageError("reading NRRD needs pynrrd; install it with: pip install 'clinalign[dicom]'") from error
    try:
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            header = nrrd.read_header(file)
            spatial, sizes = _spatial(header)
            kind = "V" if header.get("type") == "block" else nrrd.reader._determine_datatype(header).kind
            check_volume(sizes, kind, field, reason, max_voxels)
            values = _values(header, file, path)
    except RowError:
        raise
    except Exception as error:  # pynrrd raises whatever a damaged header makes it stumble over
        raise RowError(field, reason, f"damaged NRRD ({type(error).__name__}); export it again") from error
    axes, origin = _placed(header, spatial, field, reason)
    return Found(values.reshape(sizes, order="F"), axes, origin)


def _spatial(header: Any) -> tuple[list[int], list[int]]:
    """The axes that are of space, and their sizes: one of length 1 without a direction (a channel) is passed over."""
    sizes = [int(size) for size in header["sizes"]]
    given = header.get("space directions")
    directed = np.isfinite(np.asarray(given, dtype=float)).all(axis=1) if given is not None else [True] * len(sizes)
    spatial = [axis for axis, size in enumerate(sizes) if directed[axis] or size != 1]
    while len(spatial) > 3 and any(sizes[axis] == 1 for axis in spatial):
        spatial.remove(next(axis for axis in reversed(spatial) if sizes[axis] == 1))
    return spatial, [sizes[axis] for axis in spatial]


def _values(header: Any, file: Any, path: Path) -> npt.NDArray[Any]:
    import nrrd

    count, kind = prod(int(size) for size in header["sizes"]), nrrd.reader._determine_datatype(header)
    detached = header.get("data file", header.get("datafile"))
    line_skip = int(header.get("line skip", header.get("lineskip", 0)))
    byte_skip = int(header.get("byte skip", header.get("byteskip", 0)))
    encoding = str(header["encoding"]).lower()
    source = _beside(path, str(detached)).open("rb") if detached is not None else file
    with source:
        for _ in range(min(line_skip, 1000)):
            source.readline()
        if encoding in TEXT_ENCODINGS:
            text = source.read(count * LETTERS_A_NUMBER)
            values = np.array([float(word) for word in text.split()[:count]]).astype(kind)
        elif byte_skip == -1 and encoding == "raw":
            source.seek(-count * kind.itemsize, io.SEEK_END)
            values = np.frombuffer(source.read(), kind)
        else:
            skip = max(byte_skip, 0)
            values = np.frombuffer(unpacked(source, ENCODINGS[encoding], skip + count * kind.itemsize)[skip:], kind)
    if values.size != count:
        raise ValueError("fewer values than the header's sizes")
    return values


def _beside(path: Path, name: str) -> Path:
    """The data file of a detached header, which lies in the header's folder."""
    if Path(name).name != name:
        raise ValueError("the data file lies elsewhere")
    return path.parent / name


def _placed(header: Any, spatial: list[int], field: str, reason: str) -> tuple[Matrix, Matrix | None]:
    signs = _signs(str(header.get("space", "left-posterior-superior")))
    if signs is None:
        raise RowError(field, reason, "its space is not told in the patient's left, back and up; export it as LPS")
    given = header.get("space directions")
    if given is None:
        spacings = np.asarray(header.get("spacings", np.ones(len(header["sizes"]))), dtype=float)[spatial]
        axes = np.diag(np.where(np.isfinite(spacings), spacings, 1.0))
    else:
        axes = np.asarray(given, dtype=float)[spatial].T
    origin = header.get("space origin")
    if axes.shape != (3, 3) or (origin is not None and np.shape(origin) != (3,)):
        raise RowError(field, reason, "its axes are not told in three directions; export it again")
    turned = np.diag(signs).astype(float)
    return turned @ axes, None if origin is None or given is None else turned @ np.asarray(origin, dtype=float)


def _signs(space: str) -> list[int] | None:
    """The sign of each axis ("left-anterior-superior", "LAS", either with "-time"); None for any other space."""
    words = re.sub(r"[-_ ]?time$|(?<=[a-z]{3})t$", "", space.strip().lower()).split("-")
    if len(words) == 1 and len(words[0]) == 3:
        words = [next((word for word in known if word[0] == c), "") for known, c in zip(SPACE_WORDS, words[0])]
    if len(words) != 3:
        return None
    signs = [known.get(word) for known, word in zip(SPACE_WORDS, words)]
    return None if None in signs else [sign for sign in signs if sign is not None]
