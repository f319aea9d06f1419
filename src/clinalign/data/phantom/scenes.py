"""Scenes of phantom-2: a patient of a hospital with findings at one rung of a ladder of visibility.

Drawn by the code of phantom-1 (`draw`, `layers`, `lesions`) with three parameters more: how strong findings are, how
large, and what the hospital does to the picture. A pure function of (patient, findings, hospital, rung, px) in whole
numbers. These are phantoms: nothing here is clinical.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from clinalign.data.phantom.anatomy import FIELD, FULL, GREY, Anatomy, Ints, anatomy, axis, ramp
from clinalign.data.phantom.cases import KINDS, PIXELS, Case, Finding, Render, sample_case
from clinalign.data.phantom.draw import draw_body
from clinalign.data.phantom.hashing import Stream
from clinalign.data.phantom.layers import Layers, layers_of
from clinalign.errors import UsageError, nearest

VERSION = "phantom-2"

RUNGS = ((256, 256), (160, 248), (104, 236), (66, 224), (42, 210))
"""Contrast and scale (of 256) of each rung, the most visible first. Small and large stay apart at every scale."""


@dataclass(frozen=True, slots=True)
class Hospital:
    """What a hospital's pictures have in common.

    `contrast`, `noise`: per cent of the patient's own; `brightness`: grey levels added; `markers`: a side letter and
    wires on the picture; `mix`: the share of patients with each finding.
    """

    name: str
    contrast: int
    brightness: int
    noise: int
    markers: bool
    mix: Mapping[str, float]


HOSPITALS = {
    "home": Hospital("home", 100, 0, 100, False, dict.fromkeys(KINDS, 0.36)),
    "elsewhere": Hospital(
        "elsewhere", 80, 14, 150, True,
        dict(zip(KINDS, (0.24, 0.48, 0.28, 0.46, 0.30, 0.44), strict=True)),
    ),
}  # fmt: skip
"""`elsewhere` is never trained on."""

SPLITS = {"base": 0, "align": 1, "dev": 2, "test": 3, "elsewhere": 4}
"""Number of each split's block of patients. `elsewhere` is of the other hospital, all others are at home."""
FIRST, BLOCK, DRAW = 10_000_000, 1_000_000, 10_000_000


@dataclass(frozen=True, slots=True)
class Scene:
    """A patient number, at most one finding a kind, the hospital's name and the number of the rung."""

    patient: int
    findings: tuple[Finding, ...] = ()
    hospital: str = "home"
    rung: int = 0

    def __post_init__(self) -> None:
        Case(self.patient, self.findings)  # refuses a negative patient and two findings of a kind
        if self.hospital not in HOSPITALS:
            hint = nearest(self.hospital, HOSPITALS)
            raise UsageError(f"scene: unknown hospital {self.hospital!r}; use one of {', '.join(HOSPITALS)}{hint}")
        if not 0 <= self.rung < len(RUNGS):
            raise UsageError(f"scene: rung={self.rung} is not on the ladder; use 0 to {len(RUNGS) - 1}")

    def find(self, kind: str) -> Finding | None:
        """The finding of a kind, or None."""
        return next((finding for finding in self.findings if finding.kind == kind), None)


def split_patients(split: str, count: int, start: int = 0, draw: int = 0) -> range:
    """`count` patient numbers of a split from its `start`-th on; every `draw` has patients of its own.

    Raises UsageError for an unknown split and for numbers outside its block.
    """
    if split not in SPLITS:
        raise UsageError(f"phantom-2 split {split!r}: use one of {', '.join(SPLITS)}{nearest(split, SPLITS)}")
    if min(start, count, draw) < 0 or start + count > BLOCK:
        raise UsageError(f"phantom-2 split {split!r}: patients {start} to {start + count} do not fit in {BLOCK}")
    first = FIRST + draw * DRAW + SPLITS[split] * BLOCK + start
    return range(first, first + count)


def split_of(patient: int) -> str:
    """The split that owns a patient number; UsageError if none does."""
    number = (patient - FIRST) % DRAW // BLOCK
    if patient < FIRST or number >= len(SPLITS):
        raise UsageError(f"patient {patient} is in no split of phantom-2; use split_patients()")
    return list(SPLITS)[number]


def sample_scene(patient: int, rung: int | None = None, rungs: Sequence[int] = tuple(range(len(RUNGS)))) -> Scene:
    """The scene of a patient number: findings by its hospital's mix; the rung uniform among `rungs` unless given."""
    hospital = HOSPITALS["elsewhere" if split_of(patient) == "elsewhere" else "home"]
    case = sample_case(patient, prevalence=hospital.mix)
    if rung is None:
        rung = rungs[Stream(patient, "rung").below(len(rungs))]
    return Scene(patient, case.findings, hospital.name, rung)


def sample_scenes(
    split: str, count: int, *, start: int = 0, draw: int = 0, rungs: Sequence[int] = tuple(range(len(RUNGS)))
) -> Iterator[Scene]:
    """The scenes of a split's patients, on some of the rungs."""
    return (sample_scene(patient, rungs=rungs) for patient in split_patients(split, count, start, draw))


def render_scene(scene: Scene, px: int = 64) -> Render:
    """Draw a scene at 32, 64 or 128 pixels a side.

    A finding's mask holds exactly the pixels in which the image differs from that of the scene without it.
    """
    if px not in PIXELS:
        raise UsageError(f"render_scene: px={px} is not supported; use 32, 64 or 128")
    body, parts = _body(scene.patient, scene.hospital, px)
    contrast, scale = RUNGS[scene.rung]
    image, masks = draw_body(body, parts, scene.findings, px, contrast, scale)
    return Render(image, masks)


def without(scene: Scene, kind: str) -> Scene:
    """The counterfactual scene: the same patient, noise and rung, the finding of a kind removed."""
    kept = tuple(finding for finding in scene.findings if finding.kind != kind)
    if len(kept) == len(scene.findings):
        raise UsageError(f"scene {scene.patient} has no {kind!r} to remove; it has {[f.kind for f in scene.findings]}")
    return replace(scene, findings=kept)


def changed(scene: Scene, finding: Finding) -> Scene:
    """The counterfactual scene in which the finding of a kind is another one, or is added."""
    rest = tuple(other for other in scene.findings if other.kind != finding.kind)
    return replace(scene, findings=tuple(sorted((*rest, finding), key=lambda f: KINDS.index(f.kind))))


@lru_cache(maxsize=8)
def _body(patient: int, hospital: str, px: int) -> tuple[Anatomy, Layers]:
    """Body and layers of a patient as a hospital takes the picture."""
    body, place = anatomy(patient), HOSPITALS[hospital]
    body = replace(
        body, contrast=body.contrast * place.contrast // 100, brightness=body.brightness + place.brightness,
        noise=body.noise * place.noise // 100,
    )  # fmt: skip
    parts = layers_of(body, px)
    return body, replace(parts, over=parts.over + markers(patient, px)) if place.markers else parts


LETTERS = {"L": ("100", "100", "100", "100", "111"), "R": ("110", "101", "110", "101", "101")}
"""Side letters as 3 x 5 cells."""


def markers(patient: int, px: int) -> Ints:
    """[px, px] grey that a side letter beside the neck and two wires across the chest add."""
    draw = Stream(patient, "markers")
    x, y = axis(px)[None, :], axis(px)[:, None]
    out = np.zeros((px, px), dtype=np.int64)
    side, cell = draw.pick(("L", "R")), 90
    left = (3480 if side == "L" else 340) + draw.between(-60, 60)  # the patient's left is at image right
    top = draw.between(150, 330)
    for row, line in enumerate(LETTERS[side]):
        for column, bit in enumerate(line):
            if bit == "1":
                inside = ramp(cell // 2 - abs(x - left - column * cell), 40) * ramp(
                    cell // 2 - abs(y - top - row * cell), 40
                )
                out = np.maximum(out, inside // FULL * 120)
    for _ in range(2):
        start, slope = draw.between(900, FIELD - 1200), draw.between(-500, 500)
        wire = ramp(34 - abs(y - start - (x - FIELD // 2) * slope // 1024), max(50, FIELD // px))
        out = np.maximum(out, wire * 44)
    return out * GREY // FULL
