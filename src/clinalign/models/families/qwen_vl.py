"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL: images of any size, three-axis positions (M-RoPE), features for deeper layers.

Qwen3-VL's tower gives, besides the features that stand in for the image tokens, one more set for each of the first K
decoder layers (DeepStack, arXiv 2406.04334); they are added to the hidden states of the image positions there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinalign.models.families.family import Change, Family, Grid, Parts, put


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


def _normals(processor: Any, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """A still image comes as several equal frames, so its noise does too."""
    frames, patch = processor.image_processor.temporal_patch_size, processor.image_processor.patch_size
    drawn = torch.randn(len(pixels), pixels.shape[1] // frames // patch**2, 1, patch**2, generator=generator)
    return drawn.expand(-1, -1, frames, -1).reshape(pixels.shape)


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
        normals=_normals,
    )


QWEN2 = _family("qwen2_vl", "Qwen2VL")
QWEN2_5 = _family("qwen2_5_vl", "Qwen2_5_VL")
QWEN3 = _family("qwen3_vl", "Qwen3VL")
