"""Files into pixels and back."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clinalign.errors import RowError
from clinalign.imaging.images import content_name, read_image, read_mask, write_png
from clinalign.imaging.pixels import to_8_bit


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@given(st.integers(1, 20), st.integers(1, 20), st.booleans(), st.integers(0, 99))
@settings(max_examples=25)
def test_what_is_written_is_read_back(tmp_path_factory, height, width, colour, seed) -> None:
    image = noise((height, width, 3) if colour else (height, width), seed)
    path = tmp_path_factory.mktemp("png") / "a.png"
    write_png(path, image)
    first = path.read_bytes()
    back = read_image(path)
    assert (back == (image if colour else image[:, :, None])).all() and back.shape == (height, width, 3)
    write_png(path, back)
    assert path.read_bytes() == first or not colour
    assert list(path.parent.iterdir()) == [path], "a temporary file is left"


def test_equal_channels_are_stored_as_grey(tmp_path: Path) -> None:
    image = np.repeat(noise((9, 7, 1)), 3, axis=2)
    write_png(tmp_path / "a.png", image)
    assert Image.open(tmp_path / "a.png").mode == "L"
    assert (read_image(tmp_path / "a.png") == image).all()


@pytest.mark.parametrize(
    ("top", "expected"), [(255, 255), (1023, 255), (4095, 255), (4000, 249), (65535, 255), (32767, 127)]
)
def test_deep_images_are_scaled_by_their_bit_depth(tmp_path: Path, top: int, expected: int) -> None:
    # 4000 needs 12 bits: 4000 / 4095 * 255 = 249.08; 32767 needs 16 (14 hold 16383): 32767 / 65535 * 255 = 127.5 less
    deep = np.array([[0, top]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    image = read_image(tmp_path / "deep.png")
    assert image.shape == (1, 2, 3) and image[0, 1].tolist() == [expected] * 3 and image[0, 0].tolist() == [0] * 3


def test_negative_values_are_black() -> None:
    assert to_8_bit(np.array([-5, 0, 255])).tolist() == [0, 0, 255]


def test_transparency_is_laid_on_black(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[255, 255, 255, 0], [255, 0, 0, 255]]], dtype=np.uint8)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[0, 0, 0], [255, 0, 0]]]


def test_jpeg_and_its_orientation(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((4, 8, 3), 100, dtype=np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # stored lying on its side
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (8, 4, 3)


@pytest.mark.parametrize("name", ["röntgen 胸部.png", "emoji 🫁.png"])
def test_unicode_file_names(tmp_path: Path, name: str) -> None:
    write_png(tmp_path / name, noise((4, 4)))
    assert read_image(tmp_path / name).shape == (4, 4, 3)


def test_bad_files_say_what_is_wrong(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise((64, 64, 3))).save(buffer, format="PNG")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:2000])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    for name, reason in [
        ("cut.png", "unreadable_image"),
        ("text.png", "unreadable_image"),
        ("empty.png", "unreadable_image"),
        ("none.png", "missing_image"),
        (".", "missing_image"),
    ]:
        with pytest.raises(RowError) as error:
            read_image(tmp_path / name)
        assert (error.value.field, error.value.reason) == ("images", reason)
        assert name not in error.value.detail or name == "."
    with pytest.raises(RowError, match="missing_mask"):
        read_mask(tmp_path / "none.png")


def test_masks(tmp_path: Path) -> None:
    inside = noise((8, 8)) > 128
    write_png(tmp_path / "bool.png", inside)
    assert (read_mask(tmp_path / "bool.png") == inside).all()
    Image.fromarray(inside.astype(np.uint8)).save(tmp_path / "ones.png")
    assert (read_mask(tmp_path / "ones.png") == inside).all()
    Image.fromarray(inside).save(tmp_path / "bits.png")
    assert (read_mask(tmp_path / "bits.png") == inside).all()
    Image.fromarray(inside.astype(np.uint16) * 3).save(tmp_path / "deep.png")
    assert (read_mask(tmp_path / "deep.png") == inside).all()
    block = np.zeros((32, 32), dtype=np.uint8)
    block[8:24, 8:24] = 255
    Image.fromarray(block).save(tmp_path / "a.jpg")
    assert (read_mask(tmp_path / "a.jpg") == (block > 0)).all(), "ringing of a lossy mask is not inside"


def test_content_names_differ_with_shape_and_content() -> None:
    a = noise((4, 6))
    assert len({content_name(x) for x in (a, a.reshape(6, 4), a[:, :, None], a ^ 1)}) == 4
    assert content_name(a) == content_name(a.copy())


def test_only_images_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="float64"):
        write_png(tmp_path / "a.png", np.zeros((4, 4)))
    assert not list(tmp_path.iterdir())
