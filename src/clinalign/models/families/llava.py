"""LLaVA: a CLIP, SigLIP or EfficientNet-Lite tower, a two-layer projector, a decoder with ordinary positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinalign.models.families.family import Family, Grid, encode_selected

TOWERS = ("clip_vision_model", "siglip_vision_model", "siglip2_vision_model", "efficientnet_lite")


def _check(config: Any) -> str | None:
    tower = config.vision_config.model_type
    if tower not in TOWERS:
        return f"a LLaVA with a '{tower}' tower is not supported (known: {', '.join(TOWERS)})"
    return None


def _build_processor(image_processor: Any, tokenizer: Any, settings: dict[str, Any], config: Any) -> Any:
    """What older folders do not say about their processor is in the model's configuration."""
    from transformers import LlavaProcessor

    known = {
        "patch_size": config.vision_config.patch_size,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
        "num_additional_image_tokens": int(config.vision_config.model_type == "clip_vision_model"),
    }
    given = {name: value for name, value in settings.items() if value is not None}
    return LlavaProcessor(image_processor=image_processor, tokenizer=tokenizer, **(known | given))


def _grid(processor: Any, input_image: np.ndarray) -> Grid:
    return input_image.shape[0] // processor.patch_size, input_image.shape[1] // processor.patch_size


def _token_count(processor: Any, grid: Grid) -> int:
    dropped = processor.vision_feature_select_strategy == "default"
    return grid[0] * grid[1] + processor.num_additional_image_tokens - dropped


def _image_text(processor: Any, grid: Grid) -> str:
    return processor.image_token * _token_count(processor, grid)


def _normals(processor: Any, pixels: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(pixels.shape, generator=generator)


FAMILY = Family(
    name="llava",
    model_class="LlavaForConditionalGeneration",
    build_processor=_build_processor,
    grid=_grid,
    token_count=_token_count,
    encode=encode_selected,
    check=_check,
    image_text=_image_text,
    normals=_normals,
)
