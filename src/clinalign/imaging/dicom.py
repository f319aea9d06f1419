"""DICOM files into pixels, overlay regions and a handful of harmless attributes. No identifier leaves.

Pixel values go through the modality transform (rescale slope and intercept, or a modality LUT), then through a window
(DICOM PS3.3 C.11.2), then to 8 bits; MONOCHROME1 is inverted last. Only attributes on an allow-list whose values are
code words are kept; everything else in the header stays in the file. Needs `pydicom` (extra `dicom`).
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from clinalign.errors import RowError, UsageError
from clinalign.imaging.identifiers import identifiers
from clinalign.imaging.limits import MAX_PIXELS, check_picture, deflates_beyond
from clinalign.imaging.pixels import (
    WINDOWS,
    Mask,
    Pixels,
    Window,
    apply_window,
    file_window,
    parse_window,
    percentile_window,
    to_8_bit,
    typed_numbers,
)
from clinalign.storage import is_file

Values = npt.NDArray[np.float64]

HARMLESS = {
    "modality": ("Modality", "CR CT DX ES IO MG MR NM OP OPT OT PT PX RF RG SC SEG SM US XA XC"),
    "view": ("ViewPosition", "AP PA LL RL LLD RLD LLO RLO LAT CC MLO ML LM"),
    "body_part": (
        "BodyPartExamined",
        "ABDOMEN ABDOMENPELVIS ANKLE AORTA ARM BRAIN BREAST CHEST CHESTABDOMEN CHESTABDPELVIS CLAVICLE COLON CSPINE "
        "ELBOW EXTREMITY EYE FEMUR FINGER FOOT FOREARM HAND HEAD HEADNECK HEART HIP HUMERUS JAW KIDNEY KNEE LEG LIVER "
        "LSPINE LUNG MAXILLA NECK ORBIT PANCREAS PELVIS PROSTATE RETINA RIB SHOULDER SKULL SPINE STERNUM STOMACH TIBIA "
        "THIGH THORAX TOE TSPINE UTERUS WHOLEBODY WRIST",
    ),
}
"""Attributes that may leave a file, each only with one of these code words of the standard: free text never does."""
OVERLAY_GROUPS = range(0x6000, 0x6020, 2)
NO_NOTES = logging.NullHandler()
PIECES = 64
"""Of a drawing's pieces, at most so many of the largest are looked at."""
SHAPES = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
DEFLATED = 8
"""Bytes a pixel that a deflated file may unpack to, at the limit of pixels."""


@dataclass(slots=True)
class Dicom:
    """What leaves a DICOM file. `image` uint8 [H, W, 3]; `overlays` filled bool [H, W] each; `meta` harmless
    attributes and the window used. `patient_id` (raw, to be hashed) and `identifiers` (see `identifiers.py`) are for
    the caller and never written."""

    image: Pixels
    overlays: list[Mask] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    patient_id: str = ""
    identifiers: list[list[str]] = field(default_factory=list)


def read_dicom(path: Path, *, window: str = "auto", frame: int = 0, max_pixels: int = MAX_PIXELS) -> Dicom:
    """Reads one frame. `window` as in `DataOptions.window`; `frame` counts from 0; `max_pixels` as in `read_image`.

    Raises `RowError("images", ...)`: missing_image, unreadable_image, no_pixel_data, no_such_frame, no_decoder,
    too_large, bad_rescale; `UsageError` for an unknown window name or a missing pydicom. No message quotes the header
    or the path.
    """
    try:
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise UsageError("reading DICOM needs pydicom; install it with: pip install 'clinalign[dicom]'") from error
    if not is_file(path):
        raise RowError("images", "missing_image", "no such file; paths are relative to the table's folder")
    quiet = warnings.catch_warnings(action="ignore")  # pydicom's notes quote the header
    logging.getLogger("pydicom").addHandler(NO_NOTES)
    try:
        with quiet:
            return _read(dcmread, path, window, frame, max_pixels)
    except InvalidDicomError as error:
        raise RowError("images", "unreadable_image", "not a DICOM file in spite of its name") from error
    except (RowError, UsageError):
        raise
    except Exception as error:  # pydicom raises whatever a damaged header makes it stumble over
        detail = f"damaged or cut short ({type(error).__name__}); export it again"
        raise RowError("images", "unreadable_image", detail) from error


def _read(dcmread: Any, path: Path, window: str, frame: int, max_pixels: int) -> Dicom:
    _check_unpacked(path, max_pixels)
    data = dcmread(path)
    named = identifiers(data)  # first: it wants the bytes, which reading a value decodes
    _check_pixels(data)
    check_picture(int(data.Columns), int(data.Rows), "images", max_pixels)
    image, used = _image(data, _pixels(data, frame), window, frame)
    meta, patient = _meta(data, frame, used), str(data.get("PatientID", "") or "")
    return Dicom(image, overlays(data, frame), meta, patient, named)


def _check_unpacked(path: Path, max_pixels: int) -> None:
    """Refuses a deflated file that unpacks to more than its limit: pydicom would unpack the whole of it."""
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    try:
        meta = read_file_meta_info(path)
        deflated = meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
    except Exception:  # no preamble, or damaged: dcmread says which
        return
    if deflated and max_pixels:
        start = 144 + int(meta.FileMetaInformationGroupLength)  # the group begins after its own length element
        if deflates_beyond(path, start, DEFLATED * max_pixels):
            detail = f"it unpacks to more than {DEFLATED} bytes for each of data.max_pixels ({max_pixels})"
            raise RowError("images", "too_large", detail)


def overlays(data: Any, frame: int = 0) -> list[Mask]:
    """The overlay planes (groups 0x6000 to 0x601E) as filled regions on the image's grid; empty planes are left out.

    An ROI is often drawn as an outline, so holes are filled. A graphics plane (type G) also carries letters and
    markers: of its filled pieces, the largest one that does not enclose another drawing is the region.
    """
    shape = (int(data.Rows), int(data.Columns))
    found = []
    for group in OVERLAY_GROUPS:
        if (group, 0x3000) not in data:
            continue
        plane = np.asarray(data.overlay_array(group)) > 0
        if plane.ndim == 3:
            plane = plane[min(frame, len(plane) - 1)]
        top, left = (int(v) - 1 for v in (data[group, 0x0050].value if (group, 0x0050) in data else (1, 1)))
        rows, cols = np.nonzero(plane)
        inside = (rows + top >= 0) & (rows + top < shape[0]) & (cols + left >= 0) & (cols + left < shape[1])
        mask = np.zeros(shape, dtype=bool)
        mask[rows[inside] + top, cols[inside] + left] = True
        graphics = (group, 0x0040) in data and str(data[group, 0x0040].value) == "G"
        if mask.any():
            found.append(_largest_piece(mask) if graphics else _filled(mask))
    return found


def _filled(mask: Mask) -> Mask:
    return np.asarray(ndimage.binary_fill_holes(mask), dtype=bool)


def _largest_piece(drawing: Mask) -> Mask:
    """The largest filled connected piece of a drawing, pieces with another piece inside (framed letters) last."""
    labels, count = ndimage.label(drawing, structure=np.ones((3, 3)))
    boxes = ndimage.find_objects(labels)
    areas = [(box[0].stop - box[0].start) * (box[1].stop - box[1].start) for box in boxes]
    best: tuple[bool, int] = (False, 0)
    region = np.zeros_like(drawing)
    for number in sorted(range(count), key=lambda k: -areas[k])[:PIECES]:
        if best > (True, areas[number]):  # no later piece can fill more than its box
            break
        box = boxes[number]
        piece = _filled(labels[box] == number + 1)
        framed = bool((drawing[box] & piece & (labels[box] != number + 1)).any())
        if (not framed, int(piece.sum())) > best:
            best = (not framed, int(piece.sum()))
            region = np.zeros_like(drawing)
            region[box] = piece
    return region


def stored_values(data: Any, frame: int = 0) -> Values:
    """The pixels [H, W] of an open file in the units after rescaling (HU in CT); raises `RowError` as `read_dicom`."""
    _check_pixels(data)
    return _rescaled(data, _pixels(data, frame), frame)


def _check_pixels(data: Any) -> None:
    if not any(name in data for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise RowError("images", "no_pixel_data", "the file holds no image (a report or a plan); leave it out")


def frames_of(path: Path) -> int:
    """How many frames a file has; 1 where it cannot be read, which reading it will say."""
    from pydicom import dcmread

    try:
        with warnings.catch_warnings(action="ignore"):
            return int(dcmread(path, stop_before_pixels=True).get("NumberOfFrames", 1) or 1)
    except Exception:  # as in `read_dicom`
        return 1


def harmless(data: Any) -> dict[str, Any]:
    """The attributes of an open file that may leave it."""
    given = {name: (str(data.get(keyword, "") or ""), words) for name, (keyword, words) in HARMLESS.items()}
    return {name: value for name, (value, words) in given.items() if value in words.split()}


def _pixels(data: Any, frame: int) -> npt.NDArray[Any]:
    from pydicom.pixels import pixel_array

    frames = int(data.get("NumberOfFrames", 1) or 1)
    if frame >= frames:
        raise RowError("images", "no_such_frame", f"frame {frame} of {frames}; set data.frame below {frames}")
    try:
        return pixel_array(data, index=frame)
    except (NotImplementedError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "missing dependencies" not in str(error):
            detail = "damaged, or beyond the installed decoders; export it again, or pip install python-gdcm"
            raise RowError("images", "unreadable_image", detail) from error
        syntax = str(getattr(data.file_meta.TransferSyntaxUID, "name", ""))
        known = syntax if syntax[:1].isalpha() else "this compression"  # an unknown one goes by its number
        remedy = f"no decoder for {known}; install one with: pip install python-gdcm"
        raise RowError("images", "no_decoder", remedy) from error


def _image(data: Any, pixels: npt.NDArray[Any], window: str, frame: int) -> tuple[Pixels, list[Window]]:
    photometric = str(data.get("PhotometricInterpretation", "MONOCHROME2"))
    if photometric == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        colours = np.asarray(apply_color_lut(pixels, data))[..., :3]
        return ((colours >> 8) if colours.dtype == np.uint16 else colours).astype(np.uint8), []
    if pixels.ndim == 3:
        return to_8_bit(pixels[..., :3]), []
    values = _rescaled(data, pixels, frame)
    if not np.isfinite(values).any():
        raise RowError("images", "unreadable_image", "no pixel holds a number; export it again")
    windows = _windows(data, values, pixels, window, frame)
    if windows:
        shown = [apply_window(values, one) for one in windows]
    else:
        shown, windows = [_through_lut(data, pixels)], [Window("lut", 0.0, 0.0)]
    if photometric == "MONOCHROME1":
        shown = [255 - one for one in shown]
    return np.stack(shown * (3 // len(shown)), axis=2), windows


def _rescaled(data: Any, pixels: npt.NDArray[Any], frame: int) -> Values:
    given = {}
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        numbers = _numbers(data, "PixelValueTransformationSequence", keyword, frame)
        if numbers is None or (keyword == "RescaleSlope" and 0 in numbers[:1]):
            detail = f"{keyword} is not a usable number, so the values have no unit; correct the header"
            raise RowError("images", "bad_rescale", detail)
        given[keyword] = numbers[0] if numbers else None
    slope, intercept = given["RescaleSlope"], given["RescaleIntercept"]
    if slope is None and "ModalityLUTSequence" in data:
        from pydicom.pixels import apply_modality_lut

        return np.asarray(apply_modality_lut(pixels, data), dtype=np.float64)
    return pixels.astype(np.float64) * (1.0 if slope is None else slope) + (intercept or 0.0)


def _windows(data: Any, values: Values, pixels: npt.NDArray[Any], window: str, frame: int) -> list[Window]:
    """What to show through; empty means the file's own VOI LUT."""
    if window != "auto" and not window.startswith("file"):
        return parse_window(window)
    number = 0 if window == "auto" else file_window(window)
    if number is None:
        raise UsageError(f"data.window: '{window}' is not file:N with N from 0")
    centers = _numbers(data, "FrameVOILUTSequence", "WindowCenter", frame) or []
    widths = _numbers(data, "FrameVOILUTSequence", "WindowWidth", frame) or []
    shape = str(_of_frame(data, "FrameVOILUTSequence", "VOILUTFunction", frame) or "").strip().upper()
    shape = shape if shape in SHAPES else "LINEAR"
    usable = [Window("file", c, w, shape) for c, w in zip(centers, widths) if w >= 1 or (shape != "LINEAR" and w > 0)]
    if window != "auto" and number >= len(usable):
        raise RowError("images", "no_such_window", f"the file has {len(usable)} windows; set data.window to auto")
    if usable:
        return [usable[number]]
    if "VOILUTSequence" in data:
        return []
    if data.get("Modality") == "CT":
        return [WINDOWS["soft"]]
    padding = data.get("PixelPaddingValue")
    shown = values[pixels != padding] if padding is not None and (pixels != padding).any() else values
    return [percentile_window(shown)]


def _through_lut(data: Any, pixels: npt.NDArray[Any]) -> Pixels:
    from pydicom.pixels import apply_modality_lut, apply_voi

    bits = int(data.VOILUTSequence[0].LUTDescriptor[2])
    shown = np.asarray(apply_voi(np.asarray(apply_modality_lut(pixels, data)).astype(pixels.dtype), data))
    return np.round(shown.astype(np.float64) * (255.0 / (2**bits - 1))).clip(0, 255).astype(np.uint8)


def _of_frame(data: Any, sequence: str, keyword: str, frame: int) -> Any:
    """An attribute of the file, or of one frame of an enhanced multi-frame file (its own, then the shared one)."""
    own = data.get("PerFrameFunctionalGroupsSequence")
    shared = data.get("SharedFunctionalGroupsSequence")
    for groups, index in ((own, frame), (shared, 0)):
        if groups and index < len(groups) and sequence in groups[index] and len(groups[index][sequence].value):
            value = groups[index][sequence].value[0].get(keyword)
            if value is not None:
                return value
    return data.get(keyword)


def _numbers(data: Any, sequence: str, keyword: str, frame: int) -> list[float] | None:
    """The numbers of an attribute, also where a person typed them; none where it is empty, None where it is no number
    that is finite."""
    try:
        value = _of_frame(data, sequence, keyword, frame)
    except Exception:  # pydicom refuses what is not a decimal string; its bytes are still there
        raw = data.get_item(keyword)
        value = getattr(raw, "value", None)
    if isinstance(value, str):
        value = value.encode("latin-1", "replace")  # pydicom's reading of bytes that are no decimal string
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    parts = list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    return typed_numbers("\\".join(str(part) for part in parts if part is not None))


def _meta(data: Any, frame: int, windows: list[Window]) -> dict[str, Any]:
    meta = harmless(data) | {"rows": int(data.Rows), "columns": int(data.Columns), "frame": frame}
    meta["window"] = [one.as_dict() for one in windows]
    meta["burned_in_text"] = str(data.get("BurnedInAnnotation", "unknown") or "unknown").lower() != "no"
    return meta
