"""Vision-aware head divergence and reinforcement (He et al., ACL 2025, arXiv 2412.13949).

A head's divergence is how far its output for the newest token moves when the image is taken out of the prompt. Heads
whose divergence comes with an unusual activation of the text alone count as 0; those above their layer's median are
scaled. One batch of two rows per prompt does it in one prefill, layer by layer; the set is then fixed and the row
without image dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from clinalign.decoding.loop import Batch, Steps
from clinalign.decoding.options import VHR
from clinalign.models import VLM
from clinalign.models.attention import Attention, AttentionRequest
from clinalign.models.generate import advance, encode_prompts, prefill


class Reinforce:
    """The rule. `factors`: of each layer [B, H], chosen when it first sees the layer."""

    def __init__(self, layers: Sequence[int], scale: float) -> None:
        self.layers, self.scale, self.factors = frozenset(layers), scale, dict[int, Tensor]()

    def __call__(self, attention: Attention) -> Tensor:
        out = attention.plain()
        if attention.layer not in self.layers:
            return out
        first = attention.layer not in self.factors
        if first:
            chosen = vision_aware(*out[:, -1].float().chunk(2))
            self.factors[attention.layer] = torch.where(chosen, self.scale, 1.0)
        factors = self.factors[attention.layer].repeat(2, 1) if first else self.factors[attention.layer]
        last = out[:, -1:] * factors[:, None, :, None].to(out.dtype)
        # Only the newest token: the paper leaves open whether the prompt's other positions are scaled.
        return torch.cat([out[:, :-1], last], dim=1)


def vhr(batch: Batch, options: VHR) -> Steps:
    """One batch with and without images for the prefill, the prompts alone from then on."""
    vlm = batch.vlm
    depth = len(vlm.language_model.layers)
    layers = {1, *range(max(0, depth - options.last_layers), depth)} & set(range(depth))
    request = AttentionRequest(rule=Reinforce(sorted(layers), options.scale))
    state = prefill(vlm, *batch.pair_blind(), request)
    state.select(torch.arange(len(batch), device=vlm.device))
    while True:
        tokens = yield state.logits
        advance(vlm, state, tokens, request)


def vision_aware(seeing: Tensor, blind: Tensor) -> Tensor:
    """Which heads are reinforced, bool [B, H], from their outputs [B, H, d] with and without the image."""
    moved, text = divergence(seeing, blind), blind.norm(dim=-1)
    moved = moved.masked_fill(_outlying(moved) & _outlying(text), 0.0)
    return moved > moved.quantile(0.5, dim=-1, keepdim=True)


def divergence(seeing: Tensor, blind: Tensor) -> Tensor:
    """VHD: the distance of two outputs, [..., H, d] -> [..., H]."""
    return (seeing - blind).norm(dim=-1)


def _outlying(values: Tensor) -> Tensor:
    """Above the mean by more than a (population) standard deviation over the heads."""
    return values > values.mean(-1, keepdim=True) + values.std(-1, correction=0, keepdim=True)


class Heads:
    """A rule that changes nothing and keeps each layer's head outputs from position `first` on, [B, T, H, d] fp32."""

    def __init__(self, first: int) -> None:
        self.first, self.outputs = first, dict[int, Tensor]()

    def __call__(self, attention: Attention) -> Tensor:
        out = attention.plain()
        self.outputs[attention.layer] = out[:, self.first :].float()
        return out


@torch.no_grad()
def head_divergence(vlm: VLM, prompt: str, images: Sequence[np.ndarray], answer: Sequence[int]) -> Tensor:
    """VHD of every head for every token of an answer, [T, layers, H]; one forward with and one without the images."""
    ids, features, grids = encode_prompts(vlm, [(prompt, images)])
    rule = Heads(-len(answer))
    rows = [ids[0] + list(answer)[:-1], vlm.expand(prompt, []) + list(answer)[:-1]]
    with vlm.evaluating():
        prefill(vlm, rows, [features[0], []], [grids[0], []], AttentionRequest(rule=rule))
    return torch.stack([divergence(*rule.outputs[layer]) for layer in sorted(rule.outputs)], dim=1)


def token_divergence(heads: Tensor, top: int) -> Tensor:
    """T-VHD [T] from VHD [T, layers, H]: the sum over layers of each layer's `top` largest."""
    return heads.topk(min(top, heads.shape[-1]), dim=-1).values.sum((-1, -2))
