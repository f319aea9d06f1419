"""Whether two files show one picture, although it was encoded anew or resized: what hashes of bytes or pixels miss.

A picture is kept as its thumbnail, `SIDE` x `SIDE` grey means. Two pictures are one where no cell of the thumbnails
differs much and the cells differ little on the whole. Candidates come from a perceptual hash: the signs of the 64
lowest frequencies of the thumbnail but the mean, in four bands. JPEG and resizing turn a few signs near zero; as long
as one band is untouched the pair is looked at, and looking decides. Cropped, turned or re-windowed copies are other
pictures here.
"""

from __future__ import annotations

import sqlite3

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dctn

from clinalign.imaging.images import Pixels

SIDE = 32
LOW = 9
"""Frequencies a side of which the 64 signs are taken, the first row and column's mean aside."""
BANDS = 4
CELL, MEAN = 16, 1.5
"""Largest difference of one cell and of all cells on average, in grey levels of 0..255, of two copies of a picture."""
FLAT = 2.0
"""A thumbnail with a smaller standard deviation shows nothing that could be told apart."""

Thumbnail = npt.NDArray[np.uint8]


def thumbnail(image: Pixels) -> Thumbnail:
    """uint8 [SIDE, SIDE]: means of the grey values of uint8 [H, W, 3] over the cells of a grid."""
    grey = Image.fromarray(image).convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.uint8)


def is_flat(small: Thumbnail) -> bool:
    """Whether there is too little in a picture to know it again."""
    return float(small.std()) < FLAT


def bands(small: Thumbnail) -> tuple[int, ...]:
    """Four numbers of 16 bits; two copies of one picture share at least one of them, as a rule."""
    low = dctn(small.astype(np.float64), norm="ortho")[:LOW, :LOW].ravel()[1:65]
    words = np.packbits(low > 0).reshape(BANDS, 2)
    return tuple(int(high) << 8 | int(low) for high, low in words)


def alike(one: Thumbnail, other: Thumbnail) -> bool:
    """Whether two thumbnails are of one picture."""
    apart = np.abs(one.astype(np.int16) - other.astype(np.int16))
    return int(apart.max()) <= CELL and float(apart.mean()) <= MEAN


class Likenesses:
    """Pictures that can be found again by how they look, on disk: a private SQLite file that has no name and goes with
    the process. 1 KiB a picture; a search reads those that share a band."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("pragma journal_mode = off")
        self._db.execute("pragma cache_size = -4096")
        self._db.execute("create table pictures(number integer primary key, small blob, note text)")
        self._db.execute(
            "create table keys(band int, word int, number int, primary key(band, word, number)) without rowid"
        )
        self._db.execute("begin")

    def close(self) -> None:
        """Deletes the file."""
        self._db.close()

    def add(self, small: Thumbnail, note: str) -> None:
        """Keeps a picture; one that is flat is passed over."""
        if is_flat(small):
            return
        number = self._db.execute("insert into pictures(small, note) values (?, ?)", (small.tobytes(), note)).lastrowid
        self._db.executemany("insert into keys values (?, ?, ?)", [(b, w, number) for b, w in enumerate(bands(small))])

    def find(self, small: Thumbnail) -> list[str]:
        """The notes of all pictures that are alike, in the order in which they were kept."""
        if is_flat(small):
            return []
        known: dict[int, str] = {}
        for band, word in enumerate(bands(small)):
            query = "select number, small, note from keys join pictures using (number) where band = ? and word = ?"
            for number, stored, note in self._db.execute(query, (band, word)):
                if number not in known and alike(np.frombuffer(stored, np.uint8).reshape(SIDE, SIDE), small):
                    known[number] = note
        return [known[number] for number in sorted(known)]
