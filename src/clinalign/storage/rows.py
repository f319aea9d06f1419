"""Records that lie on disk while they are worked on: what a stage holds of a table does not grow with its rows."""

from __future__ import annotations

import os
import pickle
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")
S = TypeVar("S")


class Sized(Sequence[T], Generic[T]):
    """A sequence whose items are made when they are asked for; equal to any sequence of equal items.

    An item is a new object each time: what is changed in one is not kept.
    """

    def _at(self, index: int) -> T:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._at(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self._at(index % len(self))

    def __iter__(self) -> Iterator[T]:
        return (self._at(i) for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other))

    __hash__ = None  # type: ignore[assignment]


class Rows(Sized[T]):
    """Records in a nameless file that goes with the process ($TMPDIR says where): a sequence that can be added to.

    In memory stay 16 bytes a record: where it begins, and a hash of its attribute `by`, for `by_id`.
    """

    def __init__(self, records: Iterable[T] = (), *, by: str = "id") -> None:
        self.by = by
        self._file = tempfile.TemporaryFile()
        self._starts, self._hashes = array("Q", [0]), array("q")
        self._unwritten: list[bytes] = []
        self._order: tuple[Any, Any] | None = None
        self.extend(records)

    def append(self, record: T) -> None:
        """Adds one record."""
        packed = pickle.dumps(record, pickle.HIGHEST_PROTOCOL)
        self._unwritten.append(packed)
        self._starts.append(self._starts[-1] + len(packed))
        self._hashes.append(hash(getattr(record, self.by, None)))
        if len(self._unwritten) >= 256:
            self._write()

    def extend(self, records: Iterable[T]) -> None:
        """Adds records, one at a time."""
        for record in records:
            self.append(record)

    def _write(self) -> None:
        self._file.write(b"".join(self._unwritten))
        self._file.flush()
        self._unwritten = []

    def __len__(self) -> int:
        return len(self._hashes)

    def _at(self, index: int) -> T:
        if self._unwritten:
            self._write()
        start = self._starts[index]
        packed = os.pread(self._file.fileno(), self._starts[index + 1] - start, start)
        record: T = pickle.loads(packed)  # noqa: S301 - this process wrote it, and no other can reach the file
        return record

    def named(self, name: str) -> T | None:
        """The last record whose attribute `by` is this name, None where there is none."""
        import numpy as np  # here: whoever only asks for help does not wait for it

        if self._order is None or len(self._order[0]) != len(self):
            hashes = np.array(self._hashes)
            order = np.argsort(hashes, kind="stable")
            self._order = order, hashes[order]
        order, hashes = self._order
        wanted = hash(name)
        at = int(np.searchsorted(hashes, wanted, side="right")) - 1
        while at >= 0 and hashes[at] == wanted:
            record = self._at(int(order[at]))
            if getattr(record, self.by) == name:
                return record
            at -= 1
        return None


class Mapped(Sized[T]):
    """What `make` gives of each item of a sequence, made when it is asked for."""

    def __init__(self, items: Sequence[S], make: Callable[[S], T]) -> None:
        self._items, self._make = items, make

    def __len__(self) -> int:
        return len(self._items)

    def _at(self, index: int) -> T:
        return self._make(self._items[index])


class _Named(Mapping[str, T]):
    def __init__(self, rows: Rows[T]) -> None:
        self._rows = rows

    def __getitem__(self, name: str) -> T:
        found = self._rows.named(name)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return (getattr(record, self._rows.by) for record in self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def by_id(records: Sequence[T]) -> Mapping[str, T]:
    """Records by their id; those of `Rows` stay where they are."""
    if isinstance(records, Rows):
        return _Named(records)
    return {record.id: record for record in records}  # type: ignore[attr-defined]
