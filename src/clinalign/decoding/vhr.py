"""Vision-aware head divergence and reinforcement (He et al., ACL 2025, arXiv 2412.13949).

A head's divergence is how far its output for the newest token moves when the image is taken out of the prompt. Heads
whose divergence comes with an unusual activation of the text alone count as 0; those above their layer's median are
scaled. One prefill does it layer by layer: the prompt without image stands behind the prompt in the same row, neither
sees the other, and the short one costs what it is long. The set is then fixed and the prompt without image dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from clinalign.decoding.loop import DecodingSteps, PromptBatch
from clinalign.decoding.options import VHR
from clinalign.models import VLM
from clinalign.models.attention import Attention, AttentionRequest
from clinalign.models.generate import advance, encode_prompts, prefill

ROUNDING = 8
"""Units in the last place within which a head's output stands still."""


class Reinforce:
    """The rule. `factors`: of each layer [B, H], chosen when it first sees the layer, in rows whose first columns are
    the prompt and whose others are the prompt without image. images bool [B, L]: image tokens of the prompts; where a
    prompt has none, nothing moves with the image, whatever the last digits say."""

    def __init__(self, layers: Sequence[int], scale: float, images: Tensor) -> None:
        self.layers, self.scale = frozenset(layers), scale
        self.length, self.has_image = images.shape[1], images.any(1, keepdim=True)
        self.factors: dict[int, Tensor] = {}

    def __call__(self, attention: Attention) -> Tensor:
        out = attention.plain()
        if attention.layer not in self.layers:
            return out
        newest = [-1]
        if attention.layer not in self.factors:
            newest = [self.length - 1, -1]
            rounding = ROUNDING * torch.finfo(out.dtype).eps
            seeing, text_only = out[:, newest].float().unbind(1)
            chosen = vision_aware(seeing, text_only, rounding) & self.has_image
            self.factors[attention.layer] = torch.where(chosen, self.scale, 1.0)
        # Only the newest token: the paper leaves open whether the prompt's other positions are scaled.
        out[:, newest] *= self.factors[attention.layer][:, None, :, None].to(out.dtype)
        return out


def vhr(batch: PromptBatch, options: VHR) -> DecodingSteps:
    """One prefill of the prompts with and without images, the prompts alone from then on."""
    vlm = batch.vlm
    depth = len(vlm.language_model.layers)
    layers = {1, *range(max(0, depth - options.last_layers), depth)} & set(range(depth))
    request = AttentionRequest(rule=Reinforce(sorted(layers), options.scale, batch.images))
    state = prefill(vlm, batch.ids, batch.features, batch.grids, request, beside=batch.text_only[0])
    while True:
        tokens = yield state.logits
        advance(vlm, state, tokens, request)


def vision_aware(seeing: Tensor, text_only: Tensor, rounding: float = 0.0) -> Tensor:
    """Which heads are reinforced, bool [B, H], from their outputs [B, H, d] with and without the image.

    A head that moves by no more than `rounding` of its length does not move: a window has left no image in sight.
    """
    moved, text = divergence(seeing, text_only), text_only.norm(dim=-1)
    moved = moved.masked_fill(moved <= rounding * text, 0.0)
    moved = moved.masked_fill(_outlying(moved) & _outlying(text), 0.0)
    return moved > moved.quantile(0.5, dim=-1, keepdim=True)


def divergence(seeing: Tensor, text_only: Tensor) -> Tensor:
    """VHD: the distance of two outputs, [..., H, d] -> [..., H]."""
    return (seeing - text_only).norm(dim=-1)


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
