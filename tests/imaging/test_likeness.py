"""One picture in two files: encoded anew, resized, with other bytes; and pictures that only look similar."""

import io

import numpy as np
import pytest
from PIL import Image

from clinalign.data.phantom.cases import render, sample_case
from clinalign.imaging.images import Pixels
from clinalign.imaging.likeness import Likenesses, alike, bands, thumbnail


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
    """Noise of growing strength on one picture: the bands lose no copy that the thumbnails would call one."""
    image, index = radiograph(3), Likenesses()
    rng = np.random.default_rng(0)
    copies = [np.clip(image + rng.normal(0, sd, image.shape), 0, 255).astype(np.uint8) for sd in range(0, 40, 2)]
    for number, copy in enumerate(copies):
        index.add(thumbnail(copy), str(number))
    small = thumbnail(image)
    naive = [str(number) for number, copy in enumerate(copies) if alike(thumbnail(copy), small)]
    assert index.find(small) == naive and len(naive) > 3


@pytest.mark.parametrize("level", [0, 90, 255])
def test_blank_pictures_are_not_taken_for_one(level: int) -> None:
    index = Likenesses()
    blank = np.full((40, 40, 3), level, np.uint8)
    index.add(thumbnail(blank), "blank")
    assert index.find(thumbnail(blank)) == []


def test_bands_are_the_signs_of_low_frequencies() -> None:
    """A ramp that falls from left to right holds the odd frequencies along x, all positive; of the bits after the mean,
    row 0 has x = 1, 3, 5, 7 at positions 0, 2, 4, 6, the mask 10101010. A rising ramp has them negative."""
    ramp = np.repeat(np.linspace(255, 0, 32).round().astype(np.uint8)[None, :], 32, axis=0)
    mask = 0b10101010
    assert (bands(ramp)[0] >> 8) & mask == mask
    assert (bands(255 - ramp)[0] >> 8) & mask == 0
