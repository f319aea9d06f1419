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
from clinalign.imaging.volumes import is_volume
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
    stored = [image for cell in row.images for image in state.store.images(cell, row)]
    _check_text(row, stored)
    # a DICOM row's own id may be an accession number: it is checked for uniqueness and not kept
    dicom = any(image.patient or "burned_in_text" in image.meta for image in stored)
    name = row.id if row.id and not dicom else _row_name(item, state)
    if any(state.index.has_id(n) for n in {row.id, name} - {""}):
        raise RowError("id", "duplicate_id", "another row has this id; make ids unique")
    regions = _regions(row, stored, state)
    patient = one_form(row.patient_id or next((image.patient for image in stored if image.patient), ""))
    subject = Path(state.index.picture(_telling(stored)[0])).stem[:16] if stored else f"none-{name}"
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
        captions=_captions(stored, state.options),
        **_without_finding(row, stored, state),
        row=item.number,
        meta=_provenance(stored) | row.meta | ({"placeholders_cut": row.cut} if row.cut else {}),
    )
    for n in {row.id, name} - {""}:
        state.index.add_id(n)
    return example, Subject(patient or example.patient_id, tuple(map(state.index.picture, _telling(stored))))


def _telling(stored: list[Stored]) -> list[str]:
    """The images by which a copy of the row is known: of a volume the middle one of its slices (the first and last show
    air in every patient)."""
    volumes = {image.volume: [one.name for one in stored if one.volume == image.volume] for image in stored}
    alone = volumes.pop("", [])
    return [*alone, *(names[len(names) // 2] for names in volumes.values())]


def _captions(stored: list[Stored], options: DataOptions) -> list[str]:
    """What is said before the first image and behind each, where volumes show several slices."""
    if not options.captions or len(stored) < 2 or not any(image.volume for image in stored):
        return []
    counts: Counter[str] = Counter()
    behind = []
    for image in stored:
        counts[image.volume] += 1
        behind.append(options.captions.format(number=counts[image.volume]) if image.volume else "")
    return [options.intro, *behind]


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
        found += (
            _in_volume(region, row, stored, state)
            if len(stored) > 1 and stored[0].volume
            else [_on_first(region, row, stored, state)]
        )
    found = [region for region in found if region.box or region.mask]
    return found or [Region("overlay", None, name) for name in stored[0].overlays]


def _on_first(region: Mapping[str, Any], row: Row, stored: list[Stored], state: IngestState) -> Region:
    """A region of the first image."""
    if region.get("box"):
        check_box(region["box"], *stored[0].shape)
    inside = ""
    if region.get("mask"):
        value = region.get("mask_value", row.mask_value)
        inside = state.store.mask(region["mask"], stored[0], value, optional=bool(region.get("optional")))
    return Region(region["label"], region.get("box") or None, inside or None)


def _in_volume(region: Mapping[str, Any], row: Row, stored: list[Stored], state: IngestState) -> list[Region]:
    """A region of a mask volume: what of it each slice shows."""
    if region.get("box") or not is_volume(Path(region.get("mask") or "")):
        field = "box" if region.get("box") else "mask"
        raise RowError(field, "no_slice", "it does not say on which slice it lies; give a mask volume, or a frame")
    value = region.get("mask_value", row.mask_value)
    found = [
        Region(region["label"], None, state.store.mask(region["mask"], image, value, optional=True), number)
        for number, image in enumerate(stored)
        if image.volume == stored[0].volume
    ]
    found = [one for one in found if one.mask]
    if not found and not region.get("optional"):
        detail = f"none of the {len(stored)} slices shown crosses the mask; raise data.slices, or leave the cell empty"
        raise RowError("mask", "lesion_not_shown", detail)
    return found


def _without_finding(row: Row, stored: list[Stored], state: IngestState) -> dict[str, Any]:
    """The row's image without the finding, or of several slices each one's; nothing where it has none."""
    if not row.counterfactual:
        return {}
    others = state.store.images(row.counterfactual, row)
    if not stored or [other.shape for other in others] != [image.shape for image in stored[: len(others)]]:
        detail = "the counterfactual and the image differ in size; resample it"
        raise RowError("counterfactual", "counterfactual_size", detail)
    names = [other.name for other in others]
    if len(names) == 1:
        return {"counterfactual": names[0]}
    return {"counterfactuals": [*names, *(image.name for image in stored[len(names) :])]}


def _provenance(stored: list[Stored]) -> dict[str, Any]:
    there = {"volume": [i.meta for i in stored if i.depth is not None], "dicom": _headers(stored)}
    return {name: metas for name, metas in there.items() if metas}


def _headers(stored: list[Stored]) -> list[dict[str, Any]]:
    return [image.meta for image in stored if image.meta and image.depth is None]
