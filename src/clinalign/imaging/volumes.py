"""Volumes with masks (NRRD, NIfTI; DICOM series in `series.py`) as axial slices in radiological convention: patient
left at image right, front on top. An NRRD header is read by pynrrd, and so are the values, out of no more bytes than
the header's sizes ask for."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clinalign.errors import RowError, UsageError
from clinalign.imaging.limits import MAX_VOXELS, check_volume, unpacked
from clinalign.imaging.pixels import WINDOWS, Mask, Pixels, Window, apply_window, parse_window, percentile_window
from clinalign.storage import is_file

Matrix = npt.NDArray[np.float64]
NRRD = (".nrrd", ".nhdr")
SUFFIXES = (*NRRD, ".nii", ".nii.gz")
TILT = 0.35
"""A NIfTI scan may be tilted against the patient's axes by this share (20 degrees): its slices are shown as scanned."""
STRAIGHT = 1e-3
"""The same for NRRD."""
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
SAME_VOXEL = 0.1
"""Two grids are one where no corner is further off than this many voxels."""
NEAR_WHOLE = 0.1
"""A label stored through a slope (2.996 for 3) is the whole number that is nearer than this."""


@dataclass(slots=True)
class Volume:
    """`values` [x, y, z], x towards the patient's left and y towards the back; `spacing` in mm along each axis.

    `affine` [4, 4] turns a voxel's index into mm, left, back and up of the scanner's origin; None: the file does not
    say where it lies. `plane`: axial, or of a DICOM series sagittal, coronal or oblique, whose slices are as scanned: x
    its columns, y its rows, z from slice to slice.
    """

    values: npt.NDArray[Any]
    spacing: tuple[float, float, float]
    affine: Matrix | None = None
    plane: str = "axial"

    def slice(self, z: int) -> npt.NDArray[Any]:
        """The slice as [rows, columns]."""
        return self.values[:, :, z].T


def is_volume(path: Path) -> bool:
    """Whether a file is a volume, by its name."""
    return path.name.lower().endswith(SUFFIXES)


def read_volume(path: Path, *, field: str = "images", max_voxels: int = MAX_VOXELS) -> Volume:
    """Reads an NRRD or NIfTI volume whose axes follow the patient's, and turns axes that run the other way round.

    Raises `RowError(field, ...)` for a file that is missing, damaged, oblique, of more than `max_voxels` or more than
    three axes, and for one whose voxels are no real numbers; `UsageError` without the package that reads it.
    """
    if not is_file(path):
        what = "image" if field == "images" else field
        raise RowError(field, f"missing_{what}", "no such volume; paths are relative to the table's folder")
    return _nrrd(path, field, max_voxels) if path.suffix.lower() in NRRD else _nifti(path, field, max_voxels)


def read_labels(path: Path, *, max_voxels: int = MAX_VOXELS) -> Volume:
    """Reads a mask volume. Labels that a slope has moved off their whole numbers are put back; NaN is outside."""
    labels = read_volume(path, field="mask", max_voxels=max_voxels)
    if labels.values.dtype.kind == "f":
        values = np.nan_to_num(labels.values, nan=0.0, posinf=0.0, neginf=0.0)
        nearest = np.rint(values)
        labels.values = nearest.astype(np.int64) if np.abs(values - nearest).max() <= NEAR_WHOLE else values
    return labels


def _nrrd(path: Path, field: str, max_voxels: int) -> Volume:
    found = read_nrrd(path, field, _unreadable(field), max_voxels)
    return _straight(found.values, found.axes, found.origin, STRAIGHT, field)


def _nifti(path: Path, field: str, max_voxels: int) -> Volume:
    """NIfTI's world is right-anterior-superior."""
    try:
        import nibabel
    except ImportError as error:
        raise UsageError("reading NIfTI needs nibabel; install it with: pip install 'clinalign[dicom]'") from error
    try:
        image: Any = nibabel.load(path)
        shape = [int(size) for size in image.shape]
        while len(shape) > 3 and shape[-1] == 1:
            shape.pop()
        kind = image.get_data_dtype().kind
    except Exception as error:  # nibabel and gzip raise whatever a damaged file makes them stumble over
        raise _damaged("NIfTI", field, error) from error
    check_volume(shape, kind, field, _unreadable(field), max_voxels)
    try:
        scaled = (image.dataobj.slope, image.dataobj.inter) != (1, 0)
        values = np.asarray(image.dataobj, dtype=np.float32 if scaled or kind == "f" else None)
        codes = [int(image.header[name]) for name in ("sform_code", "qform_code")]
        affine = np.asarray(image.affine, dtype=np.float64)
    except Exception as error:
        raise _damaged("NIfTI", field, error) from error
    origin = RAS_TO_LPS @ affine[:3, 3] if any(codes) else None
    return _straight(values.reshape(shape), RAS_TO_LPS @ affine[:3, :3], origin, TILT, field)


def _straight(values: npt.NDArray[Any], axes: Matrix, origin: Matrix | None, tilt: float, field: str) -> Volume:
    """Brings a volume onto the patient's axes by swapping and turning its own. `axes` [3, 3]: a column an array axis,
    in mm left, back and up; `origin` [3] of the first voxel."""
    sizes = np.linalg.norm(axes, axis=0)
    if not np.isfinite(axes).all() or not (sizes > 0).all():
        raise RowError(field, _unreadable(field), "the header gives the axes no direction; export it again")
    order = np.abs(axes / sizes).argmax(axis=1)
    unit = (axes / sizes)[:, order]
    if len(set(order)) < 3 or (np.abs(unit - np.diag(np.diag(unit))) > tilt).any():
        raise RowError(field, "oblique_volume", "the axes are turned against the patient's; resample the volume")
    values, axes = values.transpose(order), axes[:, order]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, 0 if origin is None else origin
    for axis in range(3):
        if axes[axis, axis] < 0:
            values = np.flip(values, axis)
            affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
            affine[:3, axis] *= -1
    spacing = tuple(round(float(size), 6) for size in sizes[order])
    placed = origin is not None and bool(np.isfinite(origin).all())
    return Volume(values, (spacing[0], spacing[1], spacing[2]), affine if placed else None)


def axial(values: npt.NDArray[Any], axes: Matrix, origin: Matrix) -> Volume:
    """A stack of slices [columns, rows, slices] on the patient's axes where it is axial, otherwise as it was scanned;
    `axes` and `origin` as of `StoredVolume`."""
    sizes = np.linalg.norm(axes, axis=0)
    if not np.isfinite(axes).all() or not (sizes > 0).all():
        raise RowError("images", "unreadable_image", "the headers give the axes no direction; export them again")
    unit = np.abs(axes / sizes)
    if unit[2, 2] >= 1 - TILT and np.abs(unit - unit.round()).max() <= TILT and (unit.round().sum(0) == 1).all():
        return _straight(values, axes, origin, TILT, "images")
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, origin
    spacing = tuple(round(float(size), 6) for size in sizes)
    across = int(unit[:, 2].argmax())
    plane = ("sagittal", "coronal", "oblique")[across] if unit[across, 2] >= 1 - TILT else "oblique"
    return Volume(values, (spacing[0], spacing[1], spacing[2]), affine, plane)


def _unreadable(field: str) -> str:
    return f"unreadable_{'image' if field == 'images' else field}"


def _damaged(form: str, field: str, error: Exception) -> RowError:
    return RowError(field, _unreadable(field), f"damaged {form} ({type(error).__name__}); export it again")


def check_grid(labels: Volume, volume: Volume) -> None:
    """Raises `RowError("mask", ...)` unless a mask lies on its image's grid: mask_size for another number of voxels,
    mask_grid for another origin, spacing or direction, and where only one of the two files tells them."""
    shape = volume.values.shape
    if labels.values.shape != shape:
        sizes = " and ".join("x".join(map(str, one.values.shape)) for one in (labels, volume))
        raise RowError("mask", "mask_size", f"mask and image are {sizes} voxels; resample the mask onto the image")
    if labels.affine is not None and volume.affine is not None:
        corners = np.array([[x, y, z, 1] for x in (0, shape[0]) for y in (0, shape[1]) for z in (0, shape[2])]).T
        away = np.linalg.inv(volume.affine) @ labels.affine @ corners - corners
        same = bool(np.abs(away).max() < SAME_VOXEL)
    else:
        same = labels.affine is volume.affine and bool(np.allclose(labels.spacing, volume.spacing, rtol=1e-3))
    if not same:
        detail = "mask and image differ in origin, spacing or direction; resample the mask onto the image"
        raise RowError("mask", "mask_grid", detail)


def slice_to_show(volume: Volume, labels: Volume | None, value: int | None = None) -> int:
    """The slice for a row that names none: where the mask (on the volume's grid) is largest, otherwise the middle."""
    if labels is not None:
        inside = _inside(labels.values, value)
        if inside.any():
            return int(inside.sum(axis=(0, 1)).argmax())
    return volume.values.shape[2] // 2


def volume_slice(volume: Volume, z: int, window: str, modality: str) -> tuple[Pixels, list[Window]]:
    """A slice as uint8 [H, W, 3] and the windows it was shown through: those asked for; without any, the soft-tissue
    window of a CT and the percentile range of anything else. NaN is black. Raises `RowError` for a slice that is not
    there, and for one without a number."""
    depth = volume.values.shape[2]
    if z >= depth:
        raise RowError("frame", "no_such_frame", f"slice {z} of {depth}; count from 0")
    if not np.isfinite(volume.slice(z)).any():
        raise RowError("images", "unreadable_image", f"no voxel of slice {z} holds a number; export it again")
    named = window not in ("auto", "file") and not window.startswith("file:")
    auto = [WINDOWS["soft"]] if modality.upper() == "CT" else [range_window(volume)]
    windows = parse_window(window) if named else auto
    planes = [apply_window(volume.slice(z), one) for one in windows]
    return np.stack(planes * (3 // len(planes)), axis=2), windows


def label_slice(labels: Volume, z: int, value: int | None = None) -> Mask:
    """A slice of a mask volume, on its image's grid, as bool [H, W]; with `value`, only that label."""
    return _inside(labels.slice(z), value)


def _inside(values: npt.NDArray[Any], value: int | None) -> Mask:
    if value is not None and values.dtype.kind == "f":
        raise RowError("mask", "labels_not_whole", "mask_value is given, but the map does not hold whole numbers")
    return np.asarray(values != 0 if value is None else values == value, dtype=bool)


def range_window(volume: Volume) -> Window:
    """The window of a volume without absolute units (MR): the 0.5th to the 99.5th percentile of all its values."""
    return percentile_window(volume.values)


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


ENCODINGS = {"gz": "gzip", "gzip": "gzip", "bz2": "bzip2", "bzip2": "bzip2", "raw": "raw"}
TEXT_ENCODINGS = ("ascii", "text", "txt")
LETTERS_A_NUMBER = 64
SPACE_WORDS = ({"left": 1, "right": -1}, {"posterior": 1, "anterior": -1}, {"superior": 1, "inferior": -1})
"""The sign of each axis of a space, seen from left-posterior-superior."""


class StoredVolume(NamedTuple):
    """`values` [x, y, z] as stored; `axes` [3, 3], a column an array axis in mm left, back and up; `origin` [3] of the
    first voxel, None where the file has none."""

    values: npt.NDArray[Any]
    axes: Matrix
    origin: Matrix | None


def read_nrrd(path: Path, field: str, reason: str, max_voxels: int) -> StoredVolume:
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
            values = _nrrd_values(header, file, path)
    except RowError:
        raise
    except Exception as error:  # pynrrd raises whatever a damaged header makes it stumble over
        raise RowError(field, reason, f"damaged NRRD ({type(error).__name__}); export it again") from error
    axes, origin = _placed(header, spatial, field, reason)
    return StoredVolume(values.reshape(sizes, order="F"), axes, origin)


def _spatial(header: Any) -> tuple[list[int], list[int]]:
    """The axes that are of space, and their sizes: one of length 1 without a direction (a channel) is passed over."""
    sizes = [int(size) for size in header["sizes"]]
    given = header.get("space directions")
    directed = np.isfinite(np.asarray(given, dtype=float)).all(axis=1) if given is not None else [True] * len(sizes)
    spatial = [axis for axis, size in enumerate(sizes) if directed[axis] or size != 1]
    while len(spatial) > 3 and any(sizes[axis] == 1 for axis in spatial):
        spatial.remove(next(axis for axis in reversed(spatial) if sizes[axis] == 1))
    return spatial, [sizes[axis] for axis in spatial]


def _nrrd_values(header: Any, file: Any, path: Path) -> npt.NDArray[Any]:
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
    signs = _axis_signs(str(header.get("space", "left-posterior-superior")))
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


def _axis_signs(space: str) -> list[int] | None:
    """The sign of each axis ("left-anterior-superior", "LAS", either with "-time"); None for any other space."""
    words = re.sub(r"[-_ ]?time$|(?<=[a-z]{3})t$", "", space.strip().lower()).split("-")
    if len(words) == 1 and len(words[0]) == 3:
        words = [next((word for word in known if word[0] == c), "") for known, c in zip(SPACE_WORDS, words[0])]
    if len(words) != 3:
        return None
    signs = [known.get(word) for known, word in zip(SPACE_WORDS, words)]
    return None if None in signs else [sign for sign in signs if sign is not None]
