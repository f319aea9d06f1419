"""Tensors on disk: one file whole or absent, and a store that packs many records into few files.

All are safetensors; nothing is pickled. `TensorStore` holds the caches (reference, features, teacher): records of named
tensors by key, immutable once written. A writer gathers records and writes them as one shard under a name of its own,
so that several processes may fill one store at the same time without a lock, and a reader takes up what others wrote.
A shard that is damaged, or was made under another fingerprint, is said in one line, set aside, and its records count as
missing: they are computed anew.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clinalign.errors import UsageError, first_line
from clinalign.progress import say
from clinalign.storage.atomic import atomic, set_aside

Record = dict[str, Tensor]

FACTS = "clinalign"
"""The metadata entry that holds a file's facts as JSON."""
SHARD_RECORDS, SHARD_BYTES = 1024, 128 * 2**20
SETTLED_NS = 2 * 10**9
FEW_RECORDS, MANY_SHARDS = SHARD_RECORDS // 4, 64


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None) -> None:
    """Writes one safetensors file, atomically, with `facts` as JSON in its metadata."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    # One entry: the library writes several in a random order, and equal content should be equal bytes.
    metadata = {"format": "pt"} if facts is None else {FACTS: json.dumps(facts)}
    with atomic(path) as temporary:
        save_file(plain, temporary, metadata=metadata)


def read_tensors(path: Path, what: str, remedy: str, *, facts: bool = True) -> tuple[Record, dict[str, Any]]:
    """Tensors and facts of a file. One that is missing, damaged or, with `facts`, not ours is a `UsageError` that says
    what it was to be and the remedy."""
    try:
        with safe_open(path, framework="pt") as file:
            stored = read_facts(file) if facts else {}
            return {name: file.get_tensor(name) for name in file.keys()}, stored
    except (SafetensorError, OSError, ValueError) as error:
        why = "is missing" if not Path(path).is_file() else f"damaged, or not {what} ({first_line(error)})"
        raise UsageError(f"{path}: {why}; {remedy}") from error


def read_facts(file: Any) -> dict[str, Any]:
    """The facts of an open file; `ValueError` where it has none."""
    metadata = file.metadata() or {}
    if FACTS not in metadata:
        raise ValueError("it was not written by this program")
    return dict(json.loads(metadata[FACTS]))


class TensorStore:
    """Records by key below `folder`, made under `fingerprint`. `what` names them in messages.

    `get` gives a record or None; `put` takes records, which are readable at once and on disk after `flush` (or as soon
    as a shard is full). A key put again replaces the older record.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, str], what: str) -> None:
        self.folder, self.fingerprint, self.what = Path(folder), dict(fingerprint), what
        self.pending: dict[str, Record] = {}
        self.bytes = 0
        self._where: dict[str, tuple[Path, tuple[str, ...]]] = {}
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}  # one object for all records of one form
        self._files: dict[Path, Any] = {}
        self._seen: set[str] = set()
        self._stamp = -1
        self._refresh()
        self._compact()

    def __contains__(self, key: str) -> bool:
        self._refresh()
        return key in self.pending or key in self._where

    def keys(self) -> Iterable[str]:
        """Keys of all records, on disk or not yet."""
        return dict.fromkeys([*self._where, *self.pending])

    def get(self, key: str) -> Record | None:
        """The record, or None where there is none, or none any more."""
        if key in self.pending:
            return self.pending[key]
        if key not in self._where:
            self._refresh()
        if key not in self._where:
            return None
        path, names = self._where[key]
        try:
            if path not in self._files:
                self._files[path] = safe_open(path, framework="pt").__enter__()
            # Copies: what safetensors gives lies in the mapped file, whose memory would stay as long as any record.
            return {name: self._files[path].get_tensor(f"{key}/{name}").clone() for name in names}
        except FileNotFoundError:  # another process packed small shards together
            self._forget(path)
            self._refresh(again=True)
            return self.get(key)
        except (SafetensorError, OSError) as error:
            self._set_aside(path, f"damaged ({first_line(error)})")
            return None

    def put(self, records: Mapping[str, Record]) -> None:
        """Takes records; writes a shard when enough have gathered."""
        for key, record in records.items():
            self.bytes -= _size(self.pending.pop(key, {}))
            # Copies: the caller's tensors may change, or be views of one another.
            self.pending[key] = {name: value.detach().cpu().contiguous().clone() for name, value in record.items()}
            self.bytes += _size(self.pending[key])
            if len(self.pending) >= SHARD_RECORDS or self.bytes >= SHARD_BYTES:
                self.flush()

    def flush(self) -> None:
        """Writes what has gathered as one shard."""
        if self.pending:
            self._write(self.pending)
            self.pending, self.bytes = {}, 0

    # Shards: `<time>-<process>-<random>.safetensors`, so that a later record of a key wins wherever it was written

    def _write(self, records: Mapping[str, Record]) -> None:
        name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}.safetensors"
        tensors = {f"{key}/{part}": value for key, record in records.items() for part, value in record.items()}
        write_tensors(self.folder / name, tensors, {"made_with": self.fingerprint})
        self._index(self.folder / name)

    def _refresh(self, *, again: bool = False) -> None:
        """Takes up the shards that are new since the last look."""
        try:
            stamp = self.folder.stat().st_mtime_ns
        except OSError:
            return
        if stamp == self._stamp and not again:
            return
        # Clocks of file systems tick in milliseconds: a shard of the same tick as this look would never be seen.
        self._stamp = stamp if time.time_ns() - stamp > SETTLED_NS else -1
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name not in self._seen:
                self._index(path)

    def _index(self, path: Path) -> None:
        self._seen.add(path.name)
        try:
            with safe_open(path, framework="pt") as file:
                made, names = read_facts(file).get("made_with", {}), list(file.keys())
        except FileNotFoundError:
            return
        except (SafetensorError, OSError, ValueError) as error:
            return self._set_aside(path, f"damaged or foreign ({first_line(error)})")
        other = [part for part in self.fingerprint if made.get(part) != self.fingerprint[part]]
        if other:
            return self._set_aside(path, f"made with other {', '.join(other)}")
        parts: dict[str, list[str]] = {}
        for name in names:
            key, _, part = name.rpartition("/")
            parts.setdefault(key, []).append(part)
        for key, found in parts.items():
            if key not in self._where or self._where[key][0].name <= path.name:
                self._where[key] = (path, self._names.setdefault(tuple(found), tuple(found)))

    def _set_aside(self, path: Path, why: str) -> None:
        self._forget(path)
        why = f"{self.what} records, {why}"
        try:
            set_aside(path, why)
        except OSError:  # read-only, or another process was faster: it is not read again either way
            say(f"{path}: {why}; not used")

    def _forget(self, path: Path) -> None:
        self._files.pop(path, None)
        self._where = {key: value for key, value in self._where.items() if value[0] != path}

    def _compact(self) -> None:
        """Packs many small shards, left by many short runs, into full ones; each is removed once its heir is whole."""
        small: dict[Path, list[str]] = {}
        for key, (path, _) in self._where.items():
            small.setdefault(path, []).append(key)
        small = {path: keys for path, keys in small.items() if len(keys) < FEW_RECORDS}
        if len(small) < MANY_SHARDS:
            return
        records = {key: self.get(key) for keys in small.values() for key in keys}
        self.put({key: record for key, record in records.items() if record is not None})
        self.flush()
        for path in small:
            self._files.pop(path, None)
            path.unlink(missing_ok=True)


def _size(record: Record) -> int:
    return sum(value.numel() * value.element_size() for value in record.values())
