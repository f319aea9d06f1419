"""One example seen under several conditions: the one implementation behind training pairs and causal grounding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clinalign.imaging.images import read_image
from clinalign.imaging.pixels import Mask, Pixels
from clinalign.lesions.corruption import corrupt, seed_of
from clinalign.lesions.regions import control_region, input_mask, lesion_regions, native_mask
from clinalign.records import Example, Region, without_finding


@dataclass(slots=True)
class View:
    """One image of an example at the model's input resolution, as far as corruption is concerned.

    `image` uint8 [H, W, 3]; `mask` bool [H, W] what it shows of the queried finding or None; `avoid` the other known
    findings; `counterfactual` the image without the finding, or None.
    """

    image: Pixels
    mask: Mask | None = None
    avoid: Mask | None = None
    counterfactual: Pixels | None = None


def views(example: Example, folder: Path, vlm: Any) -> list[View]:
    """Reads an example's images and regions and brings them to the model's input resolution.

    `vlm` needs `input_image(uint8 [H, W, 3])` and `input_mask(bool [H, W])`. Raises `RowError` for what cannot be read.
    """
    lesion, without = lesion_regions(example), without_finding(example)
    return [
        _view(example, number, lesion.get(number), without[number] if without else "", folder, vlm)
        for number in range(len(example.images))
    ]


def _view(example: Example, number: int, region: Region | None, without: str, folder: Path, vlm: Any) -> View:
    native = read_image(folder / example.images[number])
    image = vlm.input_image(native)
    if region is None:
        return View(image)
    shape = (native.shape[0], native.shape[1])
    mask = input_mask(vlm, native_mask(region, folder, shape))
    rest = [r for r in example.regions if r is not region and r.image == number and (r.mask or r.box)]
    avoid = [np.asarray(vlm.input_mask(native_mask(r, folder, shape)), dtype=bool) for r in rest]
    known = bool(without) and mask is not None
    return View(
        image,
        mask,
        np.logical_or.reduce(avoid) if avoid else None,
        vlm.input_image(read_image(folder / without)) if known else None,
    )


MATCHED = ("inpainted", "control_inpainted", "control_counterfactual")
"""Conditions that are drawn on demand: painting over the lesion also where the exact image without it is known, and the
two ways to take it away done to the matched patch, so that an operation is compared with itself elsewhere."""


def conditions(
    image: Pixels,
    mask: Mask | None,
    *,
    counterfactual: Pixels | None = None,
    avoid: Mask | None = None,
    sigma: float = 45.0,
    matched: bool = False,
) -> dict[str, Pixels]:
    """The conditions that can be drawn of one image uint8 [H, W, 3] with a region bool [H, W] (or None).

    clean and blank (black) always; with a region also lesion_noise, counterfactual (the exact image without the
    finding) or where there is none inpainted, and control (the same noise on the matched patch, where there is space).
    With `matched` those of `MATCHED` too.
    """
    out = {"clean": image, "blank": np.zeros_like(image)}
    if mask is None or not mask.any():
        return out
    out["lesion_noise"] = drawn(image, mask, "noise", sigma)
    if counterfactual is not None:
        out["counterfactual"] = counterfactual
    if (counterfactual is None or matched) and not mask.all():
        out["inpainted"] = drawn(image, mask, "inpaint", 0.0)
    control = control_region(mask, image, avoid)
    if control is not None:
        out["control"] = drawn(image, control, "noise", sigma)
        if matched:
            out["control_inpainted"] = drawn(image, control, "inpaint", 0.0)
            if counterfactual is not None:
                out["control_counterfactual"] = moved_change(image, counterfactual, mask, control)
    return out


def moved_change(image: Pixels, without: Pixels, mask: Mask, control: Mask) -> Pixels:
    """The image uint8 [H, W, 3] with what turns it into `without` inside `mask` done to the `control` patch instead,
    which is `mask` moved, or mirrored left to right and moved."""
    change = (without.astype(np.int16) - image) * mask[..., None]
    here, there = _bounds(mask), _bounds(control)
    patch = change[here]
    if not np.array_equal(control[there], mask[here]):
        patch = patch[:, ::-1]
    out = image.astype(np.int16)
    out[there] += patch
    return np.clip(out, 0, 255).astype(np.uint8)


def _bounds(mask: Mask) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def example_conditions(
    example: Example, folder: Path, vlm: Any, *, sigma: float = 45.0, matched: bool = False
) -> dict[str, list[Pixels]]:
    """`conditions` of an example: from condition to all of its images. Every image that shows the finding is drawn, the
    others stay (blank is blank everywhere); a condition that one of them does not allow is left out.

    An example without images has none. Raises `RowError` for what cannot be read.
    """
    seen = views(example, folder, vlm)
    drawn_images = [
        conditions(
            one.image, one.mask, counterfactual=one.counterfactual, avoid=one.avoid, sigma=sigma, matched=matched
        )
        for one in seen
    ]
    touched = [each for one, each in zip(seen, drawn_images, strict=True) if one.mask is not None and one.mask.any()]
    names = [name for name in (touched or drawn_images)[0] if all(name in each for each in touched)] if seen else []
    return {name: [each.get(name, each["clean"]) for each in drawn_images] for name in names}


def drawn(image: Pixels, mask: Mask, kind: str, sigma: float) -> Pixels:
    """`corrupt` with the seed that pixels, region, kind and SD give."""
    return corrupt(image, mask, kind, sigma, seed_of(image, mask, kind, sigma))
