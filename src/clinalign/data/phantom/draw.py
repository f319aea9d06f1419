"""Combine a patient's layers and findings into an image and exact masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clinalign.data.phantom.anatomy import FULL, GREY, Anatomy, Ints, anatomy
from clinalign.data.phantom.layers import HEART, Layers, blend, layers
from clinalign.data.phantom.lesions import Effect, effect

if TYPE_CHECKING:
    from clinalign.data.phantom.cases import Finding

ORDER = ("atelectasis", "consolidation", "nodule", "pleural effusion", "pneumothorax")

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def draw(patient: int, findings: Sequence[Finding], px: int) -> tuple[Image, tuple[Mask, ...]]:
    """The image [px, px] and, for each finding, exactly the pixels that differ from the image without it."""
    return draw_body(anatomy(patient), layers(patient, px), findings, px)


def draw_body(
    body: Anatomy, parts: Layers, findings: Sequence[Finding], px: int, contrast: int = FULL, scale: int = FULL
) -> tuple[Image, tuple[Mask, ...]]:
    """The same of a body and its layers; every finding weakened to `contrast` and shrunk to `scale` (of 256).

    Cardiomegaly knows no `scale`: the rim by which the heart has grown is weakened.
    """
    effects = {
        f.kind: (f.side or "", effect(body, f, px, contrast, scale)) for f in findings if f.kind != "cardiomegaly"
    }
    grown = parts.heart + (parts.big_heart - parts.heart) * contrast // FULL
    hearts = (parts.heart, grown)
    enlarged = any(f.kind == "cardiomegaly" for f in findings)
    image = _compose(body, parts, effects, hearts[enlarged])
    masks = []
    for finding in findings:
        others = {kind: value for kind, value in effects.items() if kind != finding.kind}
        masks.append(image != _compose(body, parts, others, hearts[enlarged and finding.kind != "cardiomegaly"]))
    return image, tuple(masks)


def _compose(body: Anatomy, parts: Layers, effects: dict[str, tuple[str, Effect]], heart: Ints) -> Image:
    """Lungs with their findings into the tissue, the heart before them, bones and noise on top, then exposure."""
    grey = parts.tissue
    for side, cover in parts.cover.items():
        here = {kind: value for kind, (where, value) in effects.items() if where == side}
        vessels, lung = parts.vessels, parts.lung
        for value in here.values():
            if value.clears_vessels:
                vessels = vessels * (FULL - value.cover) // FULL
        lung = lung + vessels
        for kind in ORDER:
            if kind in here:
                value = here[kind]
                lung = blend(lung, value.grey, value.cover)
                if value.line is not None:
                    lung = lung + value.line
        grey = grey + (lung - grey) * cover // FULL
    grey = blend(grey, HEART, heart)
    grey = grey + parts.over
    level = (grey - 128 * GREY) * body.contrast // 256 + (128 + body.brightness) * GREY
    return np.clip(level // GREY, 0, 255).astype(np.uint8)
