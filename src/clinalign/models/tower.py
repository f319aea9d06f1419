"""Where a vision tower itself looks, and what it makes of an image at another size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from clinalign.errors import UsageError
from clinalign.models.families.family import Grid
from clinalign.models.geometry import as_rgb
from clinalign.models.vlm import VLM

TOWER = "clip_vision_model"
NAME = "clinalign_maps"
_open: list[list[Tensor]] = []
"""Where the attention of the tower that is watched goes: [B, Q, Q], mean over heads, a call after the other."""


def no_class_attention(vlm: VLM) -> str:
    """Why the tower has no class token to ask, "" where it has one."""
    config = vlm.model.config
    kind = getattr(getattr(config, "vision_config", None), "model_type", "") or "of its own"
    if kind != TOWER:
        return f"it asks the class token of a CLIP tower, and this tower is another ({kind})"
    if vlm.family.name != "llava":
        return "it asks one class token for the image, and this tower sees tiles or is read at several layers"
    if config.vision_feature_select_strategy != "default":
        return "it keeps the tower's class token among its image tokens"
    return ""


@torch.no_grad()
def class_attention(vlm: VLM, images: Sequence[np.ndarray]) -> list[Tensor]:
    """The class token's attention to the patches in the tower's last layer, mean over heads: [N] for each image.

    Raises `UsageError` where `no_class_attention` says why there is none.
    """
    if why := no_class_attention(vlm):
        raise UsageError(f"{vlm.name}: {why}")
    tower = vlm.model.get_submodule(vlm.family.tower)
    given = vlm.processor.image_processor(images=[as_rgb(image) for image in images], return_tensors="pt")
    with vlm.evaluating(), _watched(tower) as maps:
        tower(given["pixel_values"].to(vlm.device, vlm.dtype))
    return list(maps[-1][:, 0, 1:])


def _watching(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    scores = query.float() @ key.float().transpose(2, 3) * (options.get("scaling") or query.shape[-1] ** -0.5)
    if attention_mask is not None:
        hidden = ~attention_mask if attention_mask.dtype == torch.bool else attention_mask < 0
        scores = scores.masked_fill(hidden, -torch.inf)
    _open[-1].append(scores.softmax(-1).mean(1))
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0], None


AttentionInterface.register(NAME, _watching)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def _watched(tower: Any) -> Iterator[list[Tensor]]:
    """While open, what a vision tower's attention is goes into the list."""
    before = tower.config._attn_implementation
    tower.set_attn_implementation(NAME)
    _open.append([])
    try:
        yield _open[-1]
    finally:
        _open.pop()
        tower.set_attn_implementation(before)


@dataclass(frozen=True)
class TowerFeatures:
    """One image at one size: features [n, F] of a grid of tokens, and how much each draws from each, [n, n]."""

    features: Tensor
    attention: Tensor
    grid: Grid


def no_views(vlm: VLM) -> str:
    """Why the model has no features of an image at another size, "" where it has."""
    return vlm.family.no_view(vlm.model.config)


@torch.no_grad()
def tower_features(vlm: VLM, images: Sequence[np.ndarray], scale: float) -> list[TowerFeatures]:
    """Images at `scale` times the side at which the model sees them, in whole tokens, through tower and projector.

    Positions are the tower's own: an interpolated table, or what it computes for a grid. Its attention is the mean over
    heads and over the layers that lead to the features, class token left out, of a token's patches together, rows
    summing to one. Raises `UsageError` where `no_views` says why the tower cannot do this.
    """
    if why := no_views(vlm):
        raise UsageError(f"{vlm.name}: {why}")
    assert vlm.family.view is not None
    tower, found = vlm.model.get_submodule(vlm.family.tower), []
    for image in images:
        with vlm.evaluating(), _watched(tower) as maps:
            view = vlm.family.view(vlm.model, vlm.processor, vlm.input_image(image), scale)
        owners = view.owners.to(vlm.device)
        whole = [m[-len(owners) :, -len(owners) :] for m in _layers([m[0] for m in maps], len(owners))]
        read = getattr(vlm.model.config, "vision_feature_layer", -1)
        used = len(whole) + 1 + read if read < 0 else read
        mean = torch.stack(whole[: max(1, used)]).mean(0)
        count = len(view.features)
        drawn = torch.zeros(len(owners), count, device=mean.device).index_add_(1, owners, mean)
        drawn = torch.zeros(count, count, device=mean.device).index_add_(0, owners, drawn)
        found.append(TowerFeatures(view.features, drawn / drawn.sum(-1, keepdim=True), view.grid))
    return found


def _layers(maps: Sequence[Tensor], patches: int) -> list[Tensor]:
    """Whole maps, one a layer, of attention that was formed in parts: windows stand beside one another."""
    whole: list[Tensor] = []
    parts: list[Tensor] = []
    for one in maps:
        parts.append(one)
        if sum(map(len, parts)) >= patches:
            whole.append(torch.block_diag(*parts))
            parts = []
    return whole
