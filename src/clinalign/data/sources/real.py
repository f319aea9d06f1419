"""Real images that come in packages: five volumes with expert lesion masks, a chest radiograph, a liver MR.

The packages have no questions and no reports. Every question here is built from a mask or from a coded attribute of
the header: is there a lesion in this slice, on which side, is it small or large, which modality and which part of the
body is it. Two patients are the test split. That proves that real images, real masks and real DICOM go through; it
proves nothing clinical.
Sources: pyradiomics 3.0.1 (source archive, BSD-3-Clause) and pydicom-data 1.0.0 (MIT), fetched by pip when needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from clinalign.data.index import assign_splits, patient_key, pseudonym
from clinalign.data.options import DataOptions
from clinalign.data.sources.fetch import PYDICOM_DATA, PYRADIOMICS, fetch, unpack
from clinalign.errors import RowError
from clinalign.imaging.images import content_name, write_png
from clinalign.imaging.pixels import Mask, Pixels, Window, parse_window
from clinalign.imaging.volumes import check_grid, lesion_of, range_window, read_labels, read_volume, shown, slices
from clinalign.progress import track
from clinalign.records import Example, Region
from clinalign.storage import Quarantine, shared_folder

CT_WINDOW = "-1200/400"
LARGE_MM = 20.0
"""A lesion is large where the circle of its area in the slice has at least this diameter. Our own border."""
OFF_MIDLINE = 0.05
"""No side is asked of a lesion nearer to the midline than this share of the body's width."""
OFF_CENTRE = 0.05
"""No quadrant is asked of a lesion nearer to one of the image's middle lines than this share of its side."""
WORDS = {"CT": "CT", "MR": "MRI", "CR": "X-ray", "DX": "X-ray"}
FROM_HEADER = ("modality", "body_part")


@dataclass(frozen=True, slots=True)
class Study:
    """One volume: what it shows and which split it belongs to. `sided` is False where a crop has no midline."""

    name: str
    modality: str
    body_part: str
    finding: str
    split: str
    sided: bool = True


STUDIES = (
    Study("brain1", "MR", "brain", "lesion", "align"),
    Study("breast1", "MR", "breast", "lesion", "align", sided=False),
    Study("lung2", "CT", "chest", "mass", "align"),
    Study("brain2", "MR", "brain", "lesion", "test"),
    Study("lung1", "CT", "chest", "nodule", "test"),
)
RADIOGRAPH, LIVER = "RG1_UNCR", "MR-SIEMENS-DICOM-WithOverlays"


@dataclass(slots=True)
class Picture:
    """One image with what is known about it; `mask` is None where there is no lesion, `checked` where nobody looked."""

    name: str
    patient: str
    split: str
    modality: str
    body_part: str
    image: Pixels
    finding: str = "lesion"
    mask: Mask | None = None
    checked: bool = True
    side: str | None = None
    size: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> list[Example]:
    """Fetches the packages where they are not in the cache and turns them into examples, images and masks below
    `folder`. A picture that cannot be read goes to the quarantine. Raises `UsageError` when a package cannot be had."""
    cache = shared_folder(options.cache) / "real"
    examples: list[Example] = []
    for picture in track(_pictures(options, cache, quarantine), "ingest"):
        examples += list(_examples(picture, folder))
    if options.splits:
        assigned = assign_splits((e.patient_id for e in examples), options.splits, options.seed)
        for example in examples:
            example.split = assigned[example.patient_id]
    return list(islice(examples, options.limit or None))


def _pictures(options: DataOptions, cache: Path, quarantine: Quarantine) -> Iterator[Picture]:
    dicom = fetch(PYDICOM_DATA, cache)
    nrrd = fetch(PYRADIOMICS, cache)
    for name, build in ((RADIOGRAPH, _radiograph), (LIVER, _liver)):
        [path] = unpack(dicom, {f"data_store/data/{name}.dcm": f"{name}.dcm"}, cache)
        try:
            yield build(path, options)
        except RowError as error:
            quarantine.add("ingest", file=path.name, row=1, field=error.field, reason=error.reason, detail=error.detail)
    for study in STUDIES:
        members = {f"pyradiomics-3.0.1/data/{study.name}_{kind}.nrrd": f"{study.name}_{kind}.nrrd" for kind in KINDS}
        image, label = unpack(nrrd, members, cache)
        try:
            yield from _slices(study, image, label, options)
        except RowError as error:
            quarantine.add(
                "ingest", file=image.name, row=1, field=error.field, reason=error.reason, detail=error.detail
            )


KINDS = ("image", "label")


def _slices(study: Study, image: Path, label: Path, options: DataOptions) -> Iterator[Picture]:
    volume = read_volume(image)
    mask = read_labels(label)
    check_grid(mask, volume)
    window = _window(study, options) or range_window(volume)
    lesion, free = slices(mask)
    area = volume.spacing[0] * volume.spacing[1]
    for z in sorted(lesion + free):
        pixels = shown(volume, z, window)
        inside = lesion_of(mask, z) if z in lesion else None
        picture = Picture(
            f"{study.name}-{z:03d}",
            f"pyradiomics-{study.name}",
            study.split,
            study.modality,
            study.body_part,
            pixels,
            study.finding,
            inside,
            meta={"slice": z, "window": window.as_dict(), "file": image.name},
        )
        if inside is not None:
            diameter = 2 * math.sqrt(inside.sum() * area / math.pi)
            picture.size = "large" if diameter >= LARGE_MM else "small"
            picture.side = side_of(inside, pixels) if study.sided else None
            picture.meta["diameter_mm"] = round(diameter, 1)
        yield picture


def _window(study: Study, options: DataOptions) -> Window | None:
    """The window of a CT: the recipe's where it names one, otherwise that of the chest. MR has no absolute units."""
    if study.modality != "CT":
        return None
    return parse_window(CT_WINDOW if options.window == "auto" else options.window)[0]


def side_of(mask: Mask, image: Pixels) -> str | None:
    """The patient's side of a lesion on an axial slice in radiological convention: patient left is at image right.

    None where the lesion is nearer to the body's midline than `OFF_MIDLINE` of its width.
    """
    labels, count = ndimage.label(image[:, :, 0] > 30)
    if not count:
        return None
    largest = 1 + int(np.argmax(ndimage.sum_labels(labels > 0, labels, range(1, count + 1))))
    columns = np.nonzero((labels == largest).any(axis=0))[0]
    offset = float(np.nonzero(mask)[1].mean() - (columns[0] + columns[-1]) / 2)
    if abs(offset) < OFF_MIDLINE * len(columns):
        return None
    return "left" if offset > 0 else "right"


def quadrant_of(mask: Mask) -> tuple[str, str] | None:
    """(zone, side) of the image, as it is seen, that holds the mask's centre; None where it is too near a middle line.

    The image's left is the patient's right: the question says "of the image".
    """
    rows, cols = np.nonzero(mask)
    down, right = ((place.mean() + 0.5) / size - 0.5 for place, size in zip((rows, cols), mask.shape))
    if min(abs(down), abs(right)) < OFF_CENTRE:
        return None
    return "lower" if down > 0 else "upper", "right" if right > 0 else "left"


def _radiograph(path: Path, options: DataOptions) -> Picture:
    from clinalign.imaging.dicom import read_dicom

    dicom = read_dicom(path)
    patient = pseudonym(dicom.patient_id, patient_key(options.key_file))
    modality, part = (dicom.meta.get(name, "") for name in ("modality", "body_part"))
    meta = {"dicom": [dicom.meta]}
    return Picture("radiograph", patient, "align", modality, part.lower(), dicom.image, checked=False, meta=meta)


def _liver(path: Path, options: DataOptions) -> Picture:
    from clinalign.imaging.dicom import read_dicom

    dicom = read_dicom(path)
    if not dicom.overlays:
        raise RowError("mask", "no_overlay", "the file has no overlay to take the region from")
    patient = pseudonym(dicom.patient_id, patient_key(options.key_file))
    mask = dicom.overlays[0]
    modality, part = (dicom.meta.get(name, "") for name in ("modality", "body_part"))
    side = side_of(mask, dicom.image)
    meta = {"dicom": [dicom.meta]}
    return Picture("liver", patient, "align", modality, part.lower(), dicom.image, "lesion", mask, side=side, meta=meta)


def _examples(picture: Picture, folder: Path) -> Iterator[Example]:
    """Writes the image and the mask, then asks what is known about them."""
    image = f"images/{content_name(picture.image)}.png"
    write_png(folder / image, picture.image)
    regions = []
    if picture.mask is not None:
        mask = f"masks/{content_name(picture.mask)}.png"
        write_png(folder / mask, picture.mask)
        regions = [Region(picture.finding, box_of(picture.mask), mask)]
    for number, (kind, task, question, answer, slots) in enumerate(_questions(picture)):
        slot = kind.removesuffix("_closed")
        yield Example(
            id=f"real-{picture.name}-{kind}",
            images=[image],
            question=question,
            answer=answer,
            task=task,
            regions=[] if kind in FROM_HEADER else regions,
            patient_id=picture.patient,
            modality=picture.modality,
            source="real",
            split=picture.split,
            finding="" if kind in FROM_HEADER else picture.finding,
            slot=slot,
            kind=kind,
            prior="neutral",
            full=sentence(kind, answer, picture, slots),
            slots=slots,
            meta={"question_from": "header" if kind in FROM_HEADER else "mask", "number": number, **picture.meta},
        )


def _questions(picture: Picture) -> Iterator[tuple[str, str, str, str, dict[str, str]]]:
    """(kind, task, question, answer, slots). What a closed question asks for alternates with the picture's name."""
    name = picture.finding
    flip = sum(picture.name.encode()) % 2
    if picture.checked:
        there = "yes" if picture.mask is not None else "no"
        yield "presence", "closed", f"Is there a {name} in this image?", there, {"presence": there}
    if picture.side:
        asked = ("left", "right")[flip]
        answer = "yes" if asked == picture.side else "no"
        yield "side", "open", f"On which side is the {name}?", picture.side, {"side": picture.side}
        slots = {"side": picture.side, "asked": asked}
        yield "side_closed", "closed", f"Is the {name} on the {asked} side?", answer, slots
    if picture.size:
        asked = ("small", "large")[flip]
        answer = "yes" if asked == picture.size else "no"
        yield "size", "open", f"What is the size of the {name}?", picture.size, {"size": picture.size}
        slots = {"size": picture.size, "asked": asked}
        yield "size_closed", "closed", f"Is the {name} {asked}?", answer, slots
    quadrant = quadrant_of(picture.mask) if picture.mask is not None else None
    if quadrant:
        slots = dict(zip(("zone", "side"), quadrant))
        yield "quadrant", "open", f"In which quadrant of the image is the {name}?", " ".join(quadrant), slots
    word = WORDS.get(picture.modality)
    if word:
        yield "modality", "open", "Which imaging modality is this?", word, {"modality": word.lower()}
    if picture.body_part:
        yield "body_part", "open", "Which body part is shown?", picture.body_part, {"organ": picture.body_part}


def sentence(kind: str, answer: str, picture: Picture, slots: dict[str, str]) -> str:
    """The answer as a sentence, what a model is warmed up on."""
    name = f"The {picture.finding}"
    whole = {
        "presence": f"Yes, there is a {picture.finding}." if answer == "yes" else f"No, there is no {picture.finding}.",
        "side": f"{name} is on the {slots.get('side')} side.",
        "size": f"{name} is {slots.get('size')}.",
        "quadrant": f"{name} is in the {answer} quadrant of the image.",
        "modality": f"This is {'an' if answer[:1] in 'MX' else 'a'} {answer} image.",
        "body_part": f"This is an image of the {answer}.",
    }
    text = whole.get(kind.removesuffix("_closed"), answer)
    return f"{answer.capitalize()}, {text[0].lower()}{text[1:]}" if kind.endswith("_closed") else text


def box_of(mask: Mask) -> list[float]:
    """The tight box [x, y, w, h] of a mask, in pixels."""
    rows, cols = np.nonzero(mask)
    x, y = float(cols.min()), float(rows.min())
    return [x, y, float(cols.max()) + 1 - x, float(rows.max()) + 1 - y]
