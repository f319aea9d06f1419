"""The outside world into examples, one file a source; `phantom/` draws its own. Readers are imported when called."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from clinalign.errors import UsageError, nearest

if TYPE_CHECKING:
    from clinalign.data.options import DataOptions
    from clinalign.records import Example
    from clinalign.tables import Quarantine

Reader = Callable[["DataOptions", Path, "Quarantine"], "list[Example]"]


def _reader(module: str) -> Reader:
    def read_source(options: DataOptions, folder: Path, quarantine: Quarantine) -> list[Example]:
        examples: list[Example] = import_module(f"clinalign.data.{module}").read(options, folder, quarantine)
        return examples

    return read_source


READERS: dict[str, Reader] = {"phantom": _reader("phantoms"), "table": _reader("table"), "real": _reader("real")}


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> list[Example]:
    """The examples of a source. Images and masks are copied below `folder`, and paths are relative to it.

    Rows that cannot be used go to the quarantine. Raises `UsageError` for a source that cannot be used at all.
    """
    if options.source not in READERS:
        raise UsageError(f"data.source: unknown source '{options.source}'{nearest(options.source, READERS)}")
    folder.mkdir(parents=True, exist_ok=True)
    return READERS[options.source](options, folder, quarantine)
