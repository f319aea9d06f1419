"""Patients: keyed pseudonyms, splits by patient, and no patient in two splits."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import unicodedata
from collections.abc import Iterable, Mapping

from clinalign.errors import UsageError
from clinalign.storage import Lock, atomic, shared_folder, user_path

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
    """What patients are ordered by when splits are dealt out: a hash of the seed and the patient."""
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
