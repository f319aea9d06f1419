"""The outside world into examples, one file a source (`sources/`); `phantom/` draws its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clinalign import extensions
from clinalign.data.sources import READERS
from clinalign.errors import UsageError, nearest

if TYPE_CHECKING:
    from clinalign.data.options import DataOptions
    from clinalign.records import Example
    from clinalign.storage import Quarantine

Reader = Callable[["DataOptions", Path, "Quarantine"], "Iterable[Example]"]


def reader(source: str) -> Reader:
    """The reader of a source: an entry of `READERS`, or `module:name` of the user's own."""
    if not extensions.is_own(source) and source not in READERS:
        raise UsageError(f"data.source: unknown source '{source}'{nearest(source, READERS)}")
    path = source if extensions.is_own(source) else f"{__name__}.{READERS[source]}"
    found: Reader = extensions.load(path, "data.source")
    return found


def stream(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """The examples of a source, one at a time. Images and masks are copied below `folder`, paths are relative to it.

    Rows that cannot be used go to the quarantine. Raises `UsageError` for a source that cannot be used at all; that may
    be after the first examples, so nothing is to be kept before the last one.
    """
    read_source = reader(options.source)
    folder.mkdir(parents=True, exist_ok=True)
    yield from read_source(options, folder, quarantine)


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> list[Example]:
    """All examples of a source; see `stream`."""
    return list(stream(options, folder, quarantine))
