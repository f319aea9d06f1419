"""A folder of DICOM files as one volume in Hounsfield (or stored) units, and which slices of a volume a model is shown.

Slices are put in order by their position along the normal of their plane, never by name. A folder that holds more than
one series, or a series with slices missing, is refused with the reason: a model would be shown what is not there.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clinalign.errors import RowError, UsageError
from clinalign.imaging.dicom import NO_NOTES, harmless, stored_values
from clinalign.imaging.identifiers import identifiers
from clinalign.imaging.images import is_dicom
from clinalign.imaging.limits import MAX_VOXELS, check_volume
from clinalign.imaging.volumes import Volume, axial

GAP = 1.5
"""Slices further apart than this many times the usual distance have others missing between them."""
SAME_PLACE = 1e-2
"""Slices nearer than this, in mm, lie in one place."""
SAME_PLANE = 1e-3
NAMED_GAPS = 3


@dataclass(slots=True)
class Series:
    """What leaves a folder of DICOM files. `meta` holds harmless attributes; `patient_id` and `identifiers` are for the
    caller and never written (see `dicom.Dicom`)."""

    volume: Volume
    meta: dict[str, Any] = field(default_factory=dict)
    patient_id: str = ""
    identifiers: list[list[str]] = field(default_factory=list)


class _Slice(NamedTuple):
    path: Path
    header: Any
    position: np.ndarray
    place: float


def is_series(path: Path) -> bool:
    """Whether a path is a folder with DICOM files directly in it."""
    try:
        return path.is_dir() and any(is_dicom(file) for file in path.iterdir() if file.is_file())
    except (OSError, ValueError):  # no name of a file
        return False


def read_series(folder: Path, *, max_voxels: int = MAX_VOXELS) -> Series:
    """Reads the one series that a folder holds. An axial one is turned onto the patient's axes like any other volume;
    others keep their own rows and columns (`Volume.plane` says so). Files that are not DICOM are passed over.

    Raises `RowError("images", ...)`: mixed_series (several series, sizes or planes, two slices in one place), gaps,
    no_position, no_series, too_large and what `read_dicom` raises; `UsageError` without pydicom. No message quotes a
    header.
    """
    try:
        from pydicom import dcmread
    except ImportError as error:
        raise UsageError("reading DICOM needs pydicom; install it with: pip install 'clinalign[dicom]'") from error
    logging.getLogger("pydicom").addHandler(NO_NOTES)
    with warnings.catch_warnings(action="ignore"):  # pydicom's notes quote the header
        try:
            return _read(dcmread, folder, max_voxels)
        except (RowError, UsageError):
            raise
        except Exception as error:  # pydicom raises whatever a damaged header makes it stumble over
            detail = f"a file of the series is damaged or cut short ({type(error).__name__}); export it again"
            raise RowError("images", "unreadable_image", detail) from error


def _read(dcmread: Any, folder: Path, max_voxels: int) -> Series:
    files = sorted(file for file in folder.iterdir() if file.is_file() and is_dicom(file))
    headers = [(file, dcmread(file, stop_before_pixels=True)) for file in files]
    # what has no rows is a report, a plan or a DICOMDIR
    headers = [(file, header) for file, header in headers if header.get("Rows")]
    if not headers:
        raise RowError("images", "no_series", "the folder holds no DICOM image; give the folder of one series")
    named: dict[tuple[str, ...], None] = {}
    for file in files:
        named |= dict.fromkeys(map(tuple, identifiers(dcmread(file, stop_before_pixels=True))))
    normal, slices = _in_order(headers)
    first = slices[0].header
    check_volume([int(first.Columns), int(first.Rows), len(slices)], "i", "images", "unreadable_image", max_voxels)
    planes = [np.asarray(stored_values(dcmread(one.path)), dtype=np.float32).T for one in slices]
    values = np.stack(planes, axis=2)
    axes = _axes(first, normal, slices)
    volume = axial(values, axes, slices[0].position)
    meta = harmless(first) | {"slices": len(slices), "plane": volume.plane}
    burned = any(str(h.get("BurnedInAnnotation", "unknown") or "unknown").lower() != "no" for _, h in headers)
    patient = str(first.get("PatientID", "") or "")
    return Series(volume, meta | {"burned_in_text": burned}, patient, [list(words) for words in named])


def _in_order(headers: list[tuple[Path, Any]]) -> tuple[np.ndarray, list[_Slice]]:
    """The normal of the slices' plane, and the slices along it."""
    for what, keyword in (("series", "SeriesInstanceUID"), ("patients", "PatientID")):
        count = len(Counter(str(header.get(keyword, "")) for _, header in headers))
        if count > 1:
            raise RowError("images", "mixed_series", f"the folder holds {count} {what}; give each series a folder")
    if len({(int(header.Rows), int(header.Columns)) for _, header in headers}) > 1:
        raise RowError("images", "mixed_series", "the slices differ in size; take scouts and other series out")
    if any(int(header.get("NumberOfFrames", 1) or 1) > 1 for _, header in headers):
        raise RowError("images", "multi_frame", "a file of many frames; name the file and its frame, or split it")
    if any(int(header.get("SamplesPerPixel", 1) or 1) != 1 for _, header in headers):
        raise RowError("images", "unreadable_image", "the series is in colour: no volume of real numbers")
    try:
        planes = [np.array([float(v) for v in header.ImageOrientationPatient]) for _, header in headers]
        positions = [np.array([float(v) for v in header.ImagePositionPatient]) for _, header in headers]
    except (AttributeError, TypeError, ValueError) as error:
        detail = "a slice does not say where it lies (ImagePositionPatient, ImageOrientationPatient); export them again"
        raise RowError("images", "no_position", detail) from error
    if max(float(np.abs(plane - planes[0]).max()) for plane in planes) > SAME_PLANE:
        raise RowError("images", "mixed_series", "the slices lie in different planes; take scouts and other series out")
    normal = np.cross(planes[0][:3], planes[0][3:])
    normal = normal * np.sign(normal[np.abs(normal).argmax()])  # to the left, the back or up
    places = [float(normal @ position) for position in positions]
    slices = [_Slice(*head, position, place) for head, position, place in zip(headers, positions, places, strict=True)]
    slices.sort(key=lambda one: one.place)
    _check_places([one.place for one in slices])
    return normal, slices


def _check_places(places: list[float]) -> None:
    steps = np.diff(places)
    doubled = int((steps < SAME_PLACE).sum())
    if doubled:
        detail = f"{doubled} slices lie where another one lies; phases or echoes are series of their own: part them"
        raise RowError("images", "mixed_series", detail)
    usual = float(np.median(steps)) if len(steps) else 0.0
    wide = [number for number, step in enumerate(steps, 1) if step > GAP * usual]
    if wide:
        named = ", ".join(f"{n} and {n + 1} ({steps[n - 1]:.1f} mm)" for n in wide[:NAMED_GAPS])
        more = f" and {len(wide) - NAMED_GAPS} more" if len(wide) > NAMED_GAPS else ""
        detail = f"slices are {usual:.1f} mm apart, but between {named}{more}; restore the missing ones"
        raise RowError("images", "gaps", detail)


def _axes(header: Any, normal: np.ndarray, slices: list[_Slice]) -> np.ndarray:
    """[3, 3]: a column an axis of the stack (columns, rows, slices), in mm left, back and up."""
    plane = np.array([float(v) for v in header.ImageOrientationPatient])
    between = [float(v) for v in header.get("PixelSpacing", None) or (1.0, 1.0)]
    if len(slices) > 1:
        step = (slices[-1].position - slices[0].position) / (len(slices) - 1)
    else:
        step = normal * float(header.get("SliceThickness", None) or 1.0)
    return np.stack([plane[:3] * between[1], plane[3:] * between[0], step], axis=1)


def chosen_slices(count: int, most: int) -> list[int]:
    """Which of `count` slices are shown where at most `most` may be: all, or round(i / most (count - 1)) for i = 1 ...
    most (halves to even, as Python rounds), which is never the first: what MedGemma 1.5 was trained with at 85."""
    if count <= most:
        return list(range(count))
    return [round(i / most * (count - 1)) for i in range(1, most + 1)]


def order_shown(volume: Volume) -> list[int]:
    """The slices in the order in which they are shown: from the head down where they are axial, as scanners number
    them; from the right, or from the front, otherwise."""
    depths = list(range(volume.values.shape[2]))
    return depths[::-1] if volume.plane == "axial" else depths
