"""Phantom fundus photographs: right and left eyes with disc, cup, fovea, vessels and lesions by quadrant.

Drawn in integers from keyed hashes, so that an image is the same on every machine and a lesion can be taken away
without moving anything else: its mask is exactly the pixels that change. Coordinates are in 1/1024 of the side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from clinalign.data.phantom.hashing import Stream, hash_grid
from clinalign.errors import UsageError

VERSION = "fundus-1"
UNIT = 1024
Laterality = Literal["OD", "OS"]
Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Circle = tuple[int, int, int]
"""Centre x, y and radius in 1/1024 of the side."""

EYES: tuple[Laterality, ...] = ("OD", "OS")
PIXELS = (64, 128)
KINDS = ("exudate", "retinal hemorrhage", "microaneurysm")
CORNERS = ("superior nasal", "superior temporal", "inferior nasal", "inferior temporal")
GRADES = ("no", "mild", "moderate", "severe")
LARGE_CUP = 60
HIGH_PRESSURE = 21
_COLOURS = {"exudate": (250, 235, 130), "retinal hemorrhage": (70, 6, 10), "microaneurysm": (80, 8, 12)}
_RADII = {"exudate": (24, 34), "retinal hemorrhage": (34, 46), "microaneurysm": (11, 12)}
_FIELD: Circle = (512, 512, 490)


@dataclass(frozen=True, slots=True)
class Lesion:
    """One group of lesions of a kind in one of `CORNERS`."""

    kind: str
    corner: str

    def __post_init__(self) -> None:
        for value, allowed in ((self.kind, KINDS), (self.corner, CORNERS)):
            if value not in allowed:
                raise UsageError(f"eye lesion: unknown {value!r}; use one of {', '.join(allowed)}")


@dataclass(frozen=True, slots=True)
class Eye:
    """What is drawn. `cup`: the vertical cup-to-disc ratio in hundredths; `pressure`: mmHg, given and not seen."""

    patient: int
    laterality: Laterality
    lesions: tuple[Lesion, ...] = ()
    cup: int = 30
    pressure: int = 15

    def __post_init__(self) -> None:
        if self.patient < 0 or self.laterality not in EYES or not 0 < self.cup < 100:
            raise UsageError(f"eye: patient={self.patient}, laterality={self.laterality!r}, cup={self.cup!r} is not an "
                             f"eye; use a number from 0 up, {' or '.join(EYES)}, hundredths of the disc")  # fmt: skip
        if len(set(self.lesions)) < len(self.lesions):
            raise UsageError(f"eye of patient {self.patient}: the same group of lesions twice; keep one of each")

    def corners(self, kind: str) -> tuple[str, ...]:
        """The corners that hold lesions of a kind, in the order of CORNERS."""
        return tuple(corner for corner in CORNERS if Lesion(kind, corner) in self.lesions)


@dataclass(frozen=True)
class Fundus:
    """A drawn eye: `image` uint8 [H, W, 3], masks bool [H, W], one a lesion; circles as elsewhere here."""

    image: Image
    laterality: Laterality
    lesions: dict[Lesion, Mask]
    disc: Circle
    cup: Circle
    fovea: tuple[int, int]
    disc_mask: Mask
    cup_mask: Mask
    vessels: Mask


def sample_eye(patient: int, laterality: Laterality) -> Eye:
    """The eye of a patient: one of four grades at equal shares, and cup and pressure independent of it."""
    stream = Stream(VERSION, "eye", patient, laterality)
    grade = stream.below(4)
    corners = _shuffled(stream)
    groups: list[Lesion] = []
    if grade == 1:
        groups += [Lesion("microaneurysm", c) for c in corners[: stream.between(1, 2)]]
    elif grade >= 2:
        bleeding = 4 if grade == 3 else stream.between(1, 2)
        groups += [Lesion("retinal hemorrhage", c) for c in corners[:bleeding]]
        exudates = _shuffled(stream)[: stream.between(1, 2)]
        groups += [Lesion("exudate", c) for c in exudates]
    cup = stream.between(25, 48) if stream.below(2) else stream.between(68, 82)
    pressure = stream.between(11, 19) if stream.below(2) else stream.between(24, 34)
    return Eye(patient, laterality, tuple(groups), cup, pressure)


def sample_groups(
    patient: int, laterality: Laterality, prevalence: float, kinds: Sequence[str] = ("exudate", "retinal hemorrhage")
) -> Eye:
    """An eye whose groups of lesions come one by one, each with the same prevalence; its cup is large in 30 %."""
    if not 0.0 <= prevalence <= 1.0:
        raise UsageError(f"sample_groups: prevalence is {prevalence}; use a share from 0 to 1")
    groups = []
    for kind in kinds:
        for corner in CORNERS:
            if Stream(VERSION, "group", patient, laterality, kind, corner).below(1_000_000) < prevalence * 1_000_000:
                groups.append(Lesion(kind, corner))
    stream = Stream(VERSION, "cup", patient, laterality)
    cup = stream.between(68, 82) if stream.below(10) < 3 else stream.between(25, 48)
    return Eye(patient, laterality, tuple(groups), cup)


def grade(eye: Eye) -> int:
    """The phantoms' retinopathy grade: 0 nothing, 1 microaneurysms alone, 2 more, 3 bleeding in all four quadrants."""
    kinds = {lesion.kind for lesion in eye.lesions}
    bleeding = {lesion.corner for lesion in eye.lesions if lesion.kind == "retinal hemorrhage"}
    return 0 if not kinds else 1 if kinds == {"microaneurysm"} else 3 if len(bleeding) == len(CORNERS) else 2


def glaucoma(eye: Eye) -> str:
    """The phantoms' category: a large cup with high pressure is glaucoma, one alone is suspect or hypertension."""
    large, high = eye.cup >= LARGE_CUP, eye.pressure > HIGH_PRESSURE
    return {(True, True): "glaucoma", (True, False): "suspect", (False, True): "hypertension"}.get(
        (large, high), "healthy"
    )


def regions(eye: Eye, kind: str) -> tuple[str, ...]:
    """The halves of the image in which a kind of lesion lies, in alphabetical order, as the benchmark cuts them."""
    return tuple(sorted({half for lesion in eye.lesions if lesion.kind == kind for half in lesion.corner.split()}))


def halves(mask: Mask, laterality: Laterality) -> tuple[str, ...]:
    """The halves that a mask touches, cut at the image centre: nasal is right of it in a right eye (OD), left in OS."""
    rows, columns = np.nonzero(mask)
    upper, left = rows < mask.shape[0] // 2, columns < mask.shape[1] // 2
    nasal = left if laterality == "OS" else ~left
    touched = {"Superior": upper, "Inferior": ~upper, "Nasal": nasal, "Temporal": ~nasal}
    return tuple(sorted(name for name, inside in touched.items() if inside.any()))


def draw_fundus(eye: Eye, px: int = 128) -> Fundus:
    """The image [px, px, 3] with exact masks, 64 or 128 pixels a side."""
    if px not in PIXELS:
        raise UsageError(f"draw_fundus: px={px} is not supported; use 64 or 128")
    disc, cup, fovea = _anatomy(eye)
    grid = _grid(px)
    vessels = _vessels(eye, grid, disc)
    image = _compose(eye, grid, vessels, eye.lesions)
    masks = {
        lesion: (image != _compose(eye, grid, vessels, [other for other in eye.lesions if other != lesion])).any(-1)
        for lesion in eye.lesions
    }
    return Fundus(image, eye.laterality, masks, disc, cup, fovea, _inside(grid, disc), _inside(grid, cup), vessels)


def counterfactual(eye: Eye, lesion: Lesion, px: int = 128) -> Image:
    """The same eye without one group of lesions; every other pixel as it was."""
    if lesion not in eye.lesions:
        raise UsageError(f"eye of patient {eye.patient}: no {lesion.kind} in the {lesion.corner} corner to remove")
    return draw_fundus(replace(eye, lesions=tuple(other for other in eye.lesions if other != lesion)), px).image


def _shuffled(stream: Stream) -> list[str]:
    corners = list(CORNERS)
    for i in range(len(corners) - 1, 0, -1):
        j = stream.below(i + 1)
        corners[i], corners[j] = corners[j], corners[i]
    return corners


Grid = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def _grid(px: int) -> Grid:
    centre = (2 * np.arange(px, dtype=np.int64) + 1) * (UNIT // 2) // px
    return centre[None, :], centre[:, None]


def _inside(grid: Grid, circle: Circle) -> Mask:
    x, y = grid
    return np.asarray((x - circle[0]) ** 2 + (y - circle[1]) ** 2 <= circle[2] ** 2)


def _nasal(laterality: Laterality) -> int:
    """The sign of x on the nasal side."""
    return 1 if laterality == "OD" else -1


def _anatomy(eye: Eye) -> tuple[Circle, Circle, tuple[int, int]]:
    stream = Stream(VERSION, "anatomy", eye.patient, eye.laterality)
    side = _nasal(eye.laterality)
    x, y = 512 + side * (200 + stream.between(-12, 12)), 512 + stream.between(-16, 16)
    radius = stream.between(92, 104)
    cup = (x, y, radius * eye.cup // 100)
    return (x, y, radius), cup, (512 - side * (150 + stream.between(-10, 10)), 520 + stream.between(-8, 8))


def _vessels(eye: Eye, grid: Grid, disc: Circle) -> Mask:
    """Four arcades out of the disc, up and down, to the nasal edge and around the fovea."""
    stream = Stream(VERSION, "vessels", eye.patient, eye.laterality)
    side = _nasal(eye.laterality)
    mask = np.zeros((grid[1].shape[0], grid[0].shape[1]), dtype=np.bool_)
    for up in (-1, 1):
        for reach, rise in ((-560, 330), (190, 300)):  # temporal, nasal
            bend = rise + stream.between(-30, 30)
            for step in range(65):
                t = step * 16
                x = disc[0] + side * reach * t // UNIT
                y = disc[1] + up * (bend * t * (2 * UNIT - t) // UNIT // UNIT)
                mask |= _inside(grid, (x, y, 9 - step // 16))
    return mask & _inside(grid, _FIELD)


def _compose(eye: Eye, grid: Grid, vessels: Mask, lesions: Sequence[Lesion]) -> Image:
    """Background, fovea, disc and cup, vessels, lesions on top; noise last, the same whatever is drawn."""
    x, y = grid
    disc, cup, fovea = _anatomy(eye)
    far = ((x - 512) ** 2 + (y - 512) ** 2) * 40 // (490 * 490)
    image = np.stack([205 - far, 95 - far // 2, 45 - far // 4], axis=-1)
    near = (x - fovea[0]) ** 2 + (y - fovea[1]) ** 2
    shade = np.maximum(0, 40 - near * 40 // (95 * 95))
    image = image - np.stack([shade, shade // 2, shade // 3], axis=-1)
    for circle, colour in ((disc, (240, 190, 110)), (cup, (252, 236, 196))):
        image[_inside(grid, circle)] = colour
    image[vessels] = (150, 38, 30)
    for lesion in sorted(lesions, key=lambda one: KINDS.index(one.kind), reverse=True):  # exudates uppermost
        for blob in _blobs(eye, lesion):
            image[_inside(grid, blob)] = _COLOURS[lesion.kind]
    noise = (hash_grid(len(image), VERSION, "noise", eye.patient, eye.laterality) % np.uint64(9)).astype(np.int64) - 4
    image = np.clip(image + noise[..., None], 0, 255)
    image[~_inside(grid, _FIELD)] = 0
    return image.astype(np.uint8)


def _blobs(eye: Eye, lesion: Lesion) -> list[Circle]:
    """Where the spots of a group lie: inside their corner, off the centre lines."""
    stream = Stream(VERSION, "lesion", eye.patient, eye.laterality, lesion.kind, lesion.corner)
    vertical, horizontal = lesion.corner.split()
    side = _nasal(eye.laterality) * (1 if horizontal == "nasal" else -1)
    up = -1 if vertical == "superior" else 1
    low, high = _RADII[lesion.kind]
    inner = {"exudate": 100, "retinal hemorrhage": 190, "microaneurysm": 120}[lesion.kind]
    return [
        (
            512 + side * (inner + stream.between(0, 110)),
            512 + up * (160 + stream.between(0, 130)),
            stream.between(low, high),
        )
        for _ in range(stream.between(2, 4))
    ]
