"""One phantom patient: the shape of chest, lungs, heart and diaphragm, all in whole numbers.

Lengths are in units of 1/4096 of the image's side, grey values in 1/256 of a level, coverages from 0 to 256. `u` is the
distance from the patient's midline outwards, so one formula draws both sides. Only integer arithmetic is used, which
makes every array equal on every machine.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import isqrt

import numpy as np
import numpy.typing as npt

from clinalign.data.phantom.hashing import Stream

Ints = npt.NDArray[np.int64]

FIELD = 4096
FULL = 256  # a coverage of one
GREY = 256  # one grey level


@dataclass(frozen=True, slots=True)
class Lung:
    """One lung. `sign` is +1 for the patient's left (image right); the others are lengths in units.

    `apex`, `dome` and `angle` are the y of the lung's top, of the diaphragm's top and of the costophrenic angle;
    `heart` and `big_heart` are how far the heart reaches from the midline without and with cardiomegaly.
    """

    sign: int
    width: int
    apex: int
    dome: int
    angle: int
    tip: int
    heart: int
    big_heart: int


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What varies between patients; `right` and `left` are the patient's sides."""

    patient: int
    midline: int
    right: Lung
    left: Lung
    mediastinum: int
    knob: int
    heart_y: int
    wall: int
    rib_period: int
    rib_phase: int
    rib_level: int
    lung_level: int
    contrast: int
    brightness: int
    noise: int

    def lung(self, side: str) -> Lung:
        """The lung of the patient's "left" or "right" side."""
        return self.left if side == "left" else self.right

    def zone(self, side: str, zone: str) -> tuple[int, int]:
        """The y range of a zone: a third of the height from the apex to midway between dome and angle."""
        lung = self.lung(side)
        height = (lung.dome + lung.angle) // 2 - lung.apex
        third = ("upper", "middle", "lower").index(zone)
        return lung.apex + third * height // 3, lung.apex + (third + 1) * height // 3


@lru_cache(maxsize=64)
def anatomy(patient: int) -> Anatomy:
    """The anatomy of a patient number."""
    draw = Stream(patient, "anatomy")
    apex, dome = draw.between(400, 560), draw.between(2740, 2940)
    width = draw.between(1420, 1640)
    ratio, big_ratio = draw.between(395, 475), draw.between(545, 620)  # cardiothoracic, in thousandths
    share = draw.between(640, 700)  # of the heart that lies left of the midline, in thousandths
    lungs = {}
    for sign in (-1, 1):
        low = dome + (draw.between(60, 130) if sign > 0 else 0)
        own = share if sign > 0 else 1000 - share
        lungs[sign] = Lung(
            sign=sign, width=width + draw.between(-40, 40), apex=apex + draw.between(-25, 25), dome=low,
            angle=low + draw.between(430, 520), tip=draw.between(560, 660),
            heart=2 * width * ratio * own // 1_000_000, big_heart=2 * width * big_ratio * own // 1_000_000,
        )  # fmt: skip
    return Anatomy(
        patient=patient, midline=FIELD // 2 + draw.between(-70, 70), right=lungs[-1], left=lungs[1],
        mediastinum=draw.between(250, 320), knob=draw.between(380, 460), heart_y=dome - draw.between(230, 330),
        wall=draw.between(180, 320), rib_period=draw.between(285, 335), rib_phase=draw.between(0, 334),
        rib_level=draw.between(15, 24), lung_level=draw.between(50, 68), contrast=draw.between(215, 275),
        brightness=draw.between(-12, 12), noise=draw.between(200, 300),
    )  # fmt: skip


def axis(px: int) -> Ints:
    """The centres of `px` pixels, in units."""
    step = FIELD // px
    return np.arange(px, dtype=np.int64) * step + step // 2


def ramp(distance: Ints, width: int) -> Ints:
    """Coverage 0..256 of an edge `width` units wide: a half on the edge, one inside (positive distance)."""
    return np.clip(distance * FULL // width + FULL // 2, 0, FULL)


def arc(distance: int, radius: int, height: int) -> int:
    """The height of a half ellipse at a distance from its centre; 0 outside."""
    return height * isqrt(max(0, radius * radius - distance * distance)) // radius


def outer_edge(lung: Lung, y: int) -> int:
    """`u` of the chest wall's inner side at a height y; the tip of the lung at its apex and above."""
    widest = lung.dome - 250
    return lung.tip + arc(max(0, widest - max(y, lung.apex)), widest - lung.apex, lung.width - lung.tip)


def inner_edge(body: Anatomy, lung: Lung, y: int) -> int:
    """`u` of the lung's medial border at a height y, heart left out."""
    rounded = lung.tip - arc(max(0, lung.apex + 800 - max(y, lung.apex)), 800, lung.tip - body.mediastinum)
    knob = arc(y - 1330, 260, body.knob) if lung.sign > 0 else arc(y - 1500, 500, body.mediastinum + 40)
    return max(rounded, knob, body.mediastinum + max(0, 900 - y) // 6)


def diaphragm(lung: Lung, u: int) -> int:
    """y of the diaphragm at a distance from the midline."""
    centre = lung.width * 48 // 100
    reach, drop = (lung.width + 30 - centre, lung.angle - lung.dome) if u > centre else (centre + 260, 300)
    bowl = drop * min((u - centre) ** 2, reach * reach) // (reach * reach)
    return lung.dome + (2 * bowl + drop - arc(u - centre, reach, drop)) // 3


def heart_edge(body: Anatomy, lung: Lung, y: int, enlarged: bool) -> int:
    """How far the heart reaches from the midline at a height y; 0 where it does not."""
    reach = lung.big_heart if enlarged else lung.heart
    down = y - body.heart_y - (90 if lung.sign > 0 else -60)
    if down >= 0:
        return arc(down, 760, reach)
    radius = 1120 if enlarged else 1020
    return (2 * arc(down, radius, reach) + reach * max(0, radius + down) // radius) // 3


def lung_cover(body: Anatomy, lung: Lung, px: int) -> Ints:
    """[px, px] coverage of the lung field: between chest wall and mediastinum, above the diaphragm."""
    x, y = axis(px), axis(px)
    u = lung.sign * (x - body.midline)
    outer, inner = edges(body, lung, px)
    edge = max(70, FIELD // px)
    floor = np.array([diaphragm(lung, int(v)) for v in u], dtype=np.int64)
    across = np.minimum(ramp(outer - u, edge), ramp(u - inner, edge))
    along = np.minimum(ramp(floor[None, :] - y[:, None], edge), ramp(y[:, None] - lung.apex, edge))
    return np.minimum(across, along)


@lru_cache(maxsize=16)
def edges(body: Anatomy, lung: Lung, px: int) -> tuple[Ints, Ints]:
    """[px, 1] outer and inner edges of a lung for every row."""
    rows = [int(v) for v in axis(px)]
    outer = np.array([outer_edge(lung, y) for y in rows], dtype=np.int64)[:, None]
    inner = np.array([inner_edge(body, lung, y) for y in rows], dtype=np.int64)[:, None]
    return outer, inner
