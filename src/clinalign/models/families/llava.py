"""LLaVA: a CLIP, SigLIP or EfficientNet-Lite tower, a two-layer projector, a decoder with ordinary positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from clinalign.models.families.family import Family, Grid, View, blocks, encode_selected, noise, resized

TOWERS = ("clip_vision_model", "siglip_vision_model", "siglip2_vision_model", "efficientnet_lite")
SCALING = ("clip_vision_model", "siglip_vision_model")
"""Towers with a table of positions that they interpolate."""


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


def _view(model: Any, processor: Any, input_image: np.ndarray, scale: float) -> View:
    """The tower's table of positions, interpolated."""
    pixels, grid = resized(processor, input_image, scale, model.config.vision_config.patch_size)
    out = model.model.get_image_features(
        pixel_values=pixels.to(model.device, model.dtype), interpolate_pos_encoding=True, return_dict=True
    )
    return View(out.pooler_output[0], grid, blocks(grid, 1))


def _no_view(config: Any) -> str:
    kind = config.vision_config.model_type
    if kind not in SCALING:
        return f"a '{kind}' tower has no positions for an image of another size (known: {', '.join(SCALING)})"
    if not isinstance(config.vision_feature_layer, int):
        return "its features come from several layers of its tower"
    if kind == "clip_vision_model" and config.vision_feature_select_strategy != "default":
        return "it keeps the tower's class token among its image tokens"
    return ""


FAMILY = Family(
    name="llava",
    model_class="LlavaForConditionalGeneration",
    build_processor=_build_processor,
    grid=_grid,
    token_count=_token_count,
    encode=encode_selected,
    check=_check,
    image_text=_image_text,
    normals=noise,
    view=_view,
    no_view=_no_view,
)
