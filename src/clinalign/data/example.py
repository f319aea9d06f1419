"""One row under our column names into an example: cells checked, images copied, regions and fields put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from clinalign.data import placeholders, rows
from clinalign.data.ledger import Ledger
from clinalign.data.options import DataOptions
from clinalign.data.patients import one_form, pseudonym
from clinalign.data.reports import without_placeholders
from clinalign.data.store import Store, Stored
from clinalign.errors import RowError
from clinalign.imaging.identifiers import named_in
from clinalign.records import Example, Region
from clinalign.storage import Quarantine

TEXTS = ("question", "answer", "label", "modality", *rows.DECLARED, "options", "regions", "meta")
"""Cells of which text is written as it is."""


class Filtered(NamedTuple):
    """A row that is left out because the settings say so: counted, and no fault."""

    why: str


class Item(NamedTuple):
    """A row under our column names, or why there is none; `number` counts from 1 in the file. Rows are counted by
    `group`, the file where it is empty. `part` tells questions of one row apart. `meta` in a row is kept as it is."""

    file: str
    number: int
    row: rows.Row | RowError | Filtered
    group: str = ""
    part: str = ""


class Subject(NamedTuple):
    """Whose a row is: `raw` links rows and is never written; `images` are names below the folder."""

    raw: str
    images: tuple[str, ...]


@dataclass(slots=True)
class Reading:
    """What one ingest carries along."""

    options: DataOptions
    source: str
    key: bytes
    store: Store
    ledger: Ledger
    quarantine: Quarantine
    several: bool
    rows: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    filtered: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    leaks: int = 0


def make_example(item: Item, row: rows.Row, reading: Reading) -> tuple[Example, Subject]:
    """A row as an example, and whose it is."""
    question = rows.text(row, "question", required=True)
    answer = rows.text(row, "answer", required=True)
    task = rows.choice(row, "task", {name: name for name in rows.TASKS}) or _task(answer)
    answer, cut = without_placeholders(answer, task)
    split = rows.choice(row, "split", rows.SPLITS)
    given = rows.text(row, "id")
    cells = rows.paths(row)
    placeholders.check(placeholders.count(question), len(cells), "question")
    for cell, value in (("question", question), ("answer", answer), ("rejected", rows.text(row, "rejected"))):
        placeholders.refuse(value, cell)
    question = placeholders.strip(question)
    if not question:
        raise RowError("question", "empty_question", "it holds nothing but the place of an image")
    stored = [reading.store.image(cell, row) for cell in cells]
    _check_text(row, stored)
    # a DICOM row's own id may be an accession number: it is checked for uniqueness and not kept
    dicom = any(image.patient or "burned_in_text" in image.meta for image in stored)
    name = given if given and not dicom else _row_name(item, reading)
    if any(reading.ledger.has_id(n) for n in {given, name} - {""}):
        raise RowError("id", "duplicate_id", "another row has this id; make ids unique")
    regions = _regions(row, stored, reading)
    named = rows.text(row, "patient_id")
    patient = one_form(named or next((image.patient for image in stored if image.patient), ""))
    subject = Path(stored[0].name).stem[:16] if stored else f"none-{name}"
    example = Example(
        id=name,
        images=[image.name for image in stored],
        question=question,
        answer=answer,
        task=task,
        regions=regions,
        patient_id=pseudonym(patient, reading.key) if patient else f"image-{subject}",
        modality=rows.text(row, "modality") or next((image.meta.get("modality", "") for image in stored), ""),
        source=reading.source,
        split=split if reading.options.original_splits else "",
        **_declared(row),
        counterfactual=_counterfactual(row, stored, reading),
        row=item.number,
        meta=_provenance(row, stored) | ({"placeholders_cut": cut} if cut else {}),
    )
    for n in {given, name} - {""}:
        reading.ledger.add_id(n)
    return example, Subject(patient or example.patient_id, tuple(image.name for image in stored))


def _check_text(row: rows.Row, stored: list[Stored]) -> None:
    """Refuses a row whose own text names the patient of its DICOM image: that text would be written."""
    found = [words for image in stored for words in image.identifiers]
    for name in TEXTS if found else ():
        if any(named_in(text, found) for text in _texts(row.get(name))):
            detail = "the text holds a name, number or date out of the image's header; take it out"
            raise RowError(name, "identifier_in_text", detail)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a cell, however deep it lies; keys count as texts."""
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        for below in value:
            yield from _texts(below)
    elif value is not None and not isinstance(value, bytes):
        yield str(value)


def _row_name(item: Item, reading: Reading) -> str:
    name = f"{Path(item.file).stem}-{item.number}" if reading.several else f"row-{item.number}"
    return f"{name}-{item.part}" if item.part else name


def _task(answer: str) -> str:
    """Without a task column: yes, no and a single letter are closed, anything else is open."""
    word = answer.strip(" .").lower()
    return "closed" if word in ("yes", "no") or (len(word) == 1 and word.isalpha()) else "open"


def _regions(row: rows.Row, stored: list[Stored], reading: Reading) -> list[Region]:
    """The row's regions, its mask and box, or the overlays that the first image's DICOM file carries."""
    labelled = rows.label_value(row)
    box, mask = rows.box(row), rows.text(row, "mask")
    label = rows.text(row, "label") or rows.text(row, "finding") or "region"
    own: list[dict[str, Any]] = [{"box": box, "mask": mask, "label": label}] if box or mask else []
    given: list[dict[str, Any]] = row.get("regions") or own
    if not stored:
        if given:
            raise RowError("box" if box else "mask", "region_without_image", "a row without an image has no region")
        return []
    found = []
    for region in given:
        if region.get("box"):
            rows.check_box(region["box"], *stored[0].shape)
        value = region["mask_value"] if "mask_value" in region else labelled
        inside = ""
        if region.get("mask"):
            inside = reading.store.mask(region["mask"], stored[0], value, optional=bool(region.get("optional")))
        if region.get("box") or inside:
            found.append(Region(region["label"], region.get("box") or None, inside or None))
    return found or [Region("overlay", None, name) for name in stored[0].overlays]


def _declared(row: rows.Row) -> dict[str, Any]:
    """The cells that become fields as they are."""
    texts = {name: rows.text(row, name) for name in ("finding", "slot", "kind", "full", "rejected")}
    prior = rows.choice(row, "prior", {name: name for name in rows.PRIORS})
    return texts | {"prior": prior, "slots": rows.slots(row), "options": row.get("options") or []}


def _counterfactual(row: rows.Row, stored: list[Stored], reading: Reading) -> str:
    """The name of the row's image without the finding; "" where it has none."""
    cell = rows.text(row, "counterfactual")
    if not cell:
        return ""
    other = reading.store.image(cell, row)
    if not stored or other.shape != stored[0].shape:
        detail = "the counterfactual and the image differ in size; resample it"
        raise RowError("counterfactual", "counterfactual_size", detail)
    return other.name


def _provenance(row: rows.Row, stored: list[Stored]) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    for name, there in (("volume", [i.meta for i in stored if i.depth is not None]), ("dicom", _headers(stored))):
        if there:
            meta[name] = there
    return meta | (rows.plain(row["meta"], "meta") if isinstance(row.get("meta"), dict) else {})


def _headers(stored: list[Stored]) -> list[dict[str, Any]]:
    return [image.meta for image in stored if image.meta and image.depth is None]
