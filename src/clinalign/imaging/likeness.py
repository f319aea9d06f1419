"""Whether two files show one picture, although it was encoded anew or resized: what hashes of bytes or pixels miss.

A picture is kept as its thumbnail, `SIDE` x `SIDE` grey means. Two pictures are one where no cell of the thumbnails
differs much and the cells differ little on the whole. Candidates come from keys: the means over a grid of 4 x 4, in
four bands of four, each cut into steps of grey at two offsets, so that a value near a cut of one is far from those of
the other. Two copies share at least one of the eight keys; looking at the thumbnails decides. Cropped, turned or re-
windowed copies are other pictures here.
"""

from __future__ import annotations

import sqlite3

import numpy as np
import numpy.typing as npt
from PIL import Image

from clinalign.imaging.pixels import Pixels

SIDE = 32
BANDS = ((0, 5, 10, 15), (3, 6, 9, 12), (1, 7, 8, 14), (2, 4, 11, 13))
"""Cells of the 4 x 4 grid, by number from the top left."""
STEP = 8
CELL, MEAN = 32, 3.5
"""Largest difference of one cell and of all cells on average, in grey levels of 0..255, of two copies of a picture.
Copies at half to twice the size and JPEGs of quality 60 stay below 30 and 3.0, chest phantoms of two patients above 47
and 7.0."""
FLAT = 2.0
"""A thumbnail with a smaller standard deviation shows nothing that could be told apart."""

Thumbnail = npt.NDArray[np.uint8]


def thumbnail(image: Pixels) -> Thumbnail:
    """uint8 [SIDE, SIDE]: means of the grey values of uint8 [H, W, 3] over the cells of a grid."""
    grey = Image.fromarray(image).convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.uint8)


def keys(small: Thumbnail) -> list[str]:
    """Eight texts; two copies of one picture share at least one."""
    cell = SIDE // 4
    means = small.reshape(4, cell, 4, cell).mean(axis=(1, 3)).ravel()
    cuts = [np.floor(means / STEP + offset).astype(int) for offset in (0.0, 0.5)]
    return [f"{band} {n} {cut[list(cells)].tolist()}" for band, cells in enumerate(BANDS) for n, cut in enumerate(cuts)]


def alike(many: Thumbnail, one: Thumbnail) -> npt.NDArray[np.bool_]:
    """Which of [N, SIDE, SIDE] thumbnails are of the same picture as one: bool [N]."""
    apart = np.abs(many.astype(np.int16) - one.astype(np.int16)).reshape(len(many), -1)
    return np.asarray((apart.max(axis=1) <= CELL) & (apart.mean(axis=1) <= MEAN), dtype=bool)


class Likenesses:
    """Pictures that can be found again by how they look, on disk: a private SQLite file that has no name and goes with
    the process. 1 KiB a picture; a search reads those that share a key."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("pragma journal_mode = off")
        self._db.execute("pragma cache_size = -4096")
        self._db.execute("create table pictures(number integer primary key, small blob, note text)")
        self._db.execute("create table keys(key text, number int, primary key(key, number)) without rowid")
        self._db.execute("begin")

    def close(self) -> None:
        """Deletes the file."""
        self._db.close()

    def add(self, small: Thumbnail, note: str) -> None:
        """Keeps a picture; one that is flat is passed over."""
        if small.std() < FLAT:
            return
        number = self._db.execute("insert into pictures(small, note) values (?, ?)", (small.tobytes(), note)).lastrowid
        self._db.executemany("insert into keys values (?, ?)", [(key, number) for key in keys(small)])

    def find(self, small: Thumbnail) -> list[str]:
        """The notes of all pictures that are alike, in the order in which they were kept."""
        if small.std() < FLAT:
            return []
        wanted = keys(small)
        query = (
            "select small, note from pictures where number in "
            f"(select number from keys where key in ({', '.join('?' * len(wanted))})) order by number"
        )
        rows = self._db.execute(query, wanted).fetchall()
        if not rows:
            return []
        many = np.frombuffer(b"".join(blob for blob, _ in rows), np.uint8).reshape(-1, SIDE, SIDE)
        return [note for (_, note), same in zip(rows, alike(many, small), strict=True) if same]
