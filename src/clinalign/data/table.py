"""Your own data: a CSV, TSV, JSONL or Parquet file of image, question and answer becomes examples.

Columns: image (or images), question, answer; optional: task, box, mask, label, patient_id, split, id, modality,
window, frame, and finding, slot, slots, kind, prior, full, twin (kept in `meta`). docs/data.md describes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clinalign.data import rows
from clinalign.data.images import Mask, content_name, is_dicom, read_image, read_mask, write_png
from clinalign.data.options import DataOptions
from clinalign.data.patients import LeakCheck, assign_splits, patient_key, pseudonym
from clinalign.data.windows import parse_window
from clinalign.errors import RowError, UsageError
from clinalign.progress import say, track
from clinalign.records import Example, Region
from clinalign.tables import Quarantine

STAGE = "ingest"


class Patient(NamedTuple):
    """A raw id, which links rows and is never written, and what a message may call it (no id out of a header)."""

    raw: str
    shown: str


@dataclass(slots=True)
class Stored:
    """An image after it was copied: its name below the folder, its size, and what a DICOM header gave."""

    name: str
    shape: tuple[int, int]
    meta: dict[str, Any] = field(default_factory=dict)
    patient: str = ""
    overlay: str | None = None


@dataclass(slots=True)
class Reading:
    """What one ingest carries along. `patients` are those of the examples, in their order."""

    options: DataOptions
    base: Path
    folder: Path
    key: bytes
    images: dict[tuple[str, str, int], Stored] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    patients: list[Patient] = field(default_factory=list)


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> list[Example]:
    """The table's usable rows as examples; images, masks and twins are copied below `folder` as PNG under names that
    are hashes of their content. A bad row goes to the quarantine with file, row, column, reason and remedy.

    Patient ids are replaced by keyed pseudonyms. Where a row has no id, its first image stands for the patient. Raises
    `UsageError` for a table that cannot be used at all (see `rows.iter_rows`), a patient or an image in two splits,
    and when no row is usable.
    """
    path = Path(options.path).expanduser()
    reading = Reading(options, path.parent, folder, patient_key(options.key_file))
    leaks = LeakCheck(str(path))
    examples: list[Example] = []
    for number, row in track(rows.iter_rows(path, options.columns), STAGE):
        if options.limit and number > options.limit:
            break
        try:
            if isinstance(row, RowError):
                raise row
            example, patient = _example(number, row, reading)
        except RowError as error:
            quarantine.add(
                STAGE, file=path.name, row=number, field=error.field, reason=error.reason, detail=error.detail
            )
            continue
        if example.split:
            _check_leak(leaks, example, patient, number)
        reading.patients.append(patient)
        examples.append(example)
    if not examples:
        reasons = sorted({r["reason"] for r in quarantine.rows if r["stage"] == STAGE})
        raise UsageError(f"{path}: no usable row ({', '.join(reasons)}); {quarantine.path.name} has every row's reason")
    _fill_splits(examples, reading, leaks)
    _warn_of_text(reading)
    return examples


def _example(number: int, row: rows.Row, reading: Reading) -> tuple[Example, Patient]:
    """A row as an example, and whose it is."""
    question = rows.text(row, "question", required=True)
    answer = rows.text(row, "answer", required=True)
    task = rows.choice(row, "task", {name: name for name in rows.TASKS}) or _task(answer)
    split = rows.choice(row, "split", rows.SPLITS)
    given = rows.text(row, "id")
    stored = [_store(path, row, reading) for path in rows.paths(row)]
    # a DICOM row's own id may be an accession number: it is checked for uniqueness and not kept
    name = given if given and not any(image.meta for image in stored) else f"row-{number}"
    if given in reading.ids or name in reading.ids:
        raise RowError("id", "duplicate_id", "another row has this id; make ids unique")
    regions = _regions(row, stored, reading)
    named = rows.text(row, "patient_id")
    patient = named or next((image.patient for image in stored if image.patient), "")
    example = Example(
        id=name,
        images=[image.name for image in stored],
        question=question,
        answer=answer,
        task=task,
        regions=regions,
        patient_id=pseudonym(patient, reading.key) if patient else f"image-{_subject(stored, number)}",
        modality=rows.text(row, "modality") or next((image.meta.get("modality", "") for image in stored), ""),
        source="table",
        split=split,
        meta=_meta(number, row, stored, reading),
    )
    reading.ids |= {given, name} - {""}
    return example, Patient(patient or example.patient_id, named or example.patient_id)


def _subject(stored: list[Stored], number: int) -> str:
    return Path(stored[0].name).stem[:16] if stored else f"none-{number}"


def _task(answer: str) -> str:
    """Without a task column: yes, no and a single letter are closed, anything else is open."""
    word = answer.strip(" .").lower()
    return "closed" if word in ("yes", "no") or (len(word) == 1 and word.isalpha()) else "open"


def _store(cell: str, row: rows.Row, reading: Reading) -> Stored:
    """Reads an image and writes it as PNG, once a file, window and frame."""
    source = reading.base / cell
    window = _window(row) or reading.options.window
    frame = rows.whole_number(row, "frame", reading.options.frame)
    key = (str(source), window, frame)
    if key not in reading.images:
        if is_dicom(source):
            stored = _store_dicom(source, window, frame, reading)
        else:
            image = read_image(source)
            stored = Stored(_write(image, "images", reading.folder), (image.shape[0], image.shape[1]))
        reading.images[key] = stored
    return reading.images[key]


def _window(row: rows.Row) -> str:
    """The row's own window, checked here so that a bad one costs the row and not the run."""
    window = rows.text(row, "window")
    if window and window != "auto" and not window.startswith("file"):
        try:
            parse_window(window)
        except UsageError as error:
            raise RowError("window", "unknown_window", str(error)) from error
    return window


def _store_dicom(source: Path, window: str, frame: int, reading: Reading) -> Stored:
    from clinalign.data.dicom import read_dicom

    dicom = read_dicom(source, window=window, frame=frame)
    overlay = np.logical_or.reduce(dicom.overlays) if dicom.overlays else None
    return Stored(
        _write(dicom.image, "images", reading.folder),
        (dicom.image.shape[0], dicom.image.shape[1]),
        dicom.meta,
        dicom.patient_id,
        _write(overlay, "masks", reading.folder) if overlay is not None else None,
    )


def _write(array: Any, kind: str, folder: Path) -> str:
    name = f"{kind}/{content_name(array)}.png"
    if not (folder / name).is_file():
        write_png(folder / name, array)
    return name


def _regions(row: rows.Row, stored: list[Stored], reading: Reading) -> list[Region]:
    """The row's mask and box, or the overlay that the first image's DICOM file carries."""
    box, mask = rows.box(row), rows.text(row, "mask")
    label = rows.text(row, "label") or rows.text(row, "finding") or "region"
    if not stored:
        if box or mask:
            raise RowError("box" if box else "mask", "region_without_image", "a row without an image has no region")
        return []
    shape = stored[0].shape
    if box:
        rows.check_box(box, *shape)
    if mask:
        return [Region(label, box, _write(_mask(reading.base / mask, shape), "masks", reading.folder))]
    if box:
        return [Region(label, box)]
    return [Region("overlay", None, stored[0].overlay)] if stored[0].overlay else []


def _mask(path: Path, shape: tuple[int, int]) -> Mask:
    mask = read_mask(path)
    if mask.shape != shape:
        sizes = f"the mask is {mask.shape[1]}x{mask.shape[0]}, the image {shape[1]}x{shape[0]}; resample the mask"
        raise RowError("mask", "mask_size", sizes)
    if not mask.any():
        raise RowError("mask", "empty_mask", "no pixel is inside; leave the cell empty where there is no lesion")
    return mask


def _meta(number: int, row: rows.Row, stored: list[Stored], reading: Reading) -> dict[str, Any]:
    meta: dict[str, Any] = {"row": number}
    meta |= {name: rows.text(row, name) for name in rows.META if name not in ("slots", "twin") and rows.text(row, name)}
    slots = rows.slots(row)
    if slots:
        meta["slots"] = slots
    twin = rows.text(row, "twin")
    if twin:
        other = _store(twin, row, reading)
        if not stored or other.shape != stored[0].shape:
            raise RowError("twin", "twin_size", "the twin and the image differ in size; resample it")
        meta["twin"] = other.name
    headers = [image.meta for image in stored if image.meta]
    if headers:
        meta["dicom"] = headers
    return meta


def _check_leak(leaks: LeakCheck, example: Example, patient: Patient, number: int) -> None:
    leaks.add("patient", patient.raw, example.split, number, patient.shown)
    for image in example.images:
        leaks.add("image", image, example.split, number)


def _fill_splits(examples: list[Example], reading: Reading, leaks: LeakCheck) -> None:
    """Rows without a split follow their patient's other rows; new patients are dealt out by share."""
    known = {name: split for (what, name), (split, _) in leaks.seen.items() if what == "patient"}
    open_ = [patient.raw for patient, example in zip(reading.patients, examples) if not example.split]
    dealt = assign_splits((p for p in open_ if p not in known), reading.options.splits, reading.options.seed)
    for patient, example in zip(reading.patients, examples):
        if not example.split:
            example.split = known.get(patient.raw) or dealt[patient.raw]
            _check_leak(leaks, example, patient, example.meta["row"])


def _warn_of_text(reading: Reading) -> None:
    count = sum(image.meta.get("burned_in_text", False) for image in reading.images.values())
    if count:
        say(
            f"{STAGE}: {count} DICOM images do not say that they are free of burned-in text; look before you share them"
        )
