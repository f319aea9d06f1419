"""How each finding is drawn: coverage and grey inside the lung, in the integer units of `anatomy`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from clinalign.data.phantom.anatomy import (
    FIELD,
    FULL,
    GREY,
    Anatomy,
    Ints,
    Lung,
    axis,
    edges,
    heart_edge,
    inner_edge,
    outer_edge,
    ramp,
)
from clinalign.data.phantom.hashing import Stream
from clinalign.data.phantom.layers import smooth_noise

if TYPE_CHECKING:
    from clinalign.data.phantom.cases import Finding


FAINT = 14  # a coverage under this (5 %) is left out: what a finding changes at all, it changes visibly


@dataclass(frozen=True, slots=True)
class Effect:
    """What a finding does to the lung: blend towards `grey` by `cover`, then add `line` (grey levels times 256)."""

    grey: int
    cover: Ints
    line: Ints | None = None
    clears_vessels: bool = False


def effect(body: Anatomy, finding: Finding, px: int, contrast: int = FULL, scale: int = FULL) -> Effect:
    """The effect of any finding but cardiomegaly, which replaces the heart instead.

    `contrast` and `scale` (of 256) weaken it and shrink it; both 256 is the finding as it is.
    """
    assert finding.side is not None
    drawn = DRAWERS[finding.kind](body, body.lung(finding.side), finding, px, scale)
    cover = np.where(drawn.cover < FAINT, 0, drawn.cover) * contrast // FULL
    return replace(drawn, cover=cover, line=None if drawn.line is None else drawn.line * contrast // FULL)


def _centre(body: Anatomy, lung: Lung, finding: Finding, draw: Stream, reach: int) -> tuple[int, int]:
    """(u, y) of a focal finding: the middle of the zone, between the border of an enlarged heart and the wall.

    The same jitter is used for every side, zone and size, so a changed finding moves no more than it must.
    """
    assert finding.side is not None and finding.zone is not None
    top, bottom = body.zone(finding.side, finding.zone)
    y = top + (bottom - top) * draw.between(40, 56) // 100
    medial = max(inner_edge(body, lung, y), heart_edge(body, lung, y, enlarged=True))
    outer = outer_edge(lung, y)
    low, high = medial + reach, outer - reach
    part = draw.between(25, 75)
    return (low + (high - low) * part // 100 if high > low else (medial + outer) // 2), y


def _plane(body: Anatomy, lung: Lung, px: int) -> tuple[Ints, Ints]:
    return lung.sign * (axis(px)[None, :] - body.midline), axis(px)[:, None]


def nodule(body: Anatomy, lung: Lung, finding: Finding, px: int, scale: int = FULL) -> Effect:
    """A round soft blob: flat in the middle, fading over its outer part."""
    draw = Stream(body.patient, "nodule")
    u0, y0 = _centre(body, lung, finding, draw, 300)
    size = draw.between(0, 100)
    radius = (150 + size * 35 // 100 if finding.size == "small" else 255 + size * 55 // 100) * scale // FULL
    u, y = _plane(body, lung, px)
    away = (u - u0) ** 2 + (y - y0) ** 2
    cover = np.clip((radius * radius - away) * 2 * FULL // (radius * radius), 0, FULL)
    return Effect(draw.between(158, 178), cover * 225 // FULL)


def consolidation(body: Anatomy, lung: Lung, finding: Finding, px: int, scale: int = FULL) -> Effect:
    """A patchy area: an ellipse whose border and inside are broken up by lattice noise."""
    draw = Stream(body.patient, "consolidation")
    u0, y0 = _centre(body, lung, finding, draw, 380)
    size = draw.between(0, 100)
    radius = (290 + size * 30 // 100 if finding.size == "small" else 585 + size * 60 // 100) * scale // FULL
    u, y = _plane(body, lung, px)
    lean = draw.between(-400, 400)
    v, w = u - u0 + (y - y0) * lean // 1024, y - y0
    away = (v * v * 8 // 10 + w * w * 16 // 10) * FULL // (radius * radius)
    seed = draw.bits()
    rough = smooth_noise(16, px, seed) + smooth_noise(32, px, seed + 1)
    patch = np.clip((FULL - away + rough * 2 // 5) * 3 // 2, 0, FULL)
    return Effect(draw.between(158, 174), patch * np.clip(185 + rough * 2 // 5, 50, FULL) // FULL)


def effusion(body: Anatomy, lung: Lung, finding: Finding, px: int, scale: int = FULL) -> Effect:
    """Homogeneous fluid in the costophrenic angle under a meniscus that climbs the chest wall."""
    draw = Stream(body.patient, "effusion")
    jitter = draw.between(0, 100)
    if finding.size == "small":
        rise, flat, start = 510 + jitter, lung.angle - 160, lung.width * 35 // 100
    else:
        rise, flat, start = 980 + 2 * jitter, lung.dome - 150 - jitter, lung.width * 40 // 100
    rise, flat = rise * scale // FULL, lung.angle - (lung.angle - flat) * scale // FULL
    u, y = _plane(body, lung, px)
    part = np.clip((u - start) * 1024 // (lung.width - start), 0, 1024)
    level = flat - (rise - (lung.angle - flat)) * part * part // (1024 * 1024)
    return Effect(draw.between(160, 180), ramp(y - level, 150) * 225 // FULL)


def pneumothorax(body: Anatomy, lung: Lung, finding: Finding, px: int, scale: int = FULL) -> Effect:
    """A dark crescent over apex and lateral wall, without vessels, bordered by the thin line of the visceral pleura."""
    draw = Stream(body.patient, "pneumothorax")
    jitter = draw.between(0, 100)
    height = lung.angle - lung.apex
    if finding.size == "small":
        fall, width, end = 150 + jitter // 2, 125 + jitter // 4, lung.apex + height * 46 // 100
    else:
        fall, width, end = 430 + jitter, 330 + jitter // 2, lung.apex + height * 66 // 100
    fall, width = fall * scale // FULL, width * scale // FULL
    top = lung.apex + fall

    def lung_edge(y: int) -> int:
        if y >= end:
            return FIELD
        if y <= top:
            return 0
        old = lung.apex + (y - top) * (end - lung.apex) // (end - top)
        return outer_edge(lung, old) - width * (end - y) // (end - top)

    rows = [int(v) for v in axis(px)]
    border = np.array([lung_edge(v) for v in rows], dtype=np.int64)[:, None]
    u, y = _plane(body, lung, px)
    outer, _ = edges(body, lung, px)
    steep = [min(4096, abs(lung_edge(v + 32) - lung_edge(v - 32)) * 16) for v in rows]
    away = (u - border) * 1024 // (1024 + np.array(steep, dtype=np.int64)[:, None] * 3 // 4)
    cover = np.where(y < end, ramp(away, max(60, FIELD // px)), 0)
    pleura = (y < end) & (border > 0) & (border < outer - 40)
    line = np.where(pleura, np.clip(75 - abs(away + 20), 0, 50) * 40 * GREY // 50, 0)
    return Effect(draw.between(26, 38), cover * 220 // FULL, line, clears_vessels=True)


def atelectasis(body: Anatomy, lung: Lung, finding: Finding, px: int, scale: int = FULL) -> Effect:
    """A plate: a thin band across the lung whose lateral end is raised a little."""
    draw = Stream(body.patient, "atelectasis")
    u0, y0 = _centre(body, lung, finding, draw, 380)
    size, tilt = draw.between(0, 100), draw.between(120, 330)
    half, thick = (260 + size * 40 // 100, 46) if finding.size == "small" else (460 + size * 70 // 100, 74)
    half, thick = half * scale // FULL, thick * scale // FULL
    u, y = _plane(body, lung, px)
    axis_y = y0 - (u - u0) * tilt // 1024
    cover = ramp(thick - abs(y - axis_y), 64) * ramp(half - abs(u - u0), 100) // FULL
    return Effect(draw.between(150, 168), cover * 220 // FULL)


DRAWERS = {
    "nodule": nodule,
    "consolidation": consolidation,
    "pleural effusion": effusion,
    "pneumothorax": pneumothorax,
    "atelectasis": atelectasis,
}
