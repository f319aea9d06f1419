"""Where a vision tower itself looks, and what it makes of an image at another size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinalign.errors import UsageError
from clinalign.models.geometry import as_rgb
from clinalign.models.vlm import VLM

TOWER = "clip_vision_model"
SCALING = (TOWER, "siglip_vision_model")


@torch.no_grad()
def class_attention(vlm: VLM, images: Sequence[np.ndarray]) -> list[Tensor]:
    """The class token's attention to the patches in the tower's last layer, mean over heads: [N] for each image.

    Raises `UsageError` where the tower has no class token or the model keeps it among the image tokens.
    """
    config = vlm.model.config
    if getattr(config.vision_config, "model_type", "") != TOWER or config.vision_feature_select_strategy != "default":
        raise UsageError(f"{vlm.name}: needs a LLaVA with a CLIP tower and its class token left out of the prompt")
    tower = vlm.model.model.vision_tower
    given = vlm.processor.image_processor(images=[as_rgb(image) for image in images], return_tensors="pt")
    with vlm.evaluating(), _whole_maps(tower):
        out = tower(given["pixel_values"].to(vlm.device, vlm.dtype), output_attentions=True)
    return list(out.attentions[-1].float().mean(1)[:, 0, 1:])


@contextmanager
def _whole_maps(tower: Any) -> Iterator[None]:
    """While open, a vision tower forms whole attention maps: only transformers' eager kernel does."""
    before = tower.config._attn_implementation
    tower.set_attn_implementation("eager")
    try:
        yield
    finally:
        tower.set_attn_implementation(before)


@dataclass(frozen=True)
class TowerFeatures:
    """One image at one size: features [n, D] of its g x g patches, and how much each patch draws from each, [n, n]."""

    features: Tensor
    attention: Tensor
    side: int


@torch.no_grad()
def tower_features(vlm: VLM, images: Sequence[np.ndarray], scale: float) -> list[TowerFeatures]:
    """Images at `scale` times the side the model was made for, through tower and projector.

    Positions of the tower are interpolated; its attention is the mean over heads and over the layers that lead to the
    features, class token left out, rows summing to one. Raises `UsageError` where the tower cannot do this.
    """
    config = vlm.model.config
    tower, kind = vlm.model.model.vision_tower, getattr(config.vision_config, "model_type", "")
    if kind not in SCALING or not isinstance(config.vision_feature_layer, int):
        raise UsageError(f"{vlm.name}: needs a LLaVA whose tower takes images of other sizes ({', '.join(SCALING)})")
    patch = config.vision_config.patch_size
    inputs = [vlm.input_image(image) for image in images]
    side = max(1, round(inputs[0].shape[0] * scale / patch))
    given = vlm.processor.image_processor(images=inputs, return_tensors="pt")["pixel_values"]
    pixels = torch.nn.functional.interpolate(given, size=(side * patch, side * patch), mode="bicubic", antialias=True)
    with vlm.evaluating(), _whole_maps(tower):
        out = tower(
            pixels.to(vlm.device, vlm.dtype), output_attentions=True, output_hidden_states=True,
            interpolate_pos_encoding=True,
        )  # fmt: skip
    dropped = int(kind == TOWER)
    states = out.hidden_states[config.vision_feature_layer][:, dropped:]
    features = vlm.model.model.multi_modal_projector(states)
    layers = (
        len(out.attentions) + 1 + config.vision_feature_layer
        if config.vision_feature_layer < 0
        else config.vision_feature_layer
    )
    maps = torch.stack([a.float().mean(1) for a in out.attentions[: max(1, layers)]]).mean(0)[:, dropped:, dropped:]
    maps = maps / maps.sum(-1, keepdim=True)
    return [TowerFeatures(f, a, side) for f, a in zip(features, maps, strict=True)]
