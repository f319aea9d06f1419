"""One row under our column names into an example: cells checked, images copied, regions and fields put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from clinalign.data.cells import Cells, check_box
from clinalign.data.files import DECLARED
from clinalign.data.images import ImageStore, Stored
from clinalign.data.index import IngestIndex, one_form, pseudonym
from clinalign.data.options import DataOptions
from clinalign.data.row import Item, Row, parse_row
from clinalign.errors import RowError
from clinalign.imaging.identifiers import named_in
from clinalign.records import Example, Region
from clinalign.storage import Quarantine

TEXTS = ("question", "answer", "label", "modality", *DECLARED, "options", "fixed_order", "regions", "meta")
"""Cells of which text is written as it is."""
AS_THEY_ARE = ("finding", "slot", "kind", "prior", "full", "slots", "rejected", "options", "fixed_order", "laterality")
"""Parsed cells that become fields of the same name."""


class Subject(NamedTuple):
    """Whose a row is: `raw` links rows and is never written; `images` are names below the folder, of copies of one
    picture the first."""

    raw: str
    images: tuple[str, ...]


@dataclass(slots=True)
class IngestState:
    """What one ingest carries along."""

    options: DataOptions
    source: str
    key: bytes
    store: ImageStore
    index: IngestIndex
    quarantine: Quarantine
    several: bool
    rows: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    filtered: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    leaks: int = 0


def make_example(item: Item, raw: Cells, state: IngestState) -> tuple[Example, Subject]:
    """A row as an example, and whose it is."""
    row = parse_row(raw)
    stored = [state.store.image(cell, row) for cell in row.images]
    _check_text(row, stored)
    # a DICOM row's own id may be an accession number: it is checked for uniqueness and not kept
    dicom = any(image.patient or "burned_in_text" in image.meta for image in stored)
    name = row.id if row.id and not dicom else _row_name(item, state)
    if any(state.index.has_id(n) for n in {row.id, name} - {""}):
        raise RowError("id", "duplicate_id", "another row has this id; make ids unique")
    regions = _regions(row, stored, state)
    patient = one_form(row.patient_id or next((image.patient for image in stored if image.patient), ""))
    subject = Path(state.index.picture(stored[0].name)).stem[:16] if stored else f"none-{name}"
    example = Example(
        id=name,
        images=[image.name for image in stored],
        question=row.question,
        answer=row.answer,
        task=row.task,
        regions=regions,
        patient_id=pseudonym(patient, state.key) if patient else f"image-{subject}",
        modality=row.modality or next((image.meta.get("modality", "") for image in stored), ""),
        source=state.source,
        split=row.split if state.options.original_splits else "",
        **{name: getattr(row, name) for name in AS_THEY_ARE},
        counterfactual=_counterfactual(row, stored, state),
        row=item.number,
        meta=_provenance(stored) | row.meta | ({"placeholders_cut": row.cut} if row.cut else {}),
    )
    for n in {row.id, name} - {""}:
        state.index.add_id(n)
    return example, Subject(patient or example.patient_id, tuple(state.index.picture(image.name) for image in stored))


def _check_text(row: Row, stored: list[Stored]) -> None:
    """Refuses a row whose own text names the patient of its DICOM image: that text would be written."""
    found = [words for image in stored for words in image.identifiers]
    for name in TEXTS if found else ():
        if any(named_in(text, found) for text in _texts(row.cells.get(name))):
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


def _row_name(item: Item, state: IngestState) -> str:
    name = f"{Path(item.file).stem}-{item.number}" if state.several else f"row-{item.number}"
    return f"{name}-{item.part}" if item.part else name


def _regions(row: Row, stored: list[Stored], state: IngestState) -> list[Region]:
    """The row's regions, or the overlays that the first image's DICOM file carries."""
    if not stored:
        if row.regions:
            field = "box" if row.regions[0].get("box") else "mask"
            raise RowError(field, "region_without_image", "a row without an image has no region")
        return []
    found = []
    for region in row.regions:
        if region.get("box"):
            check_box(region["box"], *stored[0].shape)
        inside = ""
        if region.get("mask"):
            value = region.get("mask_value", row.mask_value)
            inside = state.store.mask(region["mask"], stored[0], value, optional=bool(region.get("optional")))
        if region.get("box") or inside:
            found.append(Region(region["label"], region.get("box") or None, inside or None))
    return found or [Region("overlay", None, name) for name in stored[0].overlays]


def _counterfactual(row: Row, stored: list[Stored], state: IngestState) -> str:
    """The name of the row's image without the finding; "" where it has none."""
    if not row.counterfactual:
        return ""
    other = state.store.image(row.counterfactual, row)
    if not stored or other.shape != stored[0].shape:
        detail = "the counterfactual and the image differ in size; resample it"
        raise RowError("counterfactual", "counterfactual_size", detail)
    return other.name


def _provenance(stored: list[Stored]) -> dict[str, Any]:
    there = {"volume": [i.meta for i in stored if i.depth is not None], "dicom": _headers(stored)}
    return {name: metas for name, metas in there.items() if metas}


def _headers(stored: list[Stored]) -> list[dict[str, Any]]:
    return [image.meta for image in stored if image.meta and image.depth is None]
