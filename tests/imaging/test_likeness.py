"""One picture in two files: encoded anew, resized, with other bytes; and pictures that only look similar."""

import io

import numpy as np
import pytest
from PIL import Image

from clinalign.data.phantom.cases import render, sample_case
from clinalign.imaging.likeness import Likenesses, alike, keys, thumbnail
from clinalign.imaging.pixels import Pixels


def radiograph(patient: int) -> Pixels:
    return render(sample_case(patient), 128).image


def as_jpeg(image: Pixels, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer).convert("RGB"))


def resized(image: Pixels, share: float) -> Pixels:
    size = (round(image.shape[1] * share), round(image.shape[0] * share))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def test_a_copy_is_known_again_and_its_neighbour_is_not() -> None:
    index = Likenesses()
    for patient in range(60):
        index.add(thumbnail(radiograph(patient)), f"row {patient}")
    for patient in range(60):
        image = radiograph(patient)
        for copy in (image, as_jpeg(image, 60), resized(image, 0.5), resized(as_jpeg(image, 80), 1.7)):
            assert index.find(thumbnail(copy)) == [f"row {patient}"]
    for patient in range(60, 120):
        assert index.find(thumbnail(radiograph(patient))) == []
    index.close()


def test_the_index_finds_what_comparing_all_finds() -> None:
    """Noise of growing strength on one picture: the keys lose no copy that the thumbnails would call one."""
    image, index = radiograph(3), Likenesses()
    rng = np.random.default_rng(0)
    copies = [np.clip(image + rng.normal(0, sd, image.shape), 0, 255).astype(np.uint8) for sd in range(0, 40, 2)]
    for number, copy in enumerate(copies):
        index.add(thumbnail(copy), str(number))
    small = thumbnail(image)
    naive = [str(number) for number, copy in enumerate(copies) if alike(thumbnail(copy)[None], small)[0]]
    assert index.find(small) == naive and len(naive) > 3


@pytest.mark.parametrize("level", [0, 90, 255])
def test_blank_pictures_are_not_taken_for_one(level: int) -> None:
    index = Likenesses()
    blank = np.full((40, 40, 3), level, np.uint8)
    index.add(thumbnail(blank), "blank")
    assert index.find(thumbnail(blank)) == []


def test_keys_are_the_coarse_means_cut_at_two_offsets() -> None:
    """Left half 20, right half 100: columns 0 and 1 of the 4 x 4 grid have mean 20, columns 2 and 3 have 100. Band 0 is
    the diagonal, cells 0, 5, 10, 15, in columns 0, 1, 2, 3: means 20, 20, 100, 100. In steps of 8: floor(2.5) =
    2, floor(12.5) = 12; half a step on: floor(3.0) = 3, floor(13.0) = 13."""
    halves = np.full((32, 32), 20, np.uint8)
    halves[:, 16:] = 100
    assert keys(halves)[:2] == ["0 0 [2, 2, 12, 12]", "0 1 [3, 3, 13, 13]"]
