"""Pictures of unusual depth and size."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from dicoms import make, overlay
from PIL import Image

from clinalign.errors import RowError
from clinalign.imaging.dicom import read_dicom
from clinalign.imaging.images import content_name, read_image, read_mask, write_png

RAMP = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
"""0 to 4095: twelve bits."""


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png16(path: Path, values: np.ndarray) -> Path:
    """Samples [H, W, C] as a PNG of 16 bits a sample, which Pillow cannot write."""
    kind = {2: 4, 3: 2, 4: 6}[values.shape[2]]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    packed = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + packed)
    return path


def tiff16(path: Path, values: np.ndarray, order: str, packed: bool, orientation: int = 1) -> Path:
    mark = {"<": b"II", ">": b"MM"}[order]
    data = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if packed else data
    at = 8 + len(data) + len(data) % 2
    height, width, samples = values.shape
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, at + 2 + 11 * 12 + 4),
        (259, 3, 8 if packed else 1),
        (262, 3, 2),
    ]
    tags += [(273, 4, 8), (274, 3, orientation), (277, 3, samples), (278, 4, height), (279, 4, len(data)), (284, 3, 1)]
    out = (
        mark + struct.pack(f"{order}HI", 42, at) + data + b"\0" * (len(data) % 2) + struct.pack(f"{order}H", len(tags))
    )
    for tag, kind, value in tags:
        if tag == 258:
            out += struct.pack(f"{order}HHII", tag, 3, samples, value)
        elif kind == 3:
            out += struct.pack(f"{order}HHIHH", tag, kind, 1, value, 0)
        else:
            out += struct.pack(f"{order}HHII", tag, kind, 1, value)
    path.write_bytes(out + struct.pack(f"{order}I", 0) + struct.pack(f"{order}{samples}H", *[16] * samples))
    return path


def test_deep_colour_is_scaled_by_its_bit_depth_as_grey_is(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "grey.png")
    grey = read_image(tmp_path / "grey.png")
    colour = np.stack([RAMP, RAMP.T, RAMP[::-1]], axis=2)
    image = read_image(png16(tmp_path / "rgb.png", colour))
    assert (image[:, :, 0] == grey[:, :, 0]).all() and image.max() == 255
    assert (image[:, :, 1] == grey[:, :, 0].T).all() and (image[:, :, 2] == grey[::-1, :, 0]).all()
    for order in "<>":
        for packed in (False, True):
            assert (read_image(tiff16(tmp_path / "rgb.tif", colour, order, packed)) == image).all()
    turned = read_image(tiff16(tmp_path / "turned.tif", colour, "<", False, orientation=6))
    assert (turned == np.rot90(image, -1)).all()


def test_deep_transparency_is_laid_on_black(tmp_path: Path) -> None:
    opaque = np.full_like(RAMP, 65535)
    half = np.where(RAMP % 2, 65535, 0).astype(np.uint16)
    whole = read_image(png16(tmp_path / "la.png", np.stack([RAMP, opaque], axis=2)))
    assert whole.max() == 255 and (whole[:, :, 0] == whole[:, :, 2]).all()
    cut = read_image(png16(tmp_path / "rgba.png", np.stack([RAMP, RAMP, RAMP, half], axis=2)))
    assert (cut[half == 0] == 0).all() and (cut[half > 0] == whole[half > 0]).all()


def test_labels_of_a_deep_colour_mask_are_its_samples(tmp_path: Path) -> None:
    labels = np.zeros((4, 4, 3), dtype=np.uint16)
    labels[1, 1], labels[2, 2] = 3, 700
    path = png16(tmp_path / "m.png", labels)
    assert read_mask(path).sum() == 2, "3 of 65535 is not zero"
    assert read_mask(path, 3).sum() == 1 and read_mask(path, 700).sum() == 1


def test_a_damaged_deep_picture_is_called_damaged(tmp_path: Path) -> None:
    path = png16(tmp_path / "a.png", np.stack([RAMP] * 3, axis=2))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(RowError, match="unreadable_image"):
        read_image(path)


def blank_png(path: Path, side: int) -> Path:
    packer = zlib.compressobj(1)
    line = b"\0" * (1 + (side + 7) // 8)
    data = b"".join(packer.compress(line) for _ in range(side)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def test_a_large_picture_is_not_called_damaged(tmp_path: Path) -> None:
    path = blank_png(tmp_path / "slide.png", 14_000)
    with pytest.raises(RowError) as error:
        read_image(path)
    assert error.value.reason == "too_large"
    for word in ("14000x14000", "196000000", "data.max_pixels", "67108864", "downscale"):
        assert word in error.value.detail
    with pytest.raises(RowError, match="too_large"):
        read_mask(path)
    with pytest.raises(RowError, match="too_large"):
        read_image(blank_png(tmp_path / "small.png", 20), max_pixels=399)
    assert read_image(tmp_path / "small.png", max_pixels=400).shape == (20, 20, 3)
    deep = png16(tmp_path / "deep.png", np.zeros((10, 10, 3), dtype=np.uint16))
    with pytest.raises(RowError, match="each counts 4 times"):
        read_image(deep, max_pixels=399)
    assert read_image(deep, max_pixels=400).shape == (10, 10, 3)


def test_the_limit_can_be_raised_and_what_a_run_copied_is_read(tmp_path: Path) -> None:
    image = np.zeros((9500, 9500), dtype=np.uint8)
    write_png(tmp_path / "a.png", image)
    with pytest.raises(RowError, match="too_large"):
        read_image(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", max_pixels=10**8).shape == (9500, 9500, 3)
    copied = tmp_path / f"{content_name(image)}.png"
    (tmp_path / "a.png").rename(copied)
    assert read_image(copied).shape == (9500, 9500, 3)


def test_a_dicom_file_that_claims_or_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    from pydicom import dcmread
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    path = make(tmp_path / "a.dcm", np.zeros((8, 8), dtype=np.int16))
    with pytest.raises(RowError, match="too_large"):
        read_dicom(path, max_pixels=63)
    data = dcmread(path)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(path)
    assert read_dicom(path).image.shape == (8, 8, 3)
    data.add_new(0x00091002, "OB", bytes(4_000_000))
    data.save_as(path)
    assert path.stat().st_size < 20_000
    with pytest.raises(RowError, match="too_large"):
        read_dicom(path, max_pixels=100_000)


def test_a_drawing_of_a_thousand_letters_takes_no_longer(tmp_path: Path) -> None:
    """A second a letter was the cost of looking at the whole picture for each piece."""
    import time

    from pydicom import dcmread

    side = 1500
    drawing = np.zeros((side, side), dtype=np.uint8)
    for row in range(10, side - 10, 40):
        for column in range(10, side - 10, 40):
            drawing[row : row + 6, column : column + 6] = 1
    drawing[500:900, 500] = drawing[500:900, 900] = drawing[500, 500:901] = drawing[900, 500:901] = 1
    drawing[501:900, 501:900] = 0
    path = make(tmp_path / "a.dcm", np.zeros((side, side), dtype=np.int16))
    data = dcmread(path)
    data.update(overlay({}, drawing, kind="G"))
    data.save_as(path)
    started = time.monotonic()
    [region] = read_dicom(path).overlays
    assert time.monotonic() - started < 10
    assert region[700, 700] and not region[1400, 1400] and region.sum() > 150_000
