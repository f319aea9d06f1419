"""Damaged and oversized pictures, DICOM files and volumes, each as a row beside a good one."""

from __future__ import annotations

import csv
import gzip
import io
import random
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fuzzing.base import dicom, good_row, kept
from fuzzing.worker import Case

PICTURES = ("a.png", "b.png", "c.jpg", "d.tif", "e.bmp", "f.webp", "g.png")
VOLUMES = ("v.nii.gz", "v.nii", "v.nrrd", "m.nii.gz", "m.nrrd", "x.dcm")
NUMBERS = (
    "1,5",
    "[00400, 00400]",
    "nan",
    "inf",
    "-",
    "",
    "1e400",
    "\u2212600",
    "0",
    "-1",
    "1.000,5",
    "x",
    "1\\2\\3",
    " 7 ",
)
SPACES = (
    "LAS",
    "RAS",
    "left-posterior-superior-time",
    "scanner-xyz",
    "3D-left-handed",
    "x",
    "",
    "LPS",
    "left-inferior",
)


def pictures(count: int, base: Path, draw: random.Random) -> Iterator[Case]:
    """Pictures and masks."""
    for number in range(count):
        name = draw.choice(PICTURES)
        suffix = Path(name).suffix
        target = base / f"hostile{suffix}"
        data = _picture(name, base, draw)
        target.unlink(missing_ok=True)
        target.write_bytes(data)
        row = {"image": target.name} if draw.random() < 0.7 else {"image": "a.png", "mask": target.name}
        yield _case("images", row, base, note=f"{number} {name}")


def volumes(count: int, base: Path, draw: random.Random) -> Iterator[Case]:
    """DICOM, NIfTI and NRRD."""
    for number in range(count):
        name = draw.choice(VOLUMES)
        suffix = "".join(Path(name).suffixes)
        target = base / f"hostile{suffix}"
        if suffix == ".dcm" and draw.random() < 0.6:
            _dicom(target, draw)
        elif suffix == ".nrrd" and draw.random() < 0.6:
            target.write_bytes(_nrrd(draw))
        elif suffix.startswith(".nii") and draw.random() < 0.6:
            target.write_bytes(_nifti(base / "v.nii", draw, packed=suffix == ".nii.gz"))
        else:
            target.write_bytes(_damaged((base / name).read_bytes(), draw))
        row = {"image": target.name, "modality": draw.choice(("CT", "MR", ""))}
        if suffix != ".dcm" and draw.random() < 0.4:
            row = {"image": "v.nii.gz", "mask": target.name, "mask_value": draw.choice(("", "1", "3"))}
        yield _case("volumes", row | {"frame": draw.choice(("", "", "0", "99"))}, base, note=f"{number} {name}")


def _case(area: str, row: dict[str, str], base: Path, note: str) -> Case:
    """One hostile row before two good ones."""
    path, out = base / "files.csv", base / "out"
    shutil.rmtree(out, ignore_errors=True)
    rows = [row | {"question": "Is it bad?", "answer": "no", "id": "bad"}, good_row(0), good_row(1)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    arguments = ["ingest", str(base / "fuzz.yaml"), f"data.path={path}", "data.leaks=allow", "--out", str(out)]
    return Case(area, 1, arguments, codes=(0,), lost=lambda: kept(out, 2), note=note)


def _damaged(data: bytes, draw: random.Random) -> bytes:
    """Cut, flipped, doubled or filled up."""
    kind = draw.randrange(6)
    if kind == 0:
        return data[: draw.randrange(len(data))]
    if kind == 1:
        return data[draw.randrange(len(data)) :]
    if kind == 2:
        return draw.randbytes(draw.randrange(1, 2000))
    if kind == 3:
        return data + draw.randbytes(1000)
    out = bytearray(data)
    for _ in range(draw.randrange(1, 30)):
        out[draw.randrange(min(len(out), 400) if kind == 4 else len(out))] = draw.randrange(256)
    return bytes(out)


def _picture(name: str, base: Path, draw: random.Random) -> bytes:
    kind = draw.random()
    if kind < 0.6:
        return _damaged((base / name).read_bytes(), draw)
    if kind < 0.65:
        return _png(
            draw.choice((9000, 14000, 30000, 200_000)), draw.choice((1, 9000, 14000)), draw.choice((0, 2, 6)), 8, b""
        )
    if kind < 0.8:
        side = draw.choice((1, 3, 64))
        return _png(side, side, draw.choice((0, 2, 3, 4, 6)), draw.choice((1, 8, 16)), draw.randbytes(side * side * 8))
    if kind < 0.9:
        return _png(
            8, 8, 0, 8, bytes(72), text=zlib.compress(bytes(200_000_000)) if kind < 0.82 else draw.randbytes(99)
        )
    return _tiff(draw)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, colour: int, bits: int, data: bytes, text: bytes = b"") -> bytes:
    """A PNG of any header; without data, as many zeros as it claims, up to a gigabyte."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    if not data:
        packer, left = zlib.compressobj(1), min(height * (1 + width * channels * bits // 8), 1 << 30)
        parts = []
        while left > 0:
            parts.append(packer.compress(bytes(min(left, 1 << 24))))
            left -= 1 << 24
        packed = b"".join(parts) + packer.flush()
    else:
        line = 1 + (width * channels * bits + 7) // 8
        lines = (b"\0" + data[n * line : (n + 1) * line - 1] for n in range(height))
        packed = zlib.compress(b"".join(one.ljust(line, b"\1") for one in lines))
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    extra = _chunk(b"zTXt", b"a\0\0" + text) if text else b""
    palette = _chunk(b"PLTE", bytes(range(48))) if colour == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + head + extra + palette + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def _tiff(draw: random.Random) -> bytes:
    """A TIFF of any depth, sign and number of samples."""
    bits, samples, sign = draw.choice((1, 8, 12, 16, 32, 64)), draw.choice((1, 3, 4, 5)), draw.choice((1, 2, 3))
    width, height = draw.choice((4, 70_000, 0)), 4
    data = draw.randbytes(1024)
    tags = [
        (256, width),
        (257, height),
        (258, bits),
        (259, draw.choice((1, 5, 8, 32773))),
        (262, draw.choice((1, 2, 3))),
    ]
    tags += [(273, 8), (277, samples), (278, height), (279, len(data)), (284, draw.choice((1, 2))), (339, sign)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def _dicom(path: Path, draw: random.Random) -> None:
    """Header values as people and other programs write them; now and then a drawing of many pieces."""
    import pydicom
    from pydicom import config

    config.settings.writing_validation_mode = config.IGNORE
    pixels = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    dicom(path, pixels)
    data = path.read_bytes()
    for old in (b"2048", b"4096"):
        if draw.random() < 0.5:
            new = draw.choice(NUMBERS).encode()
            new += b" " * (len(new) % 2)
            data = data.replace(b"DS" + struct.pack("<H", 4) + old, b"DS" + struct.pack("<H", len(new)) + new)
    path.write_bytes(data)
    if draw.random() < 0.3:
        found = pydicom.dcmread(path)
        side = draw.choice((64, 1500))
        found.Rows, found.Columns, found.PixelData = side, side, bytes(side * side * 2)
        plane = np.random.default_rng(draw.randrange(99)).random((side, side)) < draw.choice((0.02, 0.3, 0.6))
        packed = np.packbits(plane.ravel(), bitorder="little").tobytes()
        for tag, kind, value in ((0x10, "US", side), (0x11, "US", side), (0x40, "CS", "G"), (0x50, "SS", [1, 1])):
            found.add_new((0x6000, tag), kind, value)
        for tag, kind, value in (
            (0x100, "US", 1),
            (0x102, "US", 0),
            (0x3000, "OW", packed + b"\0" * (len(packed) % 2)),
        ):
            found.add_new((0x6000, tag), kind, value)
        found.save_as(path)
    elif draw.random() < 0.5:
        found = pydicom.dcmread(path)
        name = draw.choice(
            ("Rows", "Columns", "BitsStored", "SamplesPerPixel", "NumberOfFrames", "PixelRepresentation")
        )
        setattr(found, name, draw.choice((0, 1, 2, 7, 65535)))
        found.save_as(path)


def _nifti(path: Path, draw: random.Random, *, packed: bool) -> bytes:
    data = bytearray(path.read_bytes())
    kind = draw.randrange(6)
    if kind == 0:  # sizes
        struct.pack_into(
            "<8h", data, 40, draw.choice((3, 4, 7, -1)), *(draw.choice((1, 12, 32767, 0, -5)) for _ in range(7))
        )
    elif kind == 1:  # type and bits
        struct.pack_into(
            "<2h", data, 70, draw.choice((2, 16, 64, 128, 1792, 2304, 32, 0, 77)), draw.choice((8, 32, 24))
        )
    elif kind == 2:  # slope and inter
        struct.pack_into(
            "<2f", data, 112, draw.choice((0.0, 1e38, float("nan"), 0.0157)), draw.choice((0.0, float("inf")))
        )
    elif kind == 3:  # where the voxels begin
        struct.pack_into("<f", data, 108, draw.choice((0.0, 1e9, -5.0, float("nan"), 352.0)))
    elif kind == 4:  # the grid
        struct.pack_into(
            "<12f", data, 280, *(draw.choice((0.0, 1.0, -1.0, 0.7, float("nan"), 1e30)) for _ in range(12))
        )
    else:
        values = np.full(960, draw.choice((np.nan, np.inf, -np.inf, 0, 1e38)), dtype="<f4")
        data[352 : 352 + 960 * 4] = values.tobytes()
    return gzip.compress(bytes(data) + bytes(draw.choice((0, 0, 300_000_000))), 1) if packed else bytes(data)


def _nrrd(draw: random.Random) -> bytes:
    kind = draw.choice(("float", "uint8", "short", "block", "double", "x"))
    sizes = draw.choice(
        ("12 10 8", "1 12 10 8", "3 12 10 8", "100000 100000 100000", "0 1 1", "12 10", "-1 2 3", "a b c")
    )
    encoding = draw.choice(("raw", "gzip", "bz2", "ascii", "hex", ""))
    out = io.StringIO()
    out.write(
        f"NRRD0005\ntype: {kind}\ndimension: {len(sizes.split())}\nsizes: {sizes}\n"
        f"encoding: {encoding}\nendian: little\n"
    )
    out.write(f"space: {draw.choice(SPACES)}\n")
    if draw.random() < 0.8:
        one = draw.choice(("(1,0,0)", "none", "(nan,0,0)", "(0,1,0)", "(1e30,0,0)", "x"))
        out.write(f"space directions: {'none ' * (len(sizes.split()) - 3)}{one} (0,1,0) (0,0,2)\n")
    if draw.random() < 0.7:
        out.write(f"space origin: {draw.choice(('(0,0,0)', '(nan,0,0)', '(1,2)', 'x'))}\n")
    if draw.random() < 0.2:
        out.write(f"data file: {draw.choice(('/dev/zero', '../../x.raw', 'none.raw', 'a.png', 'LIST'))}\n")
    if draw.random() < 0.2:
        out.write(f"byte skip: {draw.choice((-1, 5, 10**12, -7))}\n")
    body = np.arange(960, dtype="<f4").tobytes() + bytes(draw.choice((0, 400_000_000)) if encoding == "gzip" else 0)
    packed = gzip.compress(body, 1) if encoding == "gzip" else b"1 2 3 " * 999 if encoding == "ascii" else body
    return out.getvalue().encode() + b"\n" + packed
