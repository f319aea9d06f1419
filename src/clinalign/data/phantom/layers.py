"""The parts of a phantom that no finding touches: soft tissue, lung texture, ribs, clavicles and noise.

Same units as `anatomy`: lengths in 1/4096 of the side, grey values in 1/256 of a level, coverages 0 to 256.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from clinalign.data.phantom.anatomy import (
    FIELD,
    FULL,
    GREY,
    Anatomy,
    Ints,
    Lung,
    anatomy,
    arc,
    axis,
    heart_edge,
    lung_cover,
    ramp,
)
from clinalign.data.phantom.hashing import Stream, hash_grid

AIR, SOFT, MEDIASTINUM, HEART, ABDOMEN = 8, 118, 178, 190, 184


@dataclass(frozen=True, slots=True)
class Layers:
    """[px, px] integer layers of one patient, to be combined with findings by `draw`.

    `tissue`: grey without lungs and heart; `cover`: lung coverage by side; `lung`: grey of the lung without vessels;
    `vessels`: grey they add; `heart`, `big_heart`: coverage; `over`: ribs, clavicles and noise, added last.
    """

    tissue: Ints
    cover: dict[str, Ints]
    lung: Ints
    vessels: Ints
    heart: Ints
    big_heart: Ints
    over: Ints


@lru_cache(maxsize=8)
def layers(patient: int, px: int) -> Layers:
    """All layers of a patient. The arrays are shared between calls: read-only."""
    return layers_of(anatomy(patient), px)


def layers_of(body: Anatomy, px: int) -> Layers:
    """All layers of a body, read-only."""
    cover = {side: lung_cover(body, body.lung(side), px) for side in ("right", "left")}
    made = Layers(
        tissue=tissue(body, px),
        cover=cover,
        lung=lung_grey(body, px),
        vessels=vessels(body, px),
        heart=heart(body, px, enlarged=False),
        big_heart=heart(body, px, enlarged=True),
        over=bones(body, px) + noise(body, px),
    )
    for array in (made.tissue, *cover.values(), made.lung, made.vessels, made.heart, made.big_heart, made.over):
        array.flags.writeable = False
    return made


def blend(below: Ints, grey: int, cover: Ints) -> Ints:
    """`below` with a grey level laid over it where covered."""
    return below + (grey * GREY - below) * cover // FULL


def tissue(body: Anatomy, px: int) -> Ints:
    """Air, chest wall and shoulders, abdomen, mediastinum with spine and trachea."""
    x, y = axis(px)[None, :] - body.midline, axis(px)[:, None]
    rows = [int(v) for v in axis(px)]
    edge = max(70, FIELD // px)
    torso = max(body.left.width, body.right.width) + body.wall
    shoulder = [620 + arc(max(0, 1000 - max(v, 120)), 880, torso - 620) for v in rows]
    skin = ramp(np.array(shoulder)[:, None] - abs(x), edge * 2)
    grey = blend(np.full((px, px), AIR * GREY, dtype=np.int64), SOFT, skin)
    belly = ramp(y - (body.right.dome - 20), 300) * ramp(torso - 80 - abs(x), 260) // FULL
    grey = blend(grey, ABDOMEN, belly)
    bubble = (x - 820) ** 2 * 2 + (y - body.left.dome - 330) ** 2 * 5
    grey -= np.clip(500_000 - bubble, 0, 250_000) * 40 * GREY // 250_000
    grey = blend(grey, MEDIASTINUM, ramp(body.mediastinum + 90 - abs(x), 160) * ramp(y - 150, 700) // FULL)
    spine = ramp(180 - abs(x), 120)
    grey += spine * (10 * GREY + (abs((y + body.rib_phase) % 300 - 150) - 75) * 12) // FULL
    trachea = ramp(95 - abs(x + (y - 1300) // 20), 90) * ramp(1480 - y, 200) // FULL
    return grey - trachea * 34 * GREY // FULL


def heart(body: Anatomy, px: int, *, enlarged: bool) -> Ints:
    """Coverage of the heart, normal or enlarged."""
    x = axis(px)[None, :] - body.midline
    rows = [int(v) for v in axis(px)]
    edge = max(100, FIELD // px)
    right = np.array([heart_edge(body, body.right, y, enlarged) for y in rows], dtype=np.int64)[:, None]
    left = np.array([heart_edge(body, body.left, y, enlarged) for y in rows], dtype=np.int64)[:, None]
    inside = np.where(x < 0, right + x, left - x)
    return np.where((right > 0) | (left > 0), ramp(inside, edge), 0)


def lung_grey(body: Anatomy, px: int) -> Ints:
    """Grey of the aerated lung: darker towards the apex and the wall, with a slow mottle."""
    x, y = axis(px)[None, :] - body.midline, axis(px)[:, None]
    level = body.lung_level * GREY + (y - 1800) * 10 * GREY // FIELD - (abs(x) - 900) * 14 * GREY // FIELD
    mottle = Stream(body.patient, "mottle").bits()
    return level + (smooth_noise(8, px, mottle) * 5 + smooth_noise(16, px, mottle + 1) * 4) // 2


def smooth_noise(cells: int, px: int, seed: int) -> Ints:
    """[px, px] noise of about -256..256 on a lattice of `cells` a side, interpolated linearly."""
    lattice = (hash_grid(cells + 1, seed, "lattice") >> np.uint64(55)).astype(np.int64) - 256
    return resize(lattice, px)


def resize(lattice: Ints, px: int) -> Ints:
    """Linear interpolation of a [n + 1, n + 1] lattice over the field at the pixel centres."""
    cell = FIELD // (len(lattice) - 1)
    at, part = axis(px) // cell, axis(px) % cell
    rows = lattice[at] * (cell - part)[:, None] + lattice[at + 1] * part[:, None]
    blended = rows[:, at] * (cell - part) + rows[:, at + 1] * part
    return np.floor_divide(blended, cell * cell)


def vessels(body: Anatomy, px: int) -> Ints:
    """Grey added by the lung vessels: tapering branches that fan out from each hilum."""
    draw = Stream(body.patient, "vessels")
    points: list[tuple[int, int, int]] = []
    for lung in (body.right, body.left):
        root = (body.mediastinum + 110, (lung.apex + lung.dome) // 2 + (40 if lung.sign < 0 else -40))
        fan = [(85, -62), (60, -88), (100, -30), (100, 2), (100, 32), (86, 62), (60, 88), (36, 100)]
        for across, down in fan:
            _branch(points, draw, body, lung, root, (across + draw.between(-9, 9), down + draw.between(-9, 9)), 13, 44)
    return _splat(points, px)


def _branch(
    points: list[tuple[int, int, int]], draw: Stream, body: Anatomy, lung: Lung, at: tuple[int, int],
    heading: tuple[int, int], steps: int, level: int,
) -> None:  # fmt: skip
    """Walk a branch in steps of about 64 units, fading, bending and forking once; collects (x, y, grey level)."""
    u, y = at[0] * 100, at[1] * 100
    across, down = heading
    fork = draw.between(4, 7)
    for step in range(steps):
        points.append((body.midline + lung.sign * (u // 100), y // 100, level * (steps + 3 - step) // (steps + 3)))
        u, y = u + across * 64, y + down * 64
        across, down = across + draw.between(-12, 12), down + draw.between(-12, 12)
        if step == fork and level > 30:
            turn = draw.between(35, 60) * (1 if draw.below(2) else -1)
            fork_at, turned = (u // 100, y // 100), (across - turn // 2, down + turn)
            _branch(points, draw, body, lung, fork_at, turned, 7, level * 2 // 3)


def _splat(points: list[tuple[int, int, int]], px: int) -> Ints:
    """Spread points over the pixels of a 64-pixel grid, linearly, and bring it to `px`."""
    step = FIELD // 64
    x, y, level = (np.array(values, dtype=np.int64) for values in zip(*points, strict=True))
    x, y = np.clip(x - step // 2, 0, FIELD - 2 * step), np.clip(y - step // 2, 0, FIELD - 2 * step)
    grid = np.zeros((65, 65), dtype=np.int64)
    for down in (0, 1):
        for along in (0, 1):
            part_x = x % step if along else step - x % step
            part_y = y % step if down else step - y % step
            np.add.at(grid, (y // step + down, x // step + along), level * GREY * part_x * part_y // (step * step))
    grid = np.minimum(grid, 60 * GREY)
    if px == 64:
        return grid[:64, :64]
    if px == 32:
        return grid[:64, :64].reshape(32, 2, 32, 2).sum(axis=(1, 3)) // 4
    near = np.pad(grid[:64, :64], 1)
    wide = np.empty((128, 66), dtype=np.int64)
    wide[0::2], wide[1::2] = (near[:-2] + 3 * near[1:-1]) // 4, (3 * near[1:-1] + near[2:]) // 4
    out = np.empty((128, 128), dtype=np.int64)
    out[:, 0::2] = (wide[:, :-2] + 3 * wide[:, 1:-1]) // 4
    out[:, 1::2] = (3 * wide[:, 1:-1] + wide[:, 2:]) // 4
    return out


def bones(body: Anatomy, px: int) -> Ints:
    """Grey added by posterior and anterior ribs and by the clavicles."""
    x, y = axis(px)[None, :] - body.midline, axis(px)[:, None]
    u = abs(x)
    period = body.rib_period
    half = period * 30 // 100
    level = body.rib_level * (2 if px > 32 else 1) // 2
    back = abs((y - (u - 420) ** 2 // 2300 + body.rib_phase) % period - period // 2)
    front = abs((y + u * 6 // 10 + body.rib_phase * 2) % (period * 5 // 4) - period * 5 // 8)
    cage = np.where(x > 0, body.left.width, body.right.width)
    rows = [int(v) for v in axis(px)]
    shape = np.array([arc(max(0, 2300 - max(v, 250)), 2100, 1024) for v in rows])[:, None]
    inside = ramp(cage * shape // 1024 + 120 - u, 150) * ramp(3300 - y, 500) // FULL
    ribs = ramp(half - back, 110) * level * ramp(u - 200, 120) // FULL
    ribs += ramp(half - front, 130) * (level * 2 // 3) * ramp(u - 650, 300) // FULL * ramp(y - 900, 300) // FULL
    clavicle = ramp(62 - abs(y - 800 + (u - 200) * 22 // 100), 90) * ramp(u - 190, 90) // FULL
    return (ribs * inside // FULL + clavicle * 20 * ramp(1650 - u, 300) // FULL) * GREY // FULL


def noise(body: Anatomy, px: int) -> Ints:
    """Band-limited noise, drawn once at 128 pixels and averaged down: sums of hash bytes through integer filters."""
    bits = hash_grid(128, body.patient, "noise")
    # a hash's eight bytes sum to nearly normal (mean 1020, deviation 209); four lanes of 16 bits add them at once
    lanes = (bits & np.uint64(0x00FF00FF00FF00FF)) + ((bits >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF))
    white = (lanes * np.uint64(0x0001000100010001) >> np.uint64(48)).astype(np.int64) - 1020
    near = np.pad(white, 1, mode="wrap")
    rows = near[:-2] + 2 * near[1:-1] + near[2:]
    soft = rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]  # sixteen times the weighted mean
    if px < 128:
        by = 128 // px
        soft = soft.reshape(px, by, px, by).sum(axis=(1, 3)) // (by * by)
    return soft * body.noise // (16 * 40) * 3
