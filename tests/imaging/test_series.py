"""DICOM series as volumes: order, planes, what is refused; which slices are shown and through which windows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import dicoms
import numpy as np
import pytest

from clinalign.errors import RowError
from clinalign.imaging.pixels import apply_window, parse_window
from clinalign.imaging.series import chosen_slices, is_series, order_shown, read_series

AXIAL = (1, 0, 0, 0, 1, 0)


def series(
    folder: Path,
    values: np.ndarray,
    *,
    orientation: Sequence[float] = AXIAL,
    step: Sequence[float] = (0, 0, 2.5),
    **attributes: object,
) -> Path:
    """`values` [slices, rows, columns] as files whose names and numbers say nothing of their order."""
    for number, plane in enumerate(values):
        position = [float(s) * number + o for s, o in zip(step, (-10, -20, 100), strict=True)]
        given = {
            "SeriesInstanceUID": "1.2.3",
            "ImageOrientationPatient": list(map(float, orientation)),
            "ImagePositionPatient": position,
            "PixelSpacing": [0.6, 0.5],
            "RescaleSlope": 2,
            "RescaleIntercept": -1000,
            "InstanceNumber": (number * 7) % len(values),
        }
        dicoms.make(folder / f"{(number * 5) % len(values):02d}.dcm", plane.astype(np.int16), **(given | attributes))
    return folder


def truth(slices: int = 4) -> np.ndarray:
    return np.arange(slices * 3 * 2).reshape(slices, 3, 2)


def test_slices_are_sorted_by_position_and_rescaled(tmp_path: Path) -> None:
    read = read_series(series(tmp_path / "ct", truth()))
    assert (read.volume.values == truth().transpose(2, 1, 0) * 2 - 1000).all()
    assert read.volume.spacing == (0.5, 0.6, 2.5) and read.volume.plane == "axial"
    assert read.volume.affine is not None and read.volume.affine[:3, 3].tolist() == [-10, -20, 100]
    assert read.meta["modality"] == "CT" and read.meta["slices"] == 4 and read.patient_id == "HOSP-4711-XYZ"
    assert ["Mustermann", "Erika"] in read.identifiers and "Erika" not in str(read.meta)
    assert order_shown(read.volume) == [3, 2, 1, 0], "from the head down"


def test_a_patient_who_lies_the_other_way_is_turned(tmp_path: Path) -> None:
    """Feet first and prone: rows run to the front, columns to the right, slices down; the volume is the same."""
    turned = truth()[::-1, ::-1, ::-1]
    folder = series(tmp_path / "ct", turned, orientation=(-1, 0, 0, 0, -1, 0), step=(0, 0, -2.5))
    assert (read_series(folder).volume.values == truth().transpose(2, 1, 0) * 2 - 1000).all()


def test_other_planes_stay_as_they_were_scanned(tmp_path: Path) -> None:
    sagittal = series(tmp_path / "mr", truth(), orientation=(0, 1, 0, 0, 0, -1), step=(-3, 0, 0), Modality="MR")
    volume = read_series(sagittal).volume
    assert volume.plane == "sagittal" and order_shown(volume) == [0, 1, 2, 3]
    assert (volume.slice(0) == truth()[-1] * 2 - 1000).all(), "from the patient's right"


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"SeriesInstanceUID": "1.2.9"}, "mixed_series", "2 series"),
        ({"PatientID": "OTHER-1"}, "mixed_series", "2 patients"),
        ({"ImageOrientationPatient": [0.0, 1, 0, 0, 0, -1]}, "mixed_series", "planes"),
        ({"ImagePositionPatient": [-10.0, -20, 102.5]}, "mixed_series", "1 slices lie where another"),
        ({"ImagePositionPatient": [-10.0, -20, 114.0]}, "gaps", "4 and 5 (6.5 mm)"),
        ({"ImagePositionPatient": None}, "no_position", "ImagePositionPatient"),
        ({"RescaleSlope": 0}, "bad_rescale", "RescaleSlope"),
        ({"PixelData": None}, "no_pixel_data", ""),
    ],
)
def test_what_is_no_one_series_is_refused_by_name(tmp_path: Path, change: dict, reason: str, words: str) -> None:
    folder = series(tmp_path / "ct", truth())
    given = {"SeriesInstanceUID": "1.2.3", "ImageOrientationPatient": list(map(float, AXIAL)), "RescaleSlope": 2}
    given |= {"ImagePositionPatient": [-10.0, -20, 110.0], "RescaleIntercept": -1000}
    given = {name: v for name, v in (given | change).items() if v is not None or name == "PixelData"}
    dicoms.make(folder / "another.dcm", truth()[0].astype(np.int16), **given)
    with pytest.raises(RowError) as error:
        read_series(folder)
    assert (error.value.field, error.value.reason) == ("images", reason) and words in (error.value.detail or "")
    assert "OTHER-1" not in str(error.value.detail) and "HOSP" not in str(error.value.detail)


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct", truth(7))
    (folder / f"{(3 * 5) % 7:02d}.dcm").unlink()
    with pytest.raises(RowError) as error:
        read_series(folder)
    assert error.value.reason == "gaps" and "3 and 4 (5.0 mm)" in (error.value.detail or "")


def test_folders_without_a_series(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no image")
    assert not is_series(tmp_path) and not is_series(tmp_path / "note.txt") and not is_series(Path("x\0y"))
    assert is_series(series(tmp_path / "ct", truth()))
    (tmp_path / "ct" / "note.txt").write_text("passed over")
    assert read_series(tmp_path / "ct").meta["slices"] == 4
    with pytest.raises(RowError) as error:
        read_series(tmp_path / "ct", max_voxels=23)
    assert error.value.reason == "too_large"


def test_the_slices_of_medgemma() -> None:
    """n = 100, at most 85: index round(i / 85 * 99) for i = 1 .. 85. i = 1: 1.16 -> 1; i = 42: 48.9 -> 49; i = 85: 99.
    n = 5, at most 2: 2 and 4 (never slice 0)."""
    chosen = chosen_slices(100, 85)
    assert (chosen[0], chosen[41], chosen[-1], len(chosen)) == (1, 49, 99, 85) and chosen == sorted(set(chosen))
    assert chosen_slices(85, 85) == list(range(85)) and chosen_slices(3, 85) == [0, 1, 2]
    assert chosen_slices(5, 2) == [2, 4]


def test_the_windows_of_medgemma() -> None:
    """Each channel is clip, (x - lo) / (hi - lo) * 255, rounded: to the last level for every whole Hounsfield unit."""
    values = np.arange(-1500, 1500, dtype=np.float32)[None]
    for window, (low, high) in zip(parse_window("medgemma"), ((-1024, 1024), (-135, 215), (0, 80)), strict=True):
        expected = np.round((np.clip(values, low, high) - low) / (high - low) * 255).astype(np.uint8)
        assert (apply_window(values, window) == expected).all()
