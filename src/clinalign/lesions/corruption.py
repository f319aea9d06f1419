"""Corruption of an image inside a mask. Outside the mask every pixel stays what it was.

Randomness comes from SHAKE-256 of a seed and is turned into integers by the inverse distribution function of a
rounded Gaussian, so the same pixels, region, kind and SD give the same bytes on every machine and with every version
of every library. Source of the noise and its size: FiRe-MPO (arXiv 2606.12590).
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from clinalign.imaging.pixels import Mask, Pixels

LOCAL_KINDS = ("noise", "inpaint", "black")
GLOBAL_KINDS = ("crop",)
RIM = 1
"""Pixels around a region that inpainting does not trust either: a resized lesion bleeds into its neighbours."""
REACH = RIM + 6
"""Pixels around a region that inpainting looks at: its rim, the ring of 4 that gives the texture, their neighbours."""
CROP_SHARE = 0.2
"""A cropped image keeps one window of at most this share of the area (after mDPO, arXiv 2406.11839)."""


def corrupt(image: Pixels, mask: Mask, kind: str, sigma: float, seed_bytes: bytes) -> Pixels:
    """A corrupted copy of `image` uint8 [H, W, 3]; pixels outside `mask` bool [H, W] are bit-identical.

    noise: zero-mean Gaussian of SD `sigma` (0-255 scale) per channel, clipped to the valid range. inpaint: a harmonic
    fill from around the mask with the texture of its surroundings, so that evidence is removed and not disturbed.
    black: zeros. crop ignores the mask: one random window of at most a fifth of the area, enlarged to the full size.
    Raises `ValueError` for another kind, an empty mask, or an inpainting mask with nothing around it.
    """
    if mask.shape != image.shape[:2] or not mask.any():
        raise ValueError(f"a mask of shape {mask.shape} with {int(mask.sum())} pixels for an image of {image.shape}")
    if kind == "crop":
        return _crop(image, seed_bytes)
    if kind not in LOCAL_KINDS:
        raise ValueError(f"unknown corruption '{kind}'; one of {', '.join(LOCAL_KINDS + GLOBAL_KINDS)}")
    out = image.copy()
    if kind == "black":
        out[mask] = 0
    elif kind == "noise":
        noise = gaussian_integers(int(mask.sum()) * 3, sigma, seed_bytes).reshape(-1, 3)
        out[mask] = np.clip(image[mask].astype(np.int32) + noise, 0, 255)
    else:
        out[mask] = _inpainted(image, mask, seed_bytes)
    return out


def seed_of(image: Pixels, mask: Mask, kind: str, sigma: float) -> bytes:
    """sha256 of pixels, region, kind and SD: what the draw depends on, and nothing else (no model, no run)."""
    digest = hashlib.sha256(f"{image.shape}|{kind}|{float(sigma)!r}|".encode())
    digest.update(image.tobytes())
    digest.update(np.packbits(mask).tobytes())
    return digest.digest()


def realised_sd(before: Pixels, after: Pixels, mask: Mask) -> float:
    """SD of the change inside the mask, over pixels and channels: below the requested one where values were clipped."""
    change = after[mask].astype(np.int32) - before[mask].astype(np.int32)
    return float(change.std()) if change.size else 0.0


def gaussian_integers(count: int, sigma: float, seed_bytes: bytes) -> npt.NDArray[np.int32]:
    """`count` draws of a Gaussian of SD `sigma` rounded to integers, exact to 2**-32 in probability."""
    raw = np.frombuffer(hashlib.shake_256(seed_bytes).digest(4 * count), dtype="<u4").astype(np.uint64)
    thresholds = _thresholds(float(sigma))
    return (np.searchsorted(thresholds, raw, side="right") - len(thresholds) // 2).astype(np.int32)


@lru_cache(maxsize=16)
def _thresholds(sigma: float) -> npt.NDArray[np.uint64]:
    """P(X < k - 1/2) in units of 2**-32 for k = -K+1 .. K: the borders between neighbouring integers."""
    reach = math.ceil(6.5 * sigma) + 1
    borders = [(k - 0.5) / (sigma * math.sqrt(2)) for k in range(-reach + 1, reach + 1)]
    return np.array([round(2**32 * 0.5 * math.erfc(-border)) for border in borders], dtype=np.uint64)


def _inpainted(image: Pixels, mask: Mask, seed_bytes: bytes) -> npt.NDArray[np.uint8]:
    """New values [n, 3] of the masked pixels: the solution of Laplace's equation plus matched texture.

    Only the surroundings of the region are looked at: nothing farther away takes part.
    """
    grey = bool((image[:, :, :1] == image[:, :, 1:]).all())
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    near = tuple(slice(max(0, found[0] - REACH), found[-1] + REACH + 1) for found in (rows, columns))
    image, mask = image[near], mask[near]
    hole = ndimage.binary_dilation(mask, iterations=RIM)
    if hole.all():
        hole = mask
    if hole.all():
        raise ValueError("the region is the whole image; nothing is left to fill it from")
    channels = image[:, :, :1] if grey else image
    filled = _harmonic(channels.astype(np.float64), hole)[mask]
    texture = _texture(channels, hole, int(mask.sum()), seed_bytes)
    values = np.clip(np.round(filled + texture), 0, 255).astype(np.uint8)
    return np.repeat(values, 3, axis=1) if grey else values


def _harmonic(channels: npt.NDArray[np.float64], hole: Mask) -> npt.NDArray[np.float64]:
    """Each pixel of the hole becomes the mean of its 4 neighbours (those inside the picture)."""
    height, width = hole.shape
    index = np.full(hole.shape, -1)
    rows, cols = np.nonzero(hole)
    index[rows, cols] = np.arange(len(rows))
    degree = np.zeros(len(rows))
    known = np.zeros((len(rows), channels.shape[2]))
    links = []
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        y, x = rows + dy, cols + dx
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        degree += inside
        here = np.nonzero(inside)[0]
        neighbour = index[y[here], x[here]]
        links.append((here[neighbour >= 0], neighbour[neighbour >= 0]))
        given = here[neighbour < 0]
        known[given] += channels[y[given], x[given]]
    a, b = (np.concatenate(side) for side in zip(*links))
    matrix = sparse.diags(degree).tocsc() - sparse.csc_matrix((np.ones(len(a)), (a, b)), (len(rows), len(rows)))
    out = channels.copy()
    out[rows, cols] = np.asarray(spsolve(matrix, known, permc_spec="MMD_AT_PLUS_A")).reshape(known.shape)
    return out


def _texture(channels: Pixels, hole: Mask, count: int, seed_bytes: bytes) -> npt.NDArray[np.float64]:
    """Noise [count, channels] with the SD that the ring around the hole has about its own local mean.

    The SD comes from the median absolute deviation, which an edge that crosses the ring does not inflate.
    """
    ring = ndimage.binary_dilation(hole, iterations=4) & ~hole
    smooth = ndimage.uniform_filter(channels.astype(np.float64), size=(3, 3, 1))
    # a 3x3 mean leaves 8/9 of the variance of white noise in the residual; 1.4826 makes a Gaussian's MAD its SD
    residual = np.abs(channels - smooth)[ring]
    spread = np.median(residual, axis=0) * 1.4826 * math.sqrt(9 / 8) if ring.any() else np.zeros(channels.shape[2])
    unit = gaussian_integers(count * channels.shape[2], 1000.0, seed_bytes).reshape(count, -1) / 1000.0
    return unit * spread


def _crop(image: Pixels, seed_bytes: bytes) -> Pixels:
    height, width = image.shape[:2]
    raw = np.frombuffer(hashlib.shake_256(seed_bytes).digest(12), dtype="<u4") / 2**32
    scale = math.sqrt(CROP_SHARE * max(raw[0], 0.05))
    h, w = max(1, int(height * scale)), max(1, int(width * scale))
    y, x = int(raw[1] * (height - h + 1)), int(raw[2] * (width - w + 1))
    rows = y + np.arange(height) * h // height
    cols = x + np.arange(width) * w // width
    return image[rows][:, cols]
