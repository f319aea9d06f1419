"""Tools that read a colour fundus photograph with thresholds alone: lesions by quadrant, the disc, two eyes,
categories.

They are examples of the protocol and fit the phantoms' palette; on photographs of patients a trained segmenter belongs
in their place (`adapters`). They see pixels and nothing else: never a mask, never an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from scipy import ndimage

from clinalign.agent.tools import Corner, Fact, Image, Tool, ToolOutput
from clinalign.errors import RowError

Mask = npt.NDArray[np.bool_]
Eye = Literal["", "OD", "OS"]
FOUND = ("exudate", "retinal hemorrhage", "microaneurysm")
RATIO, GRADE, CATEGORY, PRESSURE = "cup-to-disc ratio", "retinopathy grade", "glaucoma category", "intraocular pressure"
ASYMMETRY = "cup-to-disc asymmetry"
CATEGORIES = ("healthy", "hypertension", "suspect", "glaucoma")
LARGE_CUP, HIGH_PRESSURE = 0.6, 21.0
SEVERITIES: tuple[Literal["", "mild", "moderate", "severe"], ...] = ("", "mild", "moderate", "severe")
DOT = 1 / 1500
"""Share of the image below which a dark spot is a microaneurysm."""
SPECK = 1 / 12000
"""Share of the image below which a spot is noise."""


class OneEye(BaseModel):
    """`laterality`: which eye, "" where it is to be read off the disc's side. `pressure`: mmHg, where it is known."""

    model_config = ConfigDict(extra="forbid")

    laterality: Eye = ""
    pressure: float | None = None


class Disc(NamedTuple):
    """The optic disc and its cup, in pixels."""

    disc: Mask
    cup: Mask

    @property
    def ratio(self) -> float:
        """Vertical diameter of the cup over that of the disc."""
        return _height(self.cup) / max(1, _height(self.disc))


def field(image: Image) -> Mask:
    """The lit circle of a photograph."""
    return np.asarray(image.max(-1) > 20)


def find_disc(image: Image) -> Disc:
    """The largest pale patch, its vessels filled in; the cup is its palest part. `RowError` where there is none."""
    green, blue = image[..., 1].astype(int), image[..., 2].astype(int)
    pale = ndimage.binary_closing(field(image) & (green > 160), iterations=max(1, len(image) // 42))
    number, size = _largest(pale)
    if not image.size / 1200 < size < image.size / 18:  # between a quarter of a per cent and a sixth of the image
        raise RowError("image", "no_disc", "no optic disc can be seen")
    disc = ndimage.binary_fill_holes(number)
    cup = ndimage.binary_closing(disc & (blue > 160), iterations=max(1, len(image) // 42))
    return Disc(np.asarray(disc), np.asarray(ndimage.binary_fill_holes(cup)))


def find_lesions(image: Image) -> dict[str, Mask]:
    """Masks of `FOUND`: pale yellow spots off the disc, dark red spots by their size."""
    disc = ndimage.binary_dilation(find_disc(image).disc, iterations=max(1, len(image) // 42))
    red, green, blue = (image[..., i].astype(int) for i in range(3))
    inside = ndimage.binary_erosion(field(image), iterations=2) & ~disc
    bright = inside & (green > 190) & (blue > 90)
    dark = inside & (red < 110) & (green < 30)
    area = image.shape[0] * image.shape[1]
    found = {"exudate": _components(bright, SPECK * area, np.inf)}
    found["retinal hemorrhage"] = _components(dark, DOT * area, np.inf)
    found["microaneurysm"] = _components(dark, SPECK * area, DOT * area)
    return found


def corners(mask: Mask, laterality: str) -> tuple[Corner, ...]:
    """The quadrants that a mask lies in, cut at the image centre: nasal is right of it in OD, left in OS."""
    labels, count = ndimage.label(mask)
    found: set[Corner] = set()
    for row, column in ndimage.center_of_mass(mask, labels, range(1, count + 1)) if count else ():
        vertical = "superior" if row < mask.shape[0] / 2 - 0.5 else "inferior"
        nasal = (column > mask.shape[1] / 2 - 0.5) == (laterality == "OD")
        found.add(f"{vertical} {'nasal' if nasal else 'temporal'}")  # type: ignore[arg-type]
    return tuple(sorted(found))


def side(image: Image) -> Eye:
    """Which eye a photograph shows: the disc lies on the nasal side."""
    columns = np.nonzero(find_disc(image).disc)[1]
    return "OD" if columns.mean() > image.shape[1] / 2 else "OS"


class SegmentLesions:
    """Bright and dark lesions with their quadrants, and how many of each."""

    name = "segment_lesions"
    description = "Segments exudates, haemorrhages and microaneurysms in a fundus photograph; says in which quadrants."
    covers = frozenset(FOUND)
    measures: Mapping[str, tuple[str, ...]] = {}
    input: type[BaseModel] = OneEye
    output = ToolOutput

    def run(self, request: OneEye, images: Sequence[Image]) -> ToolOutput:
        image = _only(images)
        eye = request.laterality or side(image)
        masks = find_lesions(image)
        return ToolOutput(facts=[_lesion(kind, mask, eye) for kind, mask in masks.items()], masks=masks)


class MeasureDisc:
    """The vertical cup-to-disc ratio."""

    name = "measure_disc"
    description = "Segments optic disc and cup in a fundus photograph and measures the vertical cup-to-disc ratio."
    covers = frozenset({RATIO, "cupping"})
    measures: Mapping[str, tuple[str, ...]] = {RATIO: ()}
    input: type[BaseModel] = OneEye
    output = ToolOutput

    def run(self, request: OneEye, images: Sequence[Image]) -> ToolOutput:
        image = _only(images)
        found = find_disc(image)
        facts = [Fact(finding=RATIO, value=round(found.ratio, 2), laterality=request.laterality or side(image))]
        return ToolOutput(facts=facts, masks={"disc": found.disc, "cup": found.cup})


class GradeRetinopathy:
    """Grade 0 to 3: nothing; microaneurysms alone; more than these; haemorrhages in all four quadrants."""

    name = "grade_retinopathy"
    description = "Grades diabetic retinopathy in a fundus photograph from its lesions, 0 to 3."
    covers = frozenset({GRADE, "diabetic retinopathy", "nonproliferative diabetic retinopathy", "retinopathy"})
    measures: Mapping[str, tuple[str, ...]] = {GRADE: ()}
    input: type[BaseModel] = OneEye
    output = ToolOutput

    def run(self, request: OneEye, images: Sequence[Image]) -> ToolOutput:
        image = _only(images)
        eye = request.laterality or side(image)
        masks = find_lesions(image)
        there = {kind for kind, mask in masks.items() if mask.any()}
        bleeding = len(corners(masks["retinal hemorrhage"], eye))
        grade = 0 if not there else 1 if there == {"microaneurysm"} else 3 if bleeding == 4 else 2
        name = "nonproliferative diabetic retinopathy" if grade else "diabetic retinopathy"
        said = Fact(finding=name, status="present" if grade else "absent", severity=SEVERITIES[grade], laterality=eye)
        return ToolOutput(facts=[Fact(finding=GRADE, value=float(grade), laterality=eye), said], masks=masks)


class ClassifyGlaucoma:
    """Cup and pressure into a category; without the pressure there is none."""

    name = "classify_glaucoma"
    description = "Classifies glaucoma from the cup-to-disc ratio of a fundus photograph and the intraocular pressure."
    covers = frozenset({CATEGORY, "glaucoma"})
    measures: Mapping[str, tuple[str, ...]] = {CATEGORY: CATEGORIES, RATIO: (), PRESSURE: ()}
    input: type[BaseModel] = OneEye
    output = ToolOutput

    def run(self, request: OneEye, images: Sequence[Image]) -> ToolOutput:
        image = _only(images)
        if request.pressure is None:
            raise RowError("pressure", "missing", "the question names no intraocular pressure")
        found = find_disc(image)
        eye = request.laterality or side(image)
        category = CATEGORIES[2 * (found.ratio >= LARGE_CUP) + (request.pressure > HIGH_PRESSURE)]
        facts = [
            Fact(finding=RATIO, value=round(found.ratio, 2), laterality=eye),
            Fact(finding=PRESSURE, value=request.pressure, laterality=eye),
            Fact(finding=CATEGORY, value=category, laterality=eye),
        ]
        if category in ("healthy", "glaucoma"):
            facts.append(
                Fact(finding="glaucoma", status="present" if category == "glaucoma" else "absent", laterality=eye)
            )
        return ToolOutput(facts=facts, masks={"disc": found.disc, "cup": found.cup})


class CompareEyes:
    """The difference between the cup-to-disc ratios of two photographs, one of each eye."""

    name = "compare_eyes"
    description = "Compares the cup-to-disc ratios of a right and a left eye, given two fundus photographs."
    covers = frozenset({ASYMMETRY})
    measures: Mapping[str, tuple[str, ...]] = {RATIO: (), ASYMMETRY: ()}
    input: type[BaseModel] = OneEye
    output = ToolOutput

    def run(self, request: OneEye, images: Sequence[Image]) -> ToolOutput:
        if len(images) != 2:
            raise RowError("images", "number_of_images", f"two eyes are compared, here are {len(images)} images")
        found = [(side(image), find_disc(image)) for image in images]
        if {eye for eye, _ in found} != {"OD", "OS"}:
            raise RowError("images", "same_eye", "both photographs show the same eye")
        facts = [Fact(finding=RATIO, value=round(disc.ratio, 2), laterality=eye) for eye, disc in found]
        difference = abs(found[0][1].ratio - found[1][1].ratio)
        masks = {f"disc {eye}": disc.disc for eye, disc in found}
        return ToolOutput(facts=[*facts, Fact(finding=ASYMMETRY, value=round(difference, 2))], masks=masks)


def fundus_tools() -> list[Tool]:
    """The tools of this file."""
    return [SegmentLesions(), MeasureDisc(), GradeRetinopathy(), ClassifyGlaucoma(), CompareEyes()]


def _lesion(kind: str, mask: Mask, eye: Eye) -> Fact:
    if not mask.any():
        return Fact(finding=kind, status="absent", laterality=eye)
    return Fact(finding=kind, laterality=eye, corners=corners(mask, eye), count=int(ndimage.label(mask)[1]))


def _only(images: Sequence[Any]) -> Image:
    if len(images) != 1:
        raise RowError("images", "number_of_images", f"this tool reads one image, here are {len(images)}")
    return np.asarray(images[0])


def _height(mask: Mask) -> int:
    rows = np.nonzero(mask.any(1))[0]
    return int(rows[-1] - rows[0] + 1) if len(rows) else 0


def _largest(mask: Mask) -> tuple[Mask, int]:
    labels, count = ndimage.label(mask)
    sizes = ndimage.sum_labels(mask, labels, range(1, count + 1)) if count else np.zeros(1)
    return np.asarray(labels == 1 + int(np.argmax(sizes))) & mask, int(np.max(sizes))


def _components(mask: Mask, least: float, most: float) -> Mask:
    """The connected parts of a mask whose area is in [least, most)."""
    labels, count = ndimage.label(mask)
    sizes = ndimage.sum_labels(mask, labels, range(1, count + 1)) if count else np.zeros(0)
    keep = [i + 1 for i, size in enumerate(np.atleast_1d(sizes)) if least <= size < most]
    return np.asarray(np.isin(labels, keep))
