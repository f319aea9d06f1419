"""Volumes with masks (NRRD, NIfTI) as axial slices in radiological convention: patient left at image right, front on
top."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clinalign.errors import RowError, UsageError
from clinalign.imaging.images import Mask, Pixels
from clinalign.imaging.windows import WINDOWS, Window, apply_window, parse_window

SUFFIXES = (".nrrd", ".nii", ".nii.gz")
TILT = 0.35
"""A NIfTI scan may be tilted against the patient's axes by this share (20 degrees): its slices are shown as scanned."""


@dataclass(slots=True)
class Volume:
    """`values` [x, y, z], x towards the patient's left and y towards the back; `spacing` in mm along each axis."""

    values: npt.NDArray[Any]
    spacing: tuple[float, float, float]

    def slice(self, z: int) -> npt.NDArray[Any]:
        """The axial slice as [rows, columns]."""
        return self.values[:, :, z].T


def is_volume(path: Path) -> bool:
    """Whether a file is a volume, by its name."""
    return path.name.lower().endswith(SUFFIXES)


def read_volume(path: Path, *, field: str = "images") -> Volume:
    """Reads an NRRD or NIfTI volume whose axes follow the patient's, and turns axes that run the other way round.

    Raises `RowError(field, ...)` for a file that is missing, damaged, not three-dimensional or oblique; `UsageError`
    without the package that reads it.
    """
    if not path.is_file():
        what = "image" if field == "images" else field
        raise RowError(field, f"missing_{what}", "no such volume; paths are relative to the table's folder")
    return _nrrd(path, field) if path.suffix.lower() == ".nrrd" else _nifti(path, field)


def _nrrd(path: Path, field: str) -> Volume:
    try:
        import nrrd
    except ImportError as error:
        raise UsageError("reading NRRD needs pynrrd; install it with: pip install 'clinalign[dicom]'") from error
    try:
        values, header = nrrd.read(str(path))
    except (nrrd.NRRDError, OSError, ValueError, EOFError) as error:
        raise _damaged("NRRD", field, error) from error
    directions = np.asarray(header.get("space directions", np.eye(3)), dtype=float)
    if values.ndim != 3 or directions.shape != (3, 3):
        raise RowError(field, _unreadable(field), f"expected three axes, got shape {values.shape}")
    sizes = np.abs(directions).max(axis=1)
    if (np.abs(directions - np.diag(np.diag(directions))) > 1e-3 * sizes[:, None]).any():
        raise RowError(field, "oblique_volume", "the axes are turned against the patient's; resample the volume")
    signs = np.sign(np.diag(directions))
    if str(header.get("space", "left-posterior-superior")).lower() in ("right-anterior-superior", "ras"):
        signs = signs * np.array([-1, -1, 1])
    for axis, sign in enumerate(signs):
        if sign < 0:
            values = np.flip(values, axis)
    return Volume(values, (float(sizes[0]), float(sizes[1]), float(sizes[2])))


def _nifti(path: Path, field: str) -> Volume:
    """NIfTI's world is right-anterior-superior: brought to it axis by axis, then turned to left-posterior-superior."""
    try:
        import nibabel
    except ImportError as error:
        raise UsageError("reading NIfTI needs nibabel; install it with: pip install 'clinalign[dicom]'") from error
    try:
        image: Any = nibabel.as_closest_canonical(nibabel.load(path))
        values = np.asarray(image.dataobj)
    except Exception as error:  # nibabel and gzip raise whatever a damaged file makes them stumble over
        raise _damaged("NIfTI", field, error) from error
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise RowError(field, _unreadable(field), f"expected three axes, got shape {values.shape}; split the series")
    axes = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    if (np.abs(axes - np.diag(np.diag(axes))) > TILT).any():
        raise RowError(field, "oblique_volume", "the axes are turned against the patient's; resample the volume")
    spacing = tuple(round(float(v), 6) for v in image.header.get_zooms()[:3])
    return Volume(values[::-1, ::-1], (spacing[0], spacing[1], spacing[2]))


def _unreadable(field: str) -> str:
    return f"unreadable_{'image' if field == 'images' else field}"


def _damaged(form: str, field: str, error: Exception) -> RowError:
    return RowError(field, _unreadable(field), f"damaged {form} ({type(error).__name__}); export it again")


def slice_to_show(volume: Volume, labels: Volume | None, value: int | None = None) -> int:
    """The slice for a row that names none: where the mask is largest, otherwise the middle one."""
    if labels is not None and labels.values.shape == volume.values.shape:
        inside = labels.values != 0 if value is None else labels.values == value
        if inside.any():
            return int(inside.sum(axis=(0, 1)).argmax())
    return volume.values.shape[2] // 2


def volume_slice(volume: Volume, z: int, window: str, modality: str) -> tuple[Pixels, list[Window]]:
    """A slice as uint8 [H, W, 3] and the windows it was shown through: those asked for; without any, the soft-tissue
    window of a CT and the percentile range of anything else. Raises `RowError` for a slice that is not there."""
    depth = volume.values.shape[2]
    if z >= depth:
        raise RowError("frame", "no_such_frame", f"slice {z} of {depth}; count from 0")
    named = window not in ("auto", "file") and not window.startswith("file:")
    auto = [WINDOWS["soft"]] if modality.upper() == "CT" else [range_window(volume)]
    windows = parse_window(window) if named else auto
    planes = [apply_window(volume.slice(z), one) for one in windows]
    return np.stack(planes * (3 // len(planes)), axis=2), windows


def label_slice(labels: Volume, z: int, value: int | None = None) -> Mask:
    """A slice of a mask volume as bool [H, W]; with `value`, only that label. An absent slice is empty."""
    if z >= labels.values.shape[2]:
        raise RowError("mask", "mask_size", f"the mask has {labels.values.shape[2]} slices; resample it")
    plane = labels.slice(z)
    return np.asarray(plane != 0 if value is None else plane == value, dtype=bool)


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
