"""Patients: keyed pseudonyms, splits by patient, and no patient in two splits."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from clinalign.errors import UsageError
from clinalign.tables import atomic

SHARES = {"align": 0.8, "test": 0.2}


def cache_folder(setting: str = "") -> Path:
    """Where downloads and the patient key live: the setting, else $CLINALIGN_CACHE, else ~/.cache/clinalign."""
    return Path(setting or os.environ.get("CLINALIGN_CACHE", "") or "~/.cache/clinalign").expanduser()


def patient_key(file: str = "") -> bytes:
    """The bytes of a key file; without one, a random key made once in the cache folder, readable by its owner only.

    The key never enters a run folder, so pseudonyms cannot be undone by hashing all possible patient numbers.
    Raises `UsageError` when the named file is missing or empty.
    """
    path = Path(file).expanduser() if file else cache_folder() / "patient.key"
    if not path.is_file():
        if file:
            raise UsageError(f"data.key_file: {file}: no such file; write some random bytes to it")
        with atomic(path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_bytes(secrets.token_bytes(32))
    key = path.read_bytes()
    if not key:
        raise UsageError(f"{path}: the patient key is empty; write some random bytes to it, or delete the file")
    return key


def pseudonym(patient: str, key: bytes) -> str:
    """`patient-` and 16 hex digits of HMAC-SHA256."""
    return "patient-" + hmac.new(key, patient.encode(), hashlib.sha256).hexdigest()[:16]


def assign_splits(patients: Iterable[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """A split for every patient: shuffled by a hash of the seed and the patient, then cut by share.

    Every split with a share above zero gets at least one patient as long as there are enough patients.
    """
    order = sorted(set(patients), key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).digest())
    used = {name: share for name, share in (shares or SHARES).items() if share > 0}
    total = sum(used.values())
    if not total:
        raise UsageError("data.splits: every share is 0; give at least one split a share")
    sizes = {name: int(len(order) * share / total) for name, share in used.items()}
    for name in sorted(used, key=lambda n: len(order) * used[n] / total - sizes[n], reverse=True):
        sizes[name] += sum(sizes.values()) < len(order)
    for name in used:
        largest = max(sizes, key=lambda n: sizes[n])
        if sizes[name] == 0 and sizes[largest] > 1:
            sizes[largest] -= 1
            sizes[name] = 1
    out: dict[str, str] = {}
    start = 0
    for name, size in sizes.items():
        out |= dict.fromkeys(order[start : start + size], name)
        start += size
    return out


class LeakCheck:
    """Refuses a patient, or an image, that appears in two splits."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.seen: dict[tuple[str, str], tuple[str, int]] = {}

    def add(self, what: str, name: str, split: str, row: int, shown: str = "") -> None:
        """Raises `UsageError` naming the patient or image (as `shown`), the splits and the rows.

        `what` is patient or image; `name` identifies it and defaults for `shown`.
        """
        before, first = self.seen.setdefault((what, name), (split, row))
        if before != split:
            raise UsageError(
                f"{self.file}: {what} '{shown or name}' is in split '{before}' (row {first}) and in split '{split}' "
                f"(row {row}); keep every patient in one split"
            )
