"""Phantom stacks of slices: an axial chest volume with at most one nodule over some slices, and it without.

Slices run from the apex (0) to the base; lengths are in 1/4096 of a slice's side, along the axis in 1/4096 of the
stack. Values are in Hounsfield units, so windows mean what they mean on a scanner; `window` makes grey pictures of
them. A pure function of (patient, nodule, slices, px) in whole numbers. The patient's left is at image right. Nothing
here is clinical.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt

import numpy as np
import numpy.typing as npt

from clinalign.data.phantom.anatomy import FIELD, FULL, Ints, axis, ramp
from clinalign.data.phantom.cases import PIXELS, SIDES, SIZES, ZONES
from clinalign.data.phantom.hashing import Stream
from clinalign.data.phantom.layers import smooth_noise
from clinalign.errors import UsageError

AIR, LUNG, FAT, SOFT, NODULE, BONE = -1000, -840, -90, 45, 30, 520
FEWEST, MOST = 4, 64
LUNG_WINDOW, SOFT_WINDOW = (-1350, 150), (-135, 215)


@dataclass(frozen=True, slots=True)
class SolidNodule:
    """A ball in a lung: the patient's side, the zone (a third of the lung along the axis), small or large."""

    side: str
    zone: str
    size: str

    def __post_init__(self) -> None:
        for value, allowed in ((self.side, SIDES), (self.zone, ZONES), (self.size, SIZES)):
            if value not in allowed:
                raise UsageError(f"nodule of a volume: {value!r} is not allowed; use one of {', '.join(allowed)}")


@dataclass(frozen=True, slots=True)
class Volume:
    """A patient number (>= 0), the number of slices and the nodule, if there is one."""

    patient: int
    slices: int = 16
    nodule: SolidNodule | None = None

    def __post_init__(self) -> None:
        if self.patient < 0 or not FEWEST <= self.slices <= MOST:
            raise UsageError(f"volume: patient={self.patient}, slices={self.slices}; use a patient from 0 up and "
                             f"{FEWEST} to {MOST} slices")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stack:
    """`hounsfield`: int16 [slices, px, px]; `mask`: bool, where it differs from the volume without the nodule."""

    hounsfield: npt.NDArray[np.int16]
    mask: npt.NDArray[np.bool_]

    def touched(self) -> tuple[int, ...]:
        """The slices that show the nodule."""
        return tuple(int(i) for i in np.flatnonzero(self.mask.any(axis=(1, 2))))


def sample_volume(patient: int, slices: int = 16, prevalence: float = 0.5) -> Volume:
    """A random volume, deterministic in the patient number."""
    if not 0.0 <= prevalence <= 1.0:
        raise UsageError(f"sample_volume: prevalence is {prevalence}; use a share from 0 to 1")
    draw = Stream(patient, "volume")
    there = draw.below(1_000_000) < prevalence * 1_000_000
    nodule = SolidNodule(draw.pick(SIDES), draw.pick(ZONES), draw.pick(SIZES))
    return Volume(patient, slices, nodule if there else None)


def without_nodule(volume: Volume) -> Volume:
    """The counterfactual volume: the same patient and noise, no nodule. UsageError if there is none."""
    if volume.nodule is None:
        raise UsageError(f"volume of patient {volume.patient} has no nodule to remove")
    return replace(volume, nodule=None)


def render_volume(volume: Volume, px: int = 64) -> Stack:
    """Draw a volume with slices of 32, 64 or 128 pixels a side; the mask is exact."""
    if px not in PIXELS:
        raise UsageError(f"render_volume: px={px} is not supported; use 32, 64 or 128")
    plain = np.stack([_slice(volume, index, px) for index in range(volume.slices)])
    if volume.nodule is None:
        return Stack(plain.astype(np.int16), np.zeros(plain.shape, dtype=np.bool_))
    cover = nodule_cover(volume, px)
    drawn = plain + (NODULE - plain) * cover // FULL
    return Stack(drawn.astype(np.int16), drawn != plain)


def window(hounsfield: npt.NDArray[np.int16], low: int, high: int) -> npt.NDArray[np.uint8]:
    """Grey levels of a window: `low` and under 0, `high` and over 255. UsageError unless low < high."""
    if low >= high:
        raise UsageError(f"window {low} to {high}: the lower end must be under the upper one")
    levels = np.clip(hounsfield.astype(np.int64) - low, 0, high - low) * 255
    return (levels // (high - low)).astype(np.uint8)


def depth(volume: Volume, index: int) -> int:
    """Where the middle of a slice lies along the axis, 0 (apex) to 4096 (base)."""
    return (2 * index + 1) * FIELD // (2 * volume.slices)


def _ellipse(px: int, centre: tuple[int, int], half: tuple[int, int], edge: int) -> Ints:
    """[px, px] coverage of an ellipse."""
    x, y = axis(px)[None, :] - centre[0], axis(px)[:, None] - centre[1]
    inside = FULL - x * x * FULL // (half[0] * half[0]) - y * y * FULL // (half[1] * half[1])
    return ramp(inside * min(half) // (2 * FULL), edge)


def _slice(volume: Volume, index: int, px: int) -> Ints:
    """One slice without nodule, in Hounsfield units: skin, fat, chest wall, lungs, heart, vertebra, vessels, noise."""
    draw, z = Stream(volume.patient, "body"), depth(volume, index)
    edge, middle = max(60, FIELD // px), FIELD // 2 + draw.between(-50, 50)
    wide, deep = draw.between(1700, 1850), draw.between(1180, 1320)
    out = np.full((px, px), AIR, dtype=np.int64)

    def lay(value: int, cover: Ints) -> None:
        out[...] += (value - out) * cover // FULL

    lay(FAT, _ellipse(px, (middle, 2100), (wide, deep), edge))
    lay(SOFT, _ellipse(px, (middle, 2100), (wide - 140, deep - 130), edge))
    for sign in (-1, 1):
        centre, half = lung_shape(volume, sign, z)
        lay(LUNG, _ellipse(px, (middle + sign * centre[0], centre[1]), half, edge))
        vessel = Stream(volume.patient, "vessels", sign + 1)
        for _ in range(7):
            u, v = vessel.between(-550, 550), vessel.between(-600, 600)
            if u * u * FULL // half[0] ** 2 + v * v * FULL // half[1] ** 2 < FULL * 6 // 10:
                lay(
                    SOFT,
                    _ellipse(px, (middle + sign * (centre[0] + u * z // FIELD), centre[1] + v), (34, 34), edge) // 2,
                )
    big = max(0, 620 - abs(z - 2900) * 620 // 1300)
    if big > 150:
        lay(SOFT, _ellipse(px, (middle + 200, 1900), (big + 120, big), edge))
    lay(BONE, _ellipse(px, (middle, 2900), (190, 170), edge))
    return out + (smooth_noise(64, px, Stream(volume.patient, "noise", index).bits() >> 1) * 14) // 256


def lung_shape(volume: Volume, sign: int, z: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Centre (distance from the midline, y) and half axes of a lung at a depth; it narrows towards the apex."""
    draw = Stream(volume.patient, "lungs", sign + 1)
    narrow = isqrt(max(0, 2600 * 2600 - max(0, 2600 - z) ** 2)) * FULL // 2600
    half_u = max(200, (draw.between(600, 680)) * narrow // FULL)
    half_v = max(260, (draw.between(900, 1000)) * narrow // FULL)
    return (draw.between(930, 990), 2060), (half_u, half_v)


def nodule_cover(volume: Volume, px: int) -> Ints:
    """[slices, px, px] coverage of the nodule: a ball that at least one slice shows, inside its lung and its zone."""
    nodule = volume.nodule
    assert nodule is not None
    draw = Stream(volume.patient, "nodule of the volume")
    sign = 1 if nodule.side == "left" else -1
    third = ZONES.index(nodule.zone)
    radius = draw.between(230, 280) if nodule.size == "small" else draw.between(400, 470)
    z0 = 700 + third * 1100 + draw.between(350, 700)
    z0 = depth(volume, min(range(volume.slices), key=lambda index: abs(depth(volume, index) - z0)))
    centre, half = lung_shape(volume, sign, z0)
    middle = FIELD // 2 + Stream(volume.patient, "body").between(-50, 50)
    u, v = draw.between(-30, 60), draw.between(-45, 45)
    x0, y0 = middle + sign * (centre[0] + u * max(0, half[0] - radius) // 100), centre[1] + v * half[1] // 100
    x, y = axis(px)[None, :] - x0, axis(px)[:, None] - y0
    z = np.array([depth(volume, index) for index in range(volume.slices)], dtype=np.int64)[:, None, None] - z0
    away = x * x + y * y + z * z * 2 // 5  # slices lie closer than a stack's side is wide
    return np.clip((radius * radius - away) * 3 * FULL // (radius * radius), 0, FULL)
