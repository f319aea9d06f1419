"""NRRD volumes as axial slices in radiological convention."""

from pathlib import Path

import nrrd
import numpy as np
import pytest

from clinalign.data.volumes import Volume, lesion_of, range_window, read_volume, shown, slices
from clinalign.data.windows import parse_window
from clinalign.errors import RowError


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
