"""Where a volume lies and what its voxels are: read right, or refused in a word."""

import gzip
import tracemalloc
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest

from clinalign.errors import RowError
from clinalign.imaging.volumes import check_grid, is_volume, label_slice, range_window, read_labels, read_volume
from clinalign.imaging.volumes import volume_slice as shown_slice

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Left, back and up, in NIfTI's own right-anterior-superior world."""


def scan() -> np.ndarray:
    """Bright at the patient's left front, brighter slice by slice."""
    values = np.zeros((12, 10, 8), dtype=np.float32)
    values[8:, :3] = 100
    return values + np.arange(8, dtype=np.float32)


def nifti(path: Path, values: np.ndarray, affine: np.ndarray = LPS) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def reason(path: Path, **more) -> str:
    with pytest.raises(RowError) as error:
        read_volume(path, **more)
    assert str(path.parent) not in str(error.value)
    return error.value.reason


def test_nan_is_left_out_of_the_range_and_shown_black(tmp_path: Path) -> None:
    values = scan()
    values[0, 0, 0] = np.nan
    values[1, 0, 1] = np.inf
    volume = read_volume(nifti(tmp_path / "a.nii.gz", values))
    window = range_window(volume)
    assert np.isfinite([window.center, window.width]).all()
    image, _ = shown_slice(volume, 0, "auto", "MR")
    assert image[0, 0, 0] == 0 and image.max() > 200, "the rest of the picture is as it was"
    values[:, :, 2] = np.nan
    with pytest.raises(RowError, match="unreadable_image"):
        shown_slice(read_volume(nifti(tmp_path / "b.nii", values)), 2, "auto", "MR")


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("right-anterior-superior", (-1, -1, 1)),
        ("left-anterior-superior", (1, -1, 1)),
        ("LAS", (1, -1, 1)),
        ("RAS", (-1, -1, 1)),
        ("right-posterior-superior", (-1, 1, 1)),
        ("left-posterior-inferior", (1, 1, -1)),
        ("left-posterior-superior-time", (1, 1, 1)),
    ],
)
def test_a_space_gives_the_sign_of_each_axis(tmp_path: Path, space: str, signs: tuple[int, ...]) -> None:
    directions = np.diag(np.array(signs, dtype=float))
    nrrd.write(str(tmp_path / "v.nrrd"), scan(), {"space": "LPS", "space directions": np.eye(3)})
    text = (tmp_path / "v.nrrd").read_bytes()
    rows = " ".join("(" + ",".join(str(v) for v in row) + ")" for row in directions)
    head, _, data = text.partition(b"\n\n")
    lines = [line for line in head.decode().split("\n") if not line.startswith("space")]
    lines += [f"space: {space}", f"space directions: {rows}"]
    (tmp_path / "v.nrrd").write_bytes("\n".join(lines).encode() + b"\n\n" + data)
    assert (read_volume(tmp_path / "v.nrrd").values == scan()).all()


@pytest.mark.parametrize(
    "space", ["scanner-xyz", "3D-left-handed", "3D-right-handed", "left", "posterior-left-superior"]
)
def test_a_space_that_is_not_the_patients_is_refused(tmp_path: Path, space: str) -> None:
    header = {"space": space, "space directions": np.eye(3)}
    nrrd.write(str(tmp_path / "v.nrrd"), scan(), header)
    assert reason(tmp_path / "v.nrrd") == "unreadable_image"


def test_nrrd_axes_in_another_order_are_brought_back(tmp_path: Path) -> None:
    header = {"space": "LPS", "space directions": np.array([[0, 0, 2.0], [1, 0, 0], [0, 1, 0]])}
    nrrd.write(str(tmp_path / "v.nrrd"), scan().transpose(2, 0, 1), header)
    volume = read_volume(tmp_path / "v.nrrd")
    assert (volume.values == scan()).all() and volume.spacing == (1, 1, 2)


def test_an_axis_of_one_channel_is_passed_over_and_a_detached_header_is_a_volume(tmp_path: Path) -> None:
    directions = np.array([[np.nan] * 3, [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    header = {"kinds": ["list", *["domain"] * 3], "space": "LPS", "space directions": directions}
    nrrd.write(str(tmp_path / "one.nrrd"), scan()[None], header)
    assert (read_volume(tmp_path / "one.nrrd").values == scan()).all()
    nrrd.write(str(tmp_path / "three.nrrd"), np.stack([scan()] * 3), header)
    assert reason(tmp_path / "three.nrrd") == "unreadable_image"
    plain = {"space": "LPS", "space directions": np.eye(3)}
    nrrd.write(str(tmp_path / "d.nhdr"), scan(), plain, detached_header=True)
    assert is_volume(tmp_path / "d.nhdr") and (read_volume(tmp_path / "d.nhdr").values == scan()).all()
    text = (tmp_path / "d.nhdr").read_text()
    for elsewhere in ("/dev/zero", "../d.raw.gz", "none.raw"):
        (tmp_path / "e.nhdr").write_text(text.replace("d.raw.gz", elsewhere))
        assert reason(tmp_path / "e.nhdr") == "unreadable_image"


def test_colour_complex_and_empty_volumes_are_refused(tmp_path: Path) -> None:
    colour = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nifti(tmp_path / "rgb.nii.gz", colour)
    nifti(tmp_path / "complex.nii.gz", scan().astype(np.complex64))
    nifti(tmp_path / "empty.nii", np.zeros((0, 4, 4), dtype=np.float32))
    for name in ("rgb.nii.gz", "complex.nii.gz", "empty.nii"):
        assert reason(tmp_path / name) == "unreadable_image", name


def test_labels_that_a_slope_moved_are_whole_again(tmp_path: Path) -> None:
    labels = np.zeros((12, 10, 8))
    labels[8:11, :3, 6], labels[:2, :2, 6], labels[3, 3, 3] = 3, 4, 1
    image = nibabel.Nifti1Image(labels, LPS)
    image.header.set_data_dtype(np.uint8)
    image.to_filename(tmp_path / "labels.nii.gz")
    stored = np.unique(np.asarray(nibabel.load(tmp_path / "labels.nii.gz").dataobj))
    assert not set(stored) <= {0, 1, 2, 3, 4}, "nibabel stores them through a slope"
    found = read_labels(tmp_path / "labels.nii.gz")
    for value in (1, 3, 4):
        for z in range(8):
            assert (label_slice(found, z, value) == (labels[:, :, z].T == value)).all()


def test_a_map_of_shares_has_no_label(tmp_path: Path) -> None:
    shares = np.zeros((4, 4, 4), dtype=np.float32)
    shares[1, 1, 1], shares[2, 2, 1] = 0.4, np.nan
    labels = read_labels(nifti(tmp_path / "p.nii", shares))
    assert label_slice(labels, 1).sum() == 1, "NaN is outside"
    with pytest.raises(RowError, match="labels_not_whole"):
        label_slice(labels, 1, 1)


def moved(x: float = 0, y: float = 0, z: float = 0, spacing: tuple[float, ...] = (1, 1, 1)) -> np.ndarray:
    out = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    out[:3, 3] = (x, y, z)
    return out


@pytest.mark.parametrize(
    ("affine", "part", "expected"),
    [
        (moved(), slice(None), ""),
        (moved(x=0.01), slice(None), ""),
        (moved(-6, -5, 3), slice(None), "mask_grid"),
        (moved(x=1), slice(None), "mask_grid"),
        (moved(spacing=(2, 2, 5)), slice(None), "mask_grid"),
        (moved(spacing=(1, 1, 1.1)), slice(None), "mask_grid"),
        (moved(z=2), slice(2, 8), "mask_size"),
    ],
)
def test_a_mask_lies_on_its_images_grid_or_is_refused(tmp_path: Path, affine, part, expected: str) -> None:
    image = read_volume(nifti(tmp_path / "img.nii.gz", scan()))
    labels = np.zeros((12, 10, 8), dtype=np.uint8)
    labels[8:11, :3, 6] = 1
    mask = read_labels(nifti(tmp_path / "m.nii.gz", labels[:, :, part], affine))
    if not expected:
        check_grid(mask, image)
        return
    with pytest.raises(RowError) as error:
        check_grid(mask, image)
    assert error.value.reason == expected


def test_a_mask_stored_the_other_way_round_is_on_the_grid(tmp_path: Path) -> None:
    labels = np.zeros((12, 10, 8), dtype=np.uint8)
    labels[8:11, :3, 6] = 1
    ras = np.eye(4)
    ras[:3, 3] = (-11, -9, 0)
    image = read_volume(nifti(tmp_path / "img.nii.gz", scan()))
    mask = read_labels(nifti(tmp_path / "m.nii.gz", labels[::-1, ::-1], ras))
    check_grid(mask, image)
    assert (mask.values == labels).all()


def test_where_only_one_file_says_where_it_lies_the_mask_is_refused(tmp_path: Path) -> None:
    header = {"space": "LPS", "space directions": np.eye(3)}
    nrrd.write(str(tmp_path / "a.nrrd"), scan(), header | {"space origin": np.zeros(3)})
    nrrd.write(str(tmp_path / "b.nrrd"), scan(), header)
    placed, without = read_volume(tmp_path / "a.nrrd"), read_volume(tmp_path / "b.nrrd")
    check_grid(without, without)
    with pytest.raises(RowError, match="mask_grid"):
        check_grid(without, placed)


def test_a_small_file_that_claims_or_holds_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    head = "NRRD0005\ntype: uint8\ndimension: 3\nsizes: {}\nencoding: gzip\nspace: LPS\n"
    head += "space directions: (1,0,0) (0,1,0) (0,0,1)\n\n"
    data = gzip.compress(bytes(200_000_000), 1)
    (tmp_path / "claims.nrrd").write_bytes(head.format("20000 20000 20000").encode() + data)
    (tmp_path / "holds.nrrd").write_bytes(head.format("4 4 4").encode() + data)
    nifti(tmp_path / "a.nii", scan())
    whole = bytearray((tmp_path / "a.nii").read_bytes())
    whole[42:48] = np.array([32000, 32000, 32000], dtype="<i2").tobytes()
    (tmp_path / "claims.nii").write_bytes(whole)
    tracemalloc.start()
    assert reason(tmp_path / "claims.nrrd") == "too_large"
    assert reason(tmp_path / "claims.nii") == "too_large"
    assert read_volume(tmp_path / "holds.nrrd").values.shape == (4, 4, 4)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()
    with pytest.raises(RowError, match=r"12x10x8 is 960 voxels, data.max_voxels is 900"):
        read_volume(tmp_path / "a.nii", max_voxels=900)
