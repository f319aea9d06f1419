"""Where a vision tower itself looks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from clinalign.errors import UsageError
from clinalign.models.geometry import as_rgb
from clinalign.models.vlm import VLM

TOWER = "clip_vision_model"


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
    before = tower.config._attn_implementation
    tower.set_attn_implementation("eager")
    try:
        with vlm.evaluating():
            out = tower(given["pixel_values"].to(vlm.device, vlm.dtype), output_attentions=True)
    finally:
        tower.set_attn_implementation(before)
    return list(out.attentions[-1].float().mean(1)[:, 0, 1:])
