"""Rows of any data set into examples, one at a time: checked, images copied, splits kept or assigned, leaks refused.

A reader gives `Item`s under our column names (`row.py`); this file does the rest, so every source has the same
traps closed. Nothing grows with the number of rows: what must be remembered is on disk (`index.py`), and rows that
have to wait for a split lie in a nameless file.
"""

from __future__ import annotations

import heapq
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

from clinalign.data import cells
from clinalign.data.cells import guarded
from clinalign.data.example import IngestState, Subject, make_example
from clinalign.data.images import ImageStore
from clinalign.data.index import RANK, IngestIndex, draw_key, one_form, patient_key, share_sizes
from clinalign.data.options import DataOptions
from clinalign.data.row import Filtered, Item
from clinalign.errors import RowError, UsageError
from clinalign.progress import say, track
from clinalign.records import Example
from clinalign.storage import Quarantine, from_row, to_row, user_path, write_json

STAGE = "ingest"
SUMMARY = "ingest.json"
MISSING_SAID = 3
"""Missing files whose paths are printed."""

Bucket = tuple[str, str]
"""A group of rows (a file) and the split that its rows name."""
__all__ = ["Filtered", "Item", "drawn", "ingest"]


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
    index = IngestIndex()
    limits = (options.max_pixels, options.max_voxels)
    store = ImageStore(_base(options, base), folder, options.window, options.frame, index, *limits, options.slices)
    key = patient_key(options.key_file)
    state = IngestState(options, options.source, key, store, index, quarantine, several)
    try:
        with tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder) as spool:
            if options.limit:
                items = drawn(items, options.limit, options.seed)
            yield from _first_pass(items, state, spool)
            yield from _second_pass(state, spool)
        _finish(state, folder, published or {})
    finally:
        index.close()


def _base(options: DataOptions, base: Path) -> Path:
    if not options.images:
        return base
    folder = user_path(options.images)
    if not folder.is_dir():
        raise UsageError(f"data.images: {options.images}: no such folder")
    return folder


def _first_pass(items: Iterable[Item], state: IngestState, spool: IO[str]) -> Iterator[Example]:
    """Yields examples for as long as each has its split; from the first without on, examples go to the spool."""
    waiting = state.options.leaks == "drop"
    for item in track(items, STAGE):
        group = item.group or item.file
        if isinstance(item.row, Filtered):
            state.filtered[f"{group}: {item.row.why}"] += 1
            continue
        state.rows[group] += 1
        row = item.row
        made = row if isinstance(row, RowError) else guarded(partial(make_example, item, row, state), row)
        if isinstance(made, RowError):
            _reject(state, item.file, item.number, made)
            continue
        example, subject = made
        state.kept[group] += 1
        location = f"{item.file} row {item.number}" if state.several else f"row {item.number}"
        if example.split:
            _check_leak(state, subject, example.split, location)
        else:
            state.index.wait(subject.raw, state.options.seed)
            waiting = True
        if not waiting:
            yield example
        else:
            held = [to_row(example), subject, location, item.file, item.number]
            spool.write(json.dumps(held, ensure_ascii=False) + "\n")
    if not state.kept:
        reasons = ", ".join(sorted(state.rejected)) or ("all rows were filtered" if state.filtered else "no rows")
        where = state.options.path or state.source
        missing = f", first {state.quarantine.missing[0]}" if state.quarantine.missing else ""
        raise UsageError(
            f"{where}: no usable row ({reasons}){missing}; {state.quarantine.path.name} has every row's reason"
        )


def _second_pass(state: IngestState, spool: IO[str]) -> Iterator[Example]:
    """Rows without a split follow their patient's other rows; new patients are assigned by share."""
    state.index.assign_splits(state.options.splits)
    spool.seek(0)
    for line in spool:
        row, (raw, images), location, file, number = json.loads(line)
        example, subject = from_row(row, Example), Subject(raw, tuple(images))
        if not example.split:
            example.split = state.index.assigned_split(raw) or state.index.split_of("patient", raw)
            _check_leak(state, subject, example.split, location)
        if state.options.leaks == "drop" and (other := _held_out(state, subject, example.split)):
            detail = f"its patient or image is also in split '{other}'"
            _reject(state, file, number, RowError("split", "leak", detail))
            continue
        yield example


def _held_out(state: IngestState, subject: Subject, split: str) -> str:
    """The split, to be held out more than this one, in which the patient or one of the images stands too."""
    places = [state.index.split_of("patient", subject.raw)]
    places += [state.index.split_of("image", name) for name in subject.images]
    other = max(places, key=lambda s: RANK.get(s, 0))
    return other if RANK.get(other, 0) > RANK.get(split, 0) else ""


def _check_leak(state: IngestState, subject: Subject, split: str, location: str) -> None:
    named = [("patient", subject.raw), *(("image", name) for name in subject.images)]
    leaked = False
    for what, name in named:
        other = state.index.record(what, name, split, location)
        if other and state.options.leaks == "error":
            where = state.options.path or state.source
            what = "image (or a copy encoded anew or resized)" if what == "image" else what
            raise UsageError(
                f"{where}: one {what} is in split '{other[0]}' ({other[1]}) and in split '{split}' ({location}); "
                "keep every patient in one split, or set data.leaks to drop or data.original_splits to false"
            )
        leaked |= other is not None
    state.leaks += leaked


def _reject(state: IngestState, file: str, number: int, error: RowError) -> None:
    if error.reason == "empty_image" and state.options.empty_image == "ask":
        raise UsageError(f"{state.options.path}: row {number}: {error.detail}")
    state.rejected[error.reason] += 1
    state.quarantine.add(STAGE, file=file, row=number, field=error.field, reason=error.reason, detail=error.detail)
    if error.path:
        state.quarantine.missing.append(error.path)


def _finish(state: IngestState, folder: Path, published: Mapping[str, int]) -> None:
    """Says what differs from what was to be expected, and writes the numbers down."""
    warnings = [
        f"{group}: {state.rows[group]} rows, published are {count}"
        for group, count in published.items()
        if not state.options.limit and group in state.rows and state.rows[group] != count
    ]
    if state.leaks and state.options.leaks != "error":
        done = "left out of the split that is held out less" if state.options.leaks == "drop" else "kept"
        warnings.append(f"{state.leaks} rows share a patient or an image with another split: {done}")
    if state.store.unsafe:
        warnings.append(
            f"{state.store.unsafe} DICOM images do not say that they are free of burned-in text; look before you "
            "share them"
        )
    for path in state.quarantine.missing[:MISSING_SAID]:
        say(f"{STAGE}: no such file: {path}")
    for why, count in sorted(state.filtered.items()):
        say(f"{STAGE}: {count} rows filtered ({why})")
    for warning in warnings:
        say(f"{STAGE}: warning: {warning}")
    numbers = {
        "source": state.source,
        "rows": dict(state.rows),
        "usable": dict(state.kept),
        "rejected": dict(sorted(state.rejected.items())),
        "filtered": dict(sorted(state.filtered.items())),
        "published": {group: count for group, count in published.items() if group in state.rows},
        "warnings": warnings,
    }
    write_json(folder / SUMMARY, numbers)


def drawn(items: Iterable[Item], limit: int, seed: int) -> Iterator[Item]:
    """At most `limit` rows of each group, in their order: every split gets its share and one row at least, within a
    split the patients come in the order of a hash of the seed, with all their rows until the share is full.

    Filtered rows pass and do not count. Holds `limit` rows a split in memory.
    """
    heaps: dict[Bucket, list[tuple[int, int, Item]]] = {}
    counts: Counter[Bucket] = Counter()
    for order, item in enumerate(items):
        if isinstance(item.row, Filtered):
            yield item
            continue
        bucket = (item.group or item.file, _cell(item.row, "split").lower())
        counts[bucket] += 1
        heap = heaps.setdefault(bucket, [])
        heapq.heappush(heap, (-_place(item, seed), -order, item))  # the row that is drawn last is given up first
        if len(heap) > limit:
            heapq.heappop(heap)
    chosen: list[tuple[int, Item]] = []
    for bucket, size in _sizes(counts, limit).items():
        chosen += [(-order, item) for _, order, item in heapq.nlargest(size, heaps[bucket])]
    yield from (item for _, item in sorted(chosen, key=lambda entry: entry[0]))


def _sizes(counts: Counter[Bucket], limit: int) -> dict[Bucket, int]:
    """How many rows of each bucket are read."""
    sizes: dict[Bucket, int] = {}
    for group in {group for group, _ in counts}:
        mine = {bucket: count for bucket, count in counts.items() if bucket[0] == group}
        total = sum(mine.values())
        shares = share_sizes(min(limit, total), {split: count for (_, split), count in mine.items()})
        sizes |= {(group, split): size for split, size in shares.items()}
    return sizes


def _place(item: Item, seed: int) -> int:
    """Where a row's patient stands in the draw; a row without one stands for itself by its image or number."""
    patient = one_form(_cell(item.row, "patient_id")) or _cell(item.row, "image") or f"{item.file} {item.number}"
    return int.from_bytes(draw_key(patient, seed))


def _cell(row: Any, name: str) -> str:
    """A cell as text; "" where the row or the cell is none."""
    if isinstance(row, RowError):
        return ""
    try:
        return cells.text(row, name)
    except RowError:
        return ""
