"""The ingest index, and patients: keyed pseudonyms, splits by patient, no patient in two splits.

The index is what an ingest remembers of every row it has read, on disk, so that a large table needs no more memory than
a small one: ids, stored images, in which split a patient or an image was seen, and which split a patient gets. It is a
private SQLite file that has no name and goes with the process. Names are kept as hashes only.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from clinalign.errors import UsageError
from clinalign.storage import Lock, atomic, shared_folder, user_path

CACHE_KIB = 4096
RANK = {"align": 0, "dev": 1, "test": 2}
TABLES = """
create table ids(name blob primary key) without rowid;
create table stored(name blob primary key, value text) without rowid;
create table places(subject blob, split text, location text, primary key(subject, split)) without rowid;
create table waiting(patient blob primary key, draw blob, split text) without rowid;
"""


class IngestIndex:
    """One ingest's memory. `location` is where a row stands, for messages: "row 3"."""

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

    def record(self, what: str, name: str, split: str, location: str) -> tuple[str, str] | None:
        """Notes that a patient or an image stands in a split; gives (split, location) of an earlier row in another."""
        subject = _hash(what, name)
        self._db.execute("insert or ignore into places values (?, ?, ?)", (subject, split, location))
        found = self._one("select split, location from places where subject = ? and split <> ?", (subject, split))
        return (str(found[0]), str(found[1])) if found else None

    def split_of(self, what: str, name: str) -> str:
        """The split in which a patient or an image was seen: of several, the one to be held out most. "" for none."""
        found = self._db.execute("select split from places where subject = ?", (_hash(what, name),)).fetchall()
        return max((str(split) for (split,) in found), key=lambda s: RANK.get(s, 0), default="")

    def wait(self, patient: str, seed: int) -> None:
        """Notes a patient one of whose rows has no split."""
        row = (_hash("patient", patient), draw_key(patient, seed))
        self._db.execute("insert or ignore into waiting values (?, ?, '')", row)

    def assign_splits(self, shares: Mapping[str, float]) -> None:
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

    def assigned_split(self, patient: str) -> str:
        """The split that `assign_splits` gave a patient; "" where it follows its other rows."""
        found = self._one("select split from waiting where patient = ?", (_hash("patient", patient),))
        return str(found[0]) if found else ""

    def _one(self, query: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        found: tuple[Any, ...] | None = self._db.execute(query, values).fetchone()
        return found


def _hash(what: str, name: str) -> bytes:
    return hashlib.blake2b(f"{what}\0{name}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


SHARES = {"align": 0.8, "test": 0.2}


def patient_key(file: str = "") -> bytes:
    """The bytes of a key file; without one, a random key made once in the cache folder, readable by its owner only.

    The key never enters a run folder, so pseudonyms cannot be undone by hashing all possible patient numbers.
    Raises `UsageError` when the named file is missing or empty.
    """
    path = user_path(file) if file else shared_folder() / "patient.key"
    if not path.is_file():
        if file:
            raise UsageError(f"data.key_file: {file}: no such file; write some random bytes to it")
        with Lock(path.parent, wait=True):
            if not path.is_file():  # another process may have made it while this one waited
                with atomic(path) as temporary:
                    temporary.touch(mode=0o600)
                    temporary.write_bytes(secrets.token_bytes(32))
    key = path.read_bytes()
    if not key:
        raise UsageError(f"{path}: the patient key is empty; write some random bytes to it, or delete the file")
    return key


def one_form(patient: str) -> str:
    """A patient's id with its accents composed (NFC), so that two programs' ways to write one id are one patient."""
    return unicodedata.normalize("NFC", patient.strip())


def pseudonym(patient: str, key: bytes) -> str:
    """`patient-` and 16 hex digits of HMAC-SHA256."""
    return "patient-" + hmac.new(key, patient.encode(), hashlib.sha256).hexdigest()[:16]


def draw_key(patient: str, seed: int) -> bytes:
    """What patients are ordered by when splits are assigned: a hash of the seed and the patient."""
    return hashlib.sha256(f"{seed}:{patient}".encode("utf-8", "surrogatepass")).digest()


def share_sizes(count: int, shares: Mapping[str, float]) -> dict[str, int]:
    """How many of `count` patients each split gets; `SHARES` where no share is given.

    Every split with a share above zero gets at least one patient as long as there are enough patients. Raises
    `UsageError` when every share is 0.
    """
    used = {name: share for name, share in (shares or SHARES).items() if share > 0}
    total = sum(used.values())
    if not total:
        raise UsageError("data.splits: every share is 0; give at least one split a share")
    sizes = {name: int(count * share / total) for name, share in used.items()}
    for name in sorted(used, key=lambda n: count * used[n] / total - sizes[n], reverse=True):
        sizes[name] += sum(sizes.values()) < count
    for name in used:
        largest = max(sizes, key=lambda n: sizes[n])
        if sizes[name] == 0 and sizes[largest] > 1:
            sizes[largest] -= 1
            sizes[name] = 1
    return sizes


def assign_splits(patients: Iterable[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """A split for every patient: shuffled by a hash of the seed and the patient, then cut by share."""
    order = sorted(set(patients), key=lambda p: draw_key(p, seed))
    out: dict[str, str] = {}
    start = 0
    for name, size in share_sizes(len(order), shares).items():
        out |= dict.fromkeys(order[start : start + size], name)
        start += size
    return out
