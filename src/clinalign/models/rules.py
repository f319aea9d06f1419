"""Attention with a rule: what a decoder changes inside attention, without hooks and without touching the model's code.

A rule travels as an argument of the forward and so belongs to one call of one model; `ruled` only says that the model's
attention shall look for it. Both together leave nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from clinalign.errors import UsageError
from clinalign.models.vlm import VLM

NAME = "sdpa_rule"
SLOT = "attention_rule"


@dataclass
class Attention:
    """One layer's attention in one forward, after the rotation of positions.

    query [B, H, Q, d]; key, value [B, G, K, d], H / G query heads share one; mask bool [B, 1, Q, K] or None (causal).
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float
    plain: Callable[[], Tensor]
    """The output [B, Q, H, d] without any rule."""

    def seen(self) -> Tensor:
        """Which keys a query may look at, bool [B, Q, K]."""
        rows, _, queries, _ = self.query.shape
        keys = self.key.shape[2]
        if self.mask is not None:
            return self.mask[:, 0, :, :keys].expand(rows, -1, -1)
        there = torch.ones(queries, keys, dtype=torch.bool, device=self.query.device)
        return there.tril(keys - queries).expand(rows, -1, -1)

    def scores(self, first: int = 0) -> Tensor:
        """Scaled products of the queries from `first` on with all keys, fp32 [B, H, Q', K], -inf where not seen."""
        query = self.query[:, :, first:]
        rows, heads, queries, width = query.shape
        groups = self.key.shape[1]
        grouped = query.reshape(rows, groups, heads // groups * queries, width)
        scores = (grouped.float() @ self.key.float().transpose(2, 3)).view(rows, heads, queries, -1) * self.scaling
        return scores.masked_fill(~self.seen()[:, None, first:], -torch.inf)

    def mixed(self, weights: Tensor) -> Tensor:
        """Values weighed by `weights` [B, H, Q', K], in the value's type: [B, Q', H, d]."""
        rows, heads, queries, keys = weights.shape
        groups = self.value.shape[1]
        grouped = weights.to(self.value.dtype).reshape(rows, groups, heads // groups * queries, keys)
        return (grouped @ self.value).view(rows, heads, queries, -1).transpose(1, 2)


Rule = Callable[[Attention], Tensor]
"""Gives the layer's output [B, Q, H, d]."""


def _forward(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    rule: Rule | None = options.pop(SLOT, None)

    def plain() -> Tensor:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0]

    if rule is None:
        return plain(), None
    scaling = options.get("scaling") or query.shape[-1] ** -0.5
    return rule(Attention(module.layer_idx, query, key, value, attention_mask, scaling, plain)), None


AttentionInterface.register(NAME, _forward)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def ruled(vlm: VLM) -> Iterator[None]:
    """While open, forwards of the language model obey the rule given to them as the argument `attention_rule`."""
    model = vlm.language_model
    before = model.config._attn_implementation
    if before == NAME:
        raise UsageError(f"{vlm.name}: another decoder is at work on this model; finish or close it first")
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
