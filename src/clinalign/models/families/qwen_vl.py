"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL: images of any size, three-axis positions (M-RoPE), features for deeper layers.

Qwen3-VL's tower gives, besides the features that stand in for the image tokens, one more set for each of the first K
decoder layers (DeepStack, arXiv 2406.04334); they are added to the hidden states of the image positions there.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clinalign.models.families.family import Change, Family, Grid, Parts, View, noise, put


def _build_processor(image_processor: Any, tokenizer: Any, settings: dict[str, Any], config: Any) -> Parts:
    template = settings.get("chat_template") or tokenizer.chat_template
    return Parts(image_processor, tokenizer, template, "<|image_pad|>")


def _grid(processor: Any, input_image: np.ndarray) -> Grid:
    cell = processor.image_processor.patch_size * processor.image_processor.merge_size
    return input_image.shape[0] // cell, input_image.shape[1] // cell


def _encode(model: Any, processor: Any, images: Sequence[np.ndarray], change: Change | None = None) -> list[Tensor]:
    inputs = processor.image_processor(images=list(images), return_tensors="pt")
    pixels, grid = inputs["pixel_values"], inputs["image_grid_thw"].to(model.device)
    if change is not None:
        each = pixels.split(grid.prod(1).tolist())
        pixels = torch.cat([change(i, one) for i, one in enumerate(each)])
    out = model.model.get_image_features(pixels.to(model.device, model.dtype), grid, return_dict=True)
    sizes = [len(features) for features in out.pooler_output]
    deeper = getattr(out, "deepstack_features", None) or []
    # Older releases leave these joined over the images.
    deeper = [layer.split(sizes) if isinstance(layer, Tensor) else layer for layer in deeper]
    return [
        torch.cat([features, *(layer[i] for layer in deeper)], dim=-1) for i, features in enumerate(out.pooler_output)
    ]


def _view(model: Any, processor: Any, input_image: np.ndarray, scale: float) -> View:
    """The tower has positions for any grid; of patches it takes those of one token together, Qwen2.5-VL's in the order
    of its windows."""
    images = copy(processor.image_processor)
    cell = images.patch_size * images.merge_size
    rows, columns = (max(1, round(side * scale / cell)) for side in input_image.shape[:2])
    shown = Image.fromarray(input_image).resize((columns * cell, rows * cell), Image.Resampling.BICUBIC)
    images.do_resize = False
    [features] = _encode(model, replace(processor, image_processor=images), [np.asarray(shown)])
    order = torch.arange(rows * columns)
    config = model.config.vision_config
    if getattr(config, "window_size", None):
        from transformers.vision_utils import get_vision_window_index

        thw = torch.tensor([[1, rows * images.merge_size, columns * images.merge_size]])
        order, _ = get_vision_window_index(thw, images.merge_size, config.window_size, config.patch_size)
    return View(features, (rows, columns), order.repeat_interleave(images.merge_size**2))


def _place(embeddings: Tensor, where: Tensor, features: Tensor) -> tuple[Tensor, dict[str, Any]]:
    width = embeddings.shape[-1]
    first, *deeper = features.to(embeddings.device, embeddings.dtype).split(width, dim=-1)
    embeddings = put(embeddings, where, first)
    if not deeper:
        return embeddings, {}
    return embeddings, {"visual_pos_masks": where, "deepstack_visual_embeds": deeper}


def _positions(ids: Sequence[int], grids: Sequence[Grid], image_token_id: int) -> Tensor:
    """Text counts on all three axes; an image keeps time still and spreads rows and columns (arXiv 2409.12191)."""
    parts: list[Tensor] = []
    start, at, remaining = 0, 0, list(grids)
    while at < len(ids):
        if ids[at] == image_token_id:
            rows, columns = remaining.pop(0)
            time = torch.full((rows * columns,), start)
            row = torch.arange(rows).repeat_interleave(columns) + start
            column = torch.arange(columns).repeat(rows) + start
            parts.append(torch.stack([time, row, column]))
            at, start = at + rows * columns, start + max(rows, columns)
        else:
            end = next((i for i in range(at, len(ids)) if ids[i] == image_token_id), len(ids))
            parts.append((torch.arange(end - at) + start).expand(3, -1))
            start, at = start + end - at, end
    return torch.cat(parts, dim=1) if parts else torch.zeros(3, 0, dtype=torch.long)


def _family(name: str, prefix: str) -> Family:
    return Family(
        name=name,
        model_class=f"{prefix}ForConditionalGeneration",
        build_processor=_build_processor,
        grid=_grid,
        encode=_encode,
        place=_place,
        positions=_positions,
        axes=3,
        normals=noise,
        view=_view,
        no_view=lambda config: "",
        tower="model.visual",
    )


QWEN2 = _family("qwen2_vl", "Qwen2VL")
QWEN2_5 = _family("qwen2_5_vl", "Qwen2_5_VL")
QWEN3 = _family("qwen3_vl", "Qwen3VL")
