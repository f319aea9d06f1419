"""Volumes with masks (NRRD) as axial slices in radiological convention: patient left at image right, front on top."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clinalign.data.images import Mask, Pixels
from clinalign.data.windows import Window, apply_window
from clinalign.errors import RowError, UsageError


@dataclass(slots=True)
class Volume:
    """`values` [x, y, z], x towards the patient's left and y towards the back; `spacing` in mm along each axis."""

    values: npt.NDArray[Any]
    spacing: tuple[float, float, float]

    def slice(self, z: int) -> npt.NDArray[Any]:
        """The axial slice as [rows, columns]."""
        return self.values[:, :, z].T


def read_volume(path: Path) -> Volume:
    """Reads an NRRD volume whose axes follow the patient's (left-posterior-superior or right-anterior-superior).

    Axes that run the other way are turned round by the header's directions. Raises `RowError("images", ...)` for a
    file that is missing, damaged, not three-dimensional or oblique; `UsageError` without pynrrd.
    """
    try:
        import nrrd
    except ImportError as error:
        raise UsageError("reading NRRD needs pynrrd; install it with: pip install 'clinalign[dicom]'") from error
    if not path.is_file():
        raise RowError("images", "missing_image", "no such volume")
    try:
        values, header = nrrd.read(str(path))
    except (nrrd.NRRDError, OSError, ValueError, EOFError) as error:
        raise RowError(
            "images", "unreadable_image", f"damaged NRRD ({type(error).__name__}); export it again"
        ) from error
    directions = np.asarray(header.get("space directions", np.eye(3)), dtype=float)
    if values.ndim != 3 or directions.shape != (3, 3):
        raise RowError("images", "unreadable_image", f"expected three axes, got shape {values.shape}")
    sizes = np.abs(directions).max(axis=1)
    if (np.abs(directions - np.diag(np.diag(directions))) > 1e-3 * sizes[:, None]).any():
        raise RowError("images", "oblique_volume", "the axes are turned against the patient's; resample the volume")
    signs = np.sign(np.diag(directions))
    if str(header.get("space", "left-posterior-superior")).lower() in ("right-anterior-superior", "ras"):
        signs = signs * np.array([-1, -1, 1])
    for axis, sign in enumerate(signs):
        if sign < 0:
            values = np.flip(values, axis)
    return Volume(values, (float(sizes[0]), float(sizes[1]), float(sizes[2])))


def range_window(volume: Volume) -> Window:
    """The window of a volume without absolute units (MR): the 0.5th to the 99.5th percentile of all its values."""
    low, high = (float(v) for v in np.percentile(volume.values, [0.5, 99.5]))
    return Window("percentile", (low + high) / 2, max(high - low, 1e-6), "LINEAR_EXACT")


def shown(volume: Volume, z: int, window: Window) -> Pixels:
    """An axial slice as uint8 [H, W, 3]."""
    return np.repeat(apply_window(volume.slice(z), window)[:, :, None], 3, axis=2)


def slices(mask: Volume, *, apart: int = 2) -> tuple[list[int], list[int]]:
    """Slices with a lesion, and as many without, evenly spread over those at least `apart` slices from any lesion."""
    there = np.asarray(mask.values.any(axis=(0, 1)))
    lesion = [int(z) for z in np.nonzero(there)[0]]
    free = [z for z in range(len(there)) if lesion and min(abs(z - other) for other in lesion) >= apart]
    if len(free) > len(lesion):
        picks = np.linspace(0, len(free) - 1, len(lesion)).round().astype(int)
        free = [free[pick] for pick in picks]
    return lesion, free


def lesion_of(mask: Volume, z: int) -> Mask:
    """The mask of a slice as bool [H, W]."""
    return np.asarray(mask.slice(z) != 0, dtype=bool)
