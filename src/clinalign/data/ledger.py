"""What an ingest remembers of every row it has read, on disk, so that a large table needs no more memory than a small
one: ids, stored images, in which split a patient or an image was seen, and which split a patient gets.

It is a private SQLite file that has no name and goes with the process. Names are kept as hashes only.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from typing import Any

from clinalign.data.patients import draw_key, share_sizes

CACHE_KIB = 4096
RANK = {"align": 0, "dev": 1, "test": 2}
TABLES = """
create table ids(name blob primary key) without rowid;
create table stored(name blob primary key, value text) without rowid;
create table places(subject blob, split text, spot text, primary key(subject, split)) without rowid;
create table waiting(patient blob primary key, draw blob, split text) without rowid;
"""


class Ledger:
    """One ingest's memory. `spot` is where a row stands, for messages: "row 3"."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("pragma journal_mode = off")
        self._db.execute(f"pragma cache_size = -{CACHE_KIB}")
        self._db.executescript(TABLES)
        self._db.execute("begin")

    def close(self) -> None:
        """Deletes the file."""
        self._db.close()

    def has_id(self, name: str) -> bool:
        """Whether a row of this id was kept before."""
        return self._one("select 1 from ids where name = ?", (_hash("id", name),)) is not None

    def add_id(self, name: str) -> None:
        """Notes that a row of this id is kept."""
        self._db.execute("insert or ignore into ids values (?)", (_hash("id", name),))

    def recall(self, name: str) -> str | None:
        """What `remember` was given under this name."""
        found = self._one("select value from stored where name = ?", (_hash("stored", name),))
        return None if found is None else str(found[0])

    def remember(self, name: str, value: str) -> None:
        """Keeps a text under a name."""
        self._db.execute("insert or replace into stored values (?, ?)", (_hash("stored", name), value))

    def place(self, what: str, name: str, split: str, spot: str) -> tuple[str, str] | None:
        """Notes that a patient or an image stands in a split; gives (split, spot) of an earlier row in another."""
        subject = _hash(what, name)
        self._db.execute("insert or ignore into places values (?, ?, ?)", (subject, split, spot))
        found = self._one("select split, spot from places where subject = ? and split <> ?", (subject, split))
        return (str(found[0]), str(found[1])) if found else None

    def split_of(self, what: str, name: str) -> str:
        """The split in which a patient or an image was seen: of several, the one to be held out most. "" for none."""
        found = self._db.execute("select split from places where subject = ?", (_hash(what, name),)).fetchall()
        return max((str(split) for (split,) in found), key=lambda s: RANK.get(s, 0), default="")

    def wait(self, patient: str, seed: int) -> None:
        """Notes a patient one of whose rows has no split."""
        row = (_hash("patient", patient), draw_key(patient, seed))
        self._db.execute("insert or ignore into waiting values (?, ?, '')", row)

    def deal(self, shares: Mapping[str, float]) -> None:
        """Gives every waiting patient a split: that of its other rows, otherwise by share in the order of the draw."""
        self._db.execute("delete from waiting where patient in (select subject from places)")
        count = self._one("select count(*) from waiting", ())
        start = 0
        for split, size in share_sizes(int(count[0]) if count else 0, shares).items():
            self._db.execute(
                "update waiting set split = ? where patient in (select patient from waiting order by draw "
                "limit ? offset ?)",
                (split, size, start),
            )
            start += size

    def dealt(self, patient: str) -> str:
        """The split that `deal` gave a patient; "" where it follows its other rows."""
        found = self._one("select split from waiting where patient = ?", (_hash("patient", patient),))
        return str(found[0]) if found else ""

    def _one(self, query: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        found: tuple[Any, ...] | None = self._db.execute(query, values).fetchone()
        return found


def _hash(what: str, name: str) -> bytes:
    return hashlib.blake2b(f"{what}\0{name}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
