"""NRRD and NIfTI volumes as axial slices in radiological convention."""

import json
from pathlib import Path

import nrrd
import numpy as np
import pytest

from clinalign.errors import RowError
from clinalign.imaging.images import read_image, read_mask
from clinalign.imaging.pixels import WINDOWS, apply_window, parse_window
from clinalign.imaging.volumes import Volume, lesion_of, range_window, read_volume, shown, slices


def save(path: Path, values: np.ndarray, directions=(1.0, 1.0, 1.0), space="left-posterior-superior") -> Path:
    header = {"space": space, "space directions": np.diag(directions), "space origin": [0, 0, 0]}
    nrrd.write(str(path), values, header)
    return path


def test_axes_are_x_y_z_and_rows_run_to_the_back(tmp_path: Path) -> None:
    values = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    volume = read_volume(save(tmp_path / "a.nrrd", values, (0.5, 0.6, 5.0)))
    assert volume.spacing == (0.5, 0.6, 5.0) and volume.slice(1).shape == (3, 2)
    assert volume.slice(1)[2, 0] == values[0, 2, 1]


@pytest.mark.parametrize(
    ("directions", "space", "flips"),
    [
        ((1, -1, 1), "left-posterior-superior", (1,)),
        ((-1, 1, -1), "left-posterior-superior", (0, 2)),
        ((1, 1, 1), "right-anterior-superior", (0, 1)),
        ((-1, -1, 1), "right-anterior-superior", ()),
    ],
)
def test_axes_that_run_the_other_way_are_turned_round(tmp_path: Path, directions, space, flips) -> None:
    values = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    volume = read_volume(save(tmp_path / "a.nrrd", values, directions, space))
    assert (volume.values == np.flip(values, flips)).all() and volume.spacing == (1, 1, 1)


def test_what_is_no_straight_volume_is_refused(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "flat.nrrd"), np.zeros((4, 4)))
    turned = {"space": "left-posterior-superior", "space directions": np.array([[1, 0.3, 0], [0.3, 1, 0], [0, 0, 1]])}
    nrrd.write(str(tmp_path / "oblique.nrrd"), np.zeros((4, 4, 4)), turned)
    (tmp_path / "text.nrrd").write_text("no volume")
    whole = save(tmp_path / "a.nrrd", np.random.default_rng(0).normal(size=(9, 9, 9))).read_bytes()
    (tmp_path / "cut.nrrd").write_bytes(whole[: len(whole) // 2])
    for name, reason in [
        ("flat.nrrd", "unreadable_image"),
        ("oblique.nrrd", "oblique_volume"),
        ("text.nrrd", "unreadable_image"),
        ("cut.nrrd", "unreadable_image"),
        ("none.nrrd", "missing_image"),
    ]:
        with pytest.raises(RowError) as error:
            read_volume(tmp_path / name)
        assert error.value.reason == reason


def test_windows_of_ct_and_mr() -> None:
    hounsfield = Volume(np.array([-1200, -400, 400]).reshape(1, 3, 1), (1, 1, 1))
    assert shown(hounsfield, 0, parse_window("-1200/400")[0])[:, 0, 0].tolist() == [0, 128, 255]
    ramp = Volume(np.arange(1001, dtype=float).reshape(1001, 1, 1), (1, 1, 1))
    window = range_window(ramp)
    assert (window.center, window.width) == (500, pytest.approx(990))


def test_lesion_free_slices_keep_away_from_the_lesion() -> None:
    values = np.zeros((3, 3, 20), dtype=np.int16)
    values[1, 2, 8:11] = 1
    mask = Volume(values, (1, 1, 1))
    lesion, free = slices(mask)
    assert lesion == [8, 9, 10] and free == [0, 12, 19]
    assert all(z <= 6 or z >= 12 for z in free)
    assert lesion_of(mask, 9)[2, 1] and lesion_of(mask, 9).sum() == 1
    assert slices(Volume(values * 0, (1, 1, 1))) == ([], [])


def nifti(path: Path, values: np.ndarray, affine: np.ndarray) -> Path:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
def test_nifti_in_any_orientation_is_the_same_volume(tmp_path: Path, name: str, order, signs) -> None:
    """The truth is an array in left-posterior-superior order; it is stored turned round and read back."""
    truth = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    stored, affine = truth[::-1, ::-1], np.diag([0.5, 0.6, 5.0])  # right-anterior-superior, NIfTI's own
    for axis, sign in enumerate(signs):
        if sign < 0:
            stored, affine[:, axis] = np.flip(stored, axis), -affine[:, axis]
    stored, affine = np.transpose(stored, order), affine[:, list(order)]
    matrix = np.eye(4)
    matrix[:3, :3] = affine
    volume = read_volume(nifti(tmp_path / name, stored, matrix))
    assert (volume.values == truth).all() and volume.spacing == (0.5, 0.6, 5.0)


def test_nifti_that_is_no_straight_volume(tmp_path: Path) -> None:
    turned = np.eye(4)
    turned[:3, :3] = [[0.7, -0.7, 0], [0.7, 0.7, 0], [0, 0, 1]]
    nifti(tmp_path / "oblique.nii", np.zeros((4, 4, 4)), turned)
    tilted = np.eye(4)
    tilted[:3, :3] = [[1, 0, 0], [0, np.cos(0.2), -np.sin(0.2)], [0, np.sin(0.2), np.cos(0.2)]]
    assert read_volume(nifti(tmp_path / "tilted.nii", np.zeros((4, 5, 6)), tilted)).values.shape == (4, 5, 6)
    nifti(tmp_path / "series.nii", np.zeros((4, 4, 4, 3)), np.eye(4))
    whole = nifti(tmp_path / "a.nii.gz", np.random.default_rng(0).normal(size=(9, 9, 9)), np.eye(4)).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.nii").write_text("no volume")
    for name, reason in [
        ("oblique.nii", "oblique_volume"),
        ("series.nii", "unreadable_image"),
        ("cut.nii.gz", "unreadable_image"),
        ("text.nii", "unreadable_image"),
        ("none.nii", "missing_image"),
    ]:
        with pytest.raises(RowError) as error:
            read_volume(tmp_path / name)
        assert error.value.reason == reason, name


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz"])
def test_rows_of_volumes_become_slices_with_their_masks(tmp_path: Path, suffix: str) -> None:
    from sources import ingest

    values = np.random.default_rng(0).integers(-1000, 1000, (12, 10, 6)).astype(np.int16)
    labels = np.zeros((12, 10, 6), dtype=np.uint8)
    labels[2:5, 3:5, 1], labels[6:11, 2:9, 4], labels[1, 1, 4] = 1, 2, 1
    data = tmp_path / "data"
    data.mkdir()
    for name, array in (("ct", values), ("labels", labels), ("short", labels[:, :, :3]), ("other", labels[:8])):
        if suffix == ".nrrd":
            save(data / f"{name}.nrrd", array)
        else:
            nifti(data / f"{name}.nii.gz", array[::-1, ::-1], np.eye(4))
    row = {"image": f"ct{suffix}", "mask": f"labels{suffix}", "question": "q", "answer": "yes", "modality": "CT"}
    rows = [
        row,
        row | {"mask_value": 1},
        row | {"frame": 1, "window": "lung", "mask_value": 2},
        row | {"frame": 1, "window": "lung"},
        row | {"frame": 9},
        row | {"mask": f"short{suffix}", "frame": 4},
        row | {"mask": f"other{suffix}"},
        row | {"mask": f"none{suffix}"},
        row | {"mask": "", "modality": "MR"},
    ]
    (data / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    examples, quarantine = ingest(out, "table", data / "t.jsonl")
    assert [(e.row, e.meta["volume"][0]["slice"]) for e in examples] == [(1, 4), (2, 1), (4, 1), (9, 3)]
    assert [(r["row"], r["field"], r["reason"]) for r in quarantine.rows] == [
        (3, "mask", "empty_mask"),
        (5, "frame", "no_such_frame"),
        (6, "mask", "mask_size"),
        (7, "mask", "mask_size"),
        (8, "mask", "missing_mask"),
    ]
    first, second, third, last = examples
    assert (read_mask(out / first.regions[0].mask) == (labels[:, :, 4].T > 0)).all()
    assert (read_mask(out / second.regions[0].mask) == (labels[:, :, 1].T == 1)).all()
    assert (read_image(out / first.images[0])[:, :, 0] == apply_window(values[:, :, 4].T, WINDOWS["soft"])).all()
    assert (read_image(out / third.images[0])[:, :, 0] == apply_window(values[:, :, 1].T, WINDOWS["lung"])).all()
    assert first.meta["volume"][0]["window"][0]["name"] == "soft" and not last.regions
    shown_last = last.meta["volume"][0]
    assert shown_last["window"][0]["name"] == "percentile" and shown_last["spacing_mm"] == [1, 1, 1]
