"""Phantom fundus photographs: disc, cup, fovea and vessels of either eye, exudates and haemorrhages by quadrant.

A pure function of (patient, side, lesions, cup, px) in whole numbers; units as in `anatomy`. Quadrants are cut at the
image's centre; the disc lies on the nasal side, which is the image's right in a right eye (OD) and its left in a left
eye (OS). The eyes of one patient share their colours and differ in their vessels. These are phantoms: nothing here is
clinical.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from clinalign.data.phantom.anatomy import FIELD, FULL, GREY, Ints, axis, ramp
from clinalign.data.phantom.cases import PIXELS
from clinalign.data.phantom.hashing import Stream
from clinalign.data.phantom.layers import smooth_noise
from clinalign.errors import UsageError

EYES = ("OD", "OS")
LESIONS = ("exudates", "haemorrhages")
QUADRANTS = ("superotemporal", "superonasal", "inferotemporal", "inferonasal")
CUPS = ("normal", "large")
CENTRE, RADIUS = FIELD // 2, 1930  # of the field of view
DISC_AWAY, DISC_RADIUS = 1020, 330
SPOTS = {"exudates": (5, 9), "haemorrhages": (3, 6)}
SPOT_RADIUS = {"exudates": (52, 88), "haemorrhages": (80, 135)}
COLOURS = {
    "retina": (190, 92, 44), "disc": (238, 190, 112), "cup": (250, 226, 176), "fovea": (140, 52, 24),
    "vessel": (138, 34, 22), "exudates": (246, 220, 112), "haemorrhages": (104, 18, 14),
}  # fmt: skip

Mask = npt.NDArray[np.bool_]
_SQUARES = np.arange(2 * FIELD, dtype=np.int64) ** 2


@dataclass(frozen=True, slots=True)
class EyeLesion:
    """A group of spots of one kind in one quadrant. Raises UsageError for anything else."""

    kind: str
    quadrant: str

    def __post_init__(self) -> None:
        for value, allowed in ((self.kind, LESIONS), (self.quadrant, QUADRANTS)):
            if value not in allowed:
                raise UsageError(f"eye lesion: unknown {value!r}; use one of {', '.join(allowed)}")


@dataclass(frozen=True, slots=True)
class Eye:
    """One eye of a patient (number >= 0): OD or OS, groups of lesions (each at most once), cup normal or large."""

    patient: int
    side: str
    lesions: tuple[EyeLesion, ...] = ()
    cup: str = "normal"

    def __post_init__(self) -> None:
        if self.patient < 0 or self.side not in EYES or self.cup not in CUPS:
            raise UsageError(f"eye: patient={self.patient}, side={self.side!r}, cup={self.cup!r} is not an eye; "
                             f"use a number from 0 up, {' or '.join(EYES)}, {' or '.join(CUPS)}")  # fmt: skip
        if len(set(self.lesions)) < len(self.lesions):
            raise UsageError(f"eye of patient {self.patient}: the same group of lesions twice; keep one of each")

    def quadrants(self, kind: str) -> tuple[str, ...]:
        """The quadrants that hold lesions of a kind, in the order of QUADRANTS."""
        return tuple(q for q in QUADRANTS if EyeLesion(kind, q) in self.lesions)


@dataclass(frozen=True, slots=True)
class EyeRender:
    """`image`: uint8 [px, px, 3]; `masks`: one bool [px, px] per lesion, in their order; the others: bool [px, px]."""

    image: npt.NDArray[np.uint8]
    masks: tuple[Mask, ...]
    disc: Mask
    fovea: Mask
    vessels: Mask


def sample_eye(patient: int, side: str, prevalence: float = 0.3) -> Eye:
    """A random eye, deterministic in patient and side: every group with the same prevalence, the cup large in 30 %."""
    if not 0.0 <= prevalence <= 1.0:
        raise UsageError(f"sample_eye: prevalence is {prevalence}; use a share from 0 to 1")
    groups = [EyeLesion(kind, quadrant) for kind in LESIONS for quadrant in QUADRANTS]
    drawn = [Stream(patient, side, g.kind, g.quadrant).below(1_000_000) < prevalence * 1_000_000 for g in groups]
    cup = "large" if Stream(patient, side, "cup").below(10) < 3 else "normal"
    return Eye(patient, side, tuple(g for g, there in zip(groups, drawn, strict=True) if there), cup)


def without_lesion(eye: Eye, lesion: EyeLesion) -> Eye:
    """The counterfactual eye: everything the same, one group of lesions gone."""
    if lesion not in eye.lesions:
        raise UsageError(f"eye of patient {eye.patient}: no {lesion.kind} in the {lesion.quadrant} quadrant to remove")
    return replace(eye, lesions=tuple(other for other in eye.lesions if other != lesion))


def render_eye(eye: Eye, px: int = 64) -> EyeRender:
    """Draw an eye at 32, 64 or 128 pixels a side.

    A lesion group's mask holds exactly the pixels in which the image differs from that of the eye without the group.
    """
    if px not in PIXELS:
        raise UsageError(f"render_eye: px={px} is not supported; use 32, 64 or 128")
    ground = _ground(eye.patient, eye.side, eye.cup, px)
    covers = {lesion: _spots(eye, lesion, px) for lesion in eye.lesions}
    image = _paint(ground.grey, covers, eye.lesions)
    masks = tuple(
        (image != _paint(ground.grey, covers, without_lesion(eye, lesion).lesions)).any(axis=2)
        for lesion in eye.lesions
    )
    return EyeRender(image, masks, ground.disc, ground.fovea, ground.vessels)


@dataclass(frozen=True, slots=True)
class _Ground:
    grey: Ints  # [3, px, px], in 1/256 of a level
    disc: Mask
    fovea: Mask
    vessels: Mask


def _outward(side: str) -> int:
    """+1 where the nasal side is at image right."""
    return 1 if side == "OD" else -1


@lru_cache(maxsize=16)
def _ground(patient: int, side: str, cup: str, px: int) -> _Ground:
    """The eye without lesions; shared between calls: read-only."""
    tone, draw = Stream(patient, "retina"), Stream(patient, side, "eye")
    x, y = axis(px)[None, :], axis(px)[:, None]
    nasal, edge = _outward(side), max(60, FIELD // px)
    disc_x, disc_y = CENTRE + nasal * (DISC_AWAY + draw.between(-60, 60)), CENTRE + draw.between(-110, 60)
    radius = DISC_RADIUS + draw.between(-25, 25)
    ratio = draw.between(66, 80) if cup == "large" else draw.between(28, 42)
    disc, inner = (
        ramp(r - _root((x - disc_x) ** 2 + (y - disc_y) ** 2), edge) for r in (radius, radius * ratio // 100)
    )
    fovea_y = disc_y + draw.between(60, 160)
    fovea = np.clip(FULL - ((x - CENTRE + nasal * 90) ** 2 + (y - fovea_y) ** 2) * FULL // 240**2, 0, FULL)
    vessels = _vessels(draw, nasal * (disc_x - x), y - disc_y, edge) * (2 * FULL - disc) // (2 * FULL)
    shade = tone.between(-14, 14)
    mottle = smooth_noise(8, px, draw.bits()) // 2 * 5 + smooth_noise(64, px, draw.bits()) * 3
    fall = ((x - CENTRE) ** 2 + (y - CENTRE) ** 2) * 34 * GREY // RADIUS**2
    seen = ramp(RADIUS - _root((x - CENTRE) ** 2 + (y - CENTRE) ** 2), edge)
    layers = []
    for channel in range(3):
        grey = (COLOURS["retina"][channel] + shade) * GREY + mottle - fall
        for name, cover in (
            ("fovea", fovea * 190 // FULL),
            ("disc", disc),
            ("cup", inner),
            ("vessel", vessels * 200 // FULL),
        ):
            grey = grey + (COLOURS[name][channel] * GREY - grey) * cover // FULL
        layers.append(grey * seen // FULL)
    made = _Ground(
        np.stack(layers), disc >= FULL // 2, fovea >= FULL // 2, (vessels >= FULL // 2) & (seen >= FULL // 2)
    )
    for array in (made.grey, made.disc, made.fovea, made.vessels):
        array.flags.writeable = False
    return made


def _root(squares: Ints) -> Ints:
    """Whole square roots, rounded down, of whole numbers up to 2 * FIELD squared; no float is used."""
    return np.searchsorted(_SQUARES, squares, side="right") - 1


def _vessels(draw: Stream, u: Ints, v: Ints, edge: int) -> Ints:
    """Arcades out of the disc: parabolas v² = c·u, two to the temporal side and two to the nasal on each half.

    `u` is the distance from the disc towards the temporal side, `v` downwards; both grow thinner outwards.
    """
    cover = np.zeros(np.broadcast(u, v).shape, dtype=np.int64)
    for half in (-1, 1):
        for along, bends in ((1, (620, 1500)), (-1, (700, 1900))):
            for bend in bends:
                c = bend + draw.between(-120, 120)
                reach = along * u
                away = abs(v * v - c * np.maximum(reach, 0)) // (c + 2 * abs(v) + 1) * 2
                half_width = np.maximum(14, 62 - abs(u) // 34 - (bend > 1000) * 14)
                inside = (reach > -40) & (v * half > -30)
                cover = np.maximum(cover, np.where(inside, ramp(half_width - away, edge), 0))
    return cover


def _spots(eye: Eye, lesion: EyeLesion, px: int) -> Ints:
    """[px, px] coverage of a group: spots wholly inside their quadrant and the field of view, and off the disc."""
    draw = Stream(eye.patient, eye.side, lesion.kind, lesion.quadrant, "spots")
    x, y = axis(px)[None, :], axis(px)[:, None]
    up = -1 if lesion.quadrant.startswith("superior") or lesion.quadrant.startswith("supero") else 1
    out = _outward(eye.side) * (1 if lesion.quadrant.endswith("nasal") else -1)
    middle_u, middle_v = draw.between(500, 1080), draw.between(480, 980)
    cover = np.zeros((px, px), dtype=np.int64)
    left = draw.between(*SPOTS[lesion.kind])
    for _ in range(200):
        radius = draw.between(*SPOT_RADIUS[lesion.kind])
        margin = radius + 2 * FIELD // px  # no pixel of it reaches the middle lines
        u, v = middle_u + draw.between(-420, 420), middle_v + draw.between(-420, 420)
        nasal = lesion.quadrant.endswith("nasal")
        on_disc = nasal and (u - DISC_AWAY) ** 2 + v * v < (DISC_RADIUS + 160 + radius) ** 2
        if min(u, v) < margin or u * u + v * v > (RADIUS - 2 * margin) ** 2 or on_disc:
            continue
        spot = ramp(radius * radius - (x - CENTRE - out * u) ** 2 - (y - CENTRE - up * v) ** 2, radius * radius)
        cover = np.maximum(cover, spot)
        left -= 1
        if not left:
            break
    return cover


def _paint(grey: Ints, covers: dict[EyeLesion, Ints], lesions: Sequence[EyeLesion]) -> npt.NDArray[np.uint8]:
    """[px, px, 3]: haemorrhages first, exudates over them; the order of `lesions` does not matter."""
    out = []
    for channel in range(3):
        layer = grey[channel]
        for kind in ("haemorrhages", "exudates"):
            colour = COLOURS[kind][channel] * GREY
            for quadrant in QUADRANTS:
                if EyeLesion(kind, quadrant) in lesions:
                    layer = layer + (colour - layer) * covers[EyeLesion(kind, quadrant)] // FULL
        out.append(np.clip(layer // GREY, 0, 255))
    return np.stack(out, axis=2).astype(np.uint8)
