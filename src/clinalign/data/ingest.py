"""Rows of any data set into examples, one at a time: checked, images copied, splits kept or dealt, leaks refused.

A reader gives `Item`s under the column names of `table.py`; this file does the rest, so every source has the same
traps closed. Nothing grows with the number of rows: what must be remembered is on disk (`ledger.py`), and rows that
have to wait for a split lie in a nameless file.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO

from clinalign.data.border import guarded
from clinalign.data.draw import drawn
from clinalign.data.example import Filtered, Item, Reading, Subject, make_example
from clinalign.data.ledger import RANK, Ledger
from clinalign.data.options import DataOptions
from clinalign.data.patients import patient_key
from clinalign.data.store import Store
from clinalign.errors import RowError, UsageError
from clinalign.progress import say, track
from clinalign.records import Example
from clinalign.storage import Quarantine, from_row, to_row, user_path, write_json

STAGE = "ingest"
SUMMARY = "ingest.json"
MISSING_SAID = 3
"""Missing files whose paths are printed."""

__all__ = ["Filtered", "Item", "ingest"]


def ingest(
    items: Iterable[Item],
    options: DataOptions,
    folder: Path,
    quarantine: Quarantine,
    *,
    base: Path,
    published: Mapping[str, int] | None = None,
    several: bool = True,
) -> Iterator[Example]:
    """The usable items as examples, in their order; images, masks and counterfactuals are copied below `folder`.

    `base` is what image paths are relative to (`data.images` wins), `published` the number of rows a group should
    have, `several` whether there is more than one file. A bad row goes to the quarantine. Patient ids are replaced by
    keyed pseudonyms; a row without one stands for itself by its first image. `ingest.json` holds the counts.

    Raises `UsageError` for a patient or an image in two splits (see `data.leaks`), and when no row is usable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger()
    limits = (options.max_pixels, options.max_voxels)
    store = Store(_base(options, base), folder, options.window, options.frame, ledger, *limits)
    key = patient_key(options.key_file)
    reading = Reading(options, options.source, key, store, ledger, quarantine, several)
    try:
        with tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder) as spool:
            if options.limit:
                items = drawn(items, options.limit, options.seed)
            yield from _first_pass(items, reading, spool)
            yield from _second_pass(reading, spool)
        _finish(reading, folder, published or {})
    finally:
        ledger.close()


def _base(options: DataOptions, base: Path) -> Path:
    if not options.images:
        return base
    folder = user_path(options.images)
    if not folder.is_dir():
        raise UsageError(f"data.images: {options.images}: no such folder")
    return folder


def _first_pass(items: Iterable[Item], reading: Reading, spool: IO[str]) -> Iterator[Example]:
    """Yields examples for as long as each has its split; from the first without on, examples go to the spool."""
    waiting = reading.options.leaks == "drop"
    for item in track(items, STAGE):
        group = item.group or item.file
        if isinstance(item.row, Filtered):
            reading.filtered[f"{group}: {item.row.why}"] += 1
            continue
        reading.rows[group] += 1
        row = item.row
        made = row if isinstance(row, RowError) else guarded(partial(make_example, item, row, reading), row)
        if isinstance(made, RowError):
            _leave_out(reading, item.file, item.number, made)
            continue
        example, subject = made
        reading.kept[group] += 1
        spot = f"{item.file} row {item.number}" if reading.several else f"row {item.number}"
        if example.split:
            _check_leak(reading, subject, example.split, spot)
        else:
            reading.ledger.wait(subject.raw, reading.options.seed)
            waiting = True
        if not waiting:
            yield example
        else:
            held = [to_row(example), subject, spot, item.file, item.number]
            spool.write(json.dumps(held, ensure_ascii=False) + "\n")
    if not reading.kept:
        reasons = ", ".join(sorted(reading.left_out)) or ("all rows were filtered" if reading.filtered else "no rows")
        where = reading.options.path or reading.source
        missing = f", first {reading.quarantine.missing[0]}" if reading.quarantine.missing else ""
        raise UsageError(
            f"{where}: no usable row ({reasons}){missing}; {reading.quarantine.path.name} has every row's reason"
        )


def _second_pass(reading: Reading, spool: IO[str]) -> Iterator[Example]:
    """Rows without a split follow their patient's other rows; new patients are dealt out by share."""
    reading.ledger.deal(reading.options.splits)
    spool.seek(0)
    for line in spool:
        row, (raw, images), spot, file, number = json.loads(line)
        example, subject = from_row(row, Example), Subject(raw, tuple(images))
        if not example.split:
            example.split = reading.ledger.dealt(raw) or reading.ledger.split_of("patient", raw)
            _check_leak(reading, subject, example.split, spot)
        if reading.options.leaks == "drop" and (other := _held_out(reading, subject, example.split)):
            detail = f"its patient or image is also in split '{other}'"
            _leave_out(reading, file, number, RowError("split", "leak", detail))
            continue
        yield example


def _held_out(reading: Reading, subject: Subject, split: str) -> str:
    """The split, to be held out more than this one, in which the patient or one of the images stands too."""
    places = [reading.ledger.split_of("patient", subject.raw)]
    places += [reading.ledger.split_of("image", name) for name in subject.images]
    other = max(places, key=lambda s: RANK.get(s, 0))
    return other if RANK.get(other, 0) > RANK.get(split, 0) else ""


def _check_leak(reading: Reading, subject: Subject, split: str, spot: str) -> None:
    named = [("patient", subject.raw), *(("image", name) for name in subject.images)]
    leaked = False
    for what, name in named:
        other = reading.ledger.place(what, name, split, spot)
        if other and reading.options.leaks == "error":
            where = reading.options.path or reading.source
            raise UsageError(
                f"{where}: one {what} is in split '{other[0]}' ({other[1]}) and in split '{split}' ({spot}); "
                "keep every patient in one split, or set data.leaks to drop or data.original_splits to false"
            )
        leaked |= other is not None
    reading.leaks += leaked


def _leave_out(reading: Reading, file: str, number: int, error: RowError) -> None:
    if error.reason == "empty_image" and reading.options.empty_image == "ask":
        raise UsageError(f"{reading.options.path}: row {number}: {error.detail}")
    reading.left_out[error.reason] += 1
    reading.quarantine.add(STAGE, file=file, row=number, field=error.field, reason=error.reason, detail=error.detail)
    if error.path:
        reading.quarantine.missing.append(error.path)


def _finish(reading: Reading, folder: Path, published: Mapping[str, int]) -> None:
    """Says what differs from what was to be expected, and writes the numbers down."""
    warnings = [
        f"{group}: {reading.rows[group]} rows, published are {count}"
        for group, count in published.items()
        if not reading.options.limit and group in reading.rows and reading.rows[group] != count
    ]
    if reading.leaks and reading.options.leaks != "error":
        done = "left out of the split that is held out less" if reading.options.leaks == "drop" else "kept"
        warnings.append(f"{reading.leaks} rows share a patient or an image with another split: {done}")
    if reading.store.unsafe:
        warnings.append(
            f"{reading.store.unsafe} DICOM images do not say that they are free of burned-in text; look before you "
            "share them"
        )
    for path in reading.quarantine.missing[:MISSING_SAID]:
        say(f"{STAGE}: no such file: {path}")
    for why, count in sorted(reading.filtered.items()):
        say(f"{STAGE}: {count} rows filtered ({why})")
    for warning in warnings:
        say(f"{STAGE}: warning: {warning}")
    numbers = {
        "source": reading.source,
        "rows": dict(reading.rows),
        "usable": dict(reading.kept),
        "left_out": dict(sorted(reading.left_out.items())),
        "filtered": dict(sorted(reading.filtered.items())),
        "published": {group: count for group, count in published.items() if group in reading.rows},
        "warnings": warnings,
    }
    write_json(folder / SUMMARY, numbers)
