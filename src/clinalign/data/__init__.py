"""The outside world into examples, one file a source; `phantom/` draws its own. Readers are imported when called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from clinalign.errors import UsageError, nearest

if TYPE_CHECKING:
    from clinalign.data.options import DataOptions
    from clinalign.records import Example
    from clinalign.storage import Quarantine

Reader = Callable[["DataOptions", Path, "Quarantine"], "Iterable[Example]"]


def _reader(module: str) -> Reader:
    def read_source(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterable[Example]:
        examples: Iterable[Example] = import_module(f"clinalign.data.{module}").read(options, folder, quarantine)
        return examples

    return read_source


READERS: dict[str, Reader] = {
    "phantom": _reader("phantoms"),
    "phantom_fundus": _reader("phantom.fundus_questions"),
} | {
    name: _reader(name)
    for name in (
        "table",
        "real",
        "slake",
        "vqa_rad",
        "path_vqa",
        "pmc_vqa",
        "omnimed_vqa",
        "eh",
        "iu_xray",
        "mimic_cxr",
        "vgmed",
        "mmedpo",
        "rrpo",
        "trl",
        "llava",
        "hub",
    )
}
"""Source by the name that a recipe uses."""


def stream(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """The examples of a source, one at a time. Images and masks are copied below `folder`, paths are relative to it.

    Rows that cannot be used go to the quarantine. Raises `UsageError` for a source that cannot be used at all; that may
    be after the first examples, so nothing is to be kept before the last one.
    """
    if options.source not in READERS:
        raise UsageError(f"data.source: unknown source '{options.source}'{nearest(options.source, READERS)}")
    folder.mkdir(parents=True, exist_ok=True)
    yield from READERS[options.source](options, folder, quarantine)


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> list[Example]:
    """All examples of a source; see `stream`."""
    return list(stream(options, folder, quarantine))
