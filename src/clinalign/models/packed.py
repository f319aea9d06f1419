"""What a packed forward need not compute: masked halves of causal attention, and a last layer for tokens nobody reads.

A packed row begins with a stretch in which every token sees all before it; there the causal kernel does without a mask
and skips what it would hide. In the last decoder layer only keys and values are needed of all tokens; queries, MLP and
norms of those alone whose hidden states are read. Both are exact, and both are asked for by arguments of the language
model, so that recomputation sees them too.
"""

from __future__ import annotations

import sys
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "sdpa_packed"
PREFIX, READS = "causal_prefix", "read_columns"
PROBE = "attention_probe"
"""Argument by which a forward is given attention rows to fill (`probe.Rows`): the layers probed need all queries."""


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    prefix = options.pop(PREFIX, 0)
    if not prefix or attention_mask is None or query.shape[2] != key.shape[2]:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    also = {"scale": options.get("scaling"), "dropout_p": options.get("dropout", 0.0)}
    head, keys, values = (t[:, :, :prefix] for t in (query, key, value))
    parts = [scaled_dot_product_attention(head, keys, values, is_causal=True, **also)]
    if prefix < query.shape[2]:
        mask = attention_mask[:, :, prefix:]
        parts.append(scaled_dot_product_attention(query[:, :, prefix:], key, value, attn_mask=mask, **also))
    return torch.cat([part.transpose(1, 2) for part in parts], dim=1), None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


class _Known:
    """Stands in for a key-value cache: the keys and values of all tokens, whatever the layer has for the few."""

    def __init__(self, key: Tensor, value: Tensor) -> None:
        self.known = key, value

    def update(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, L, d]."""
        return self.known


def install(decoder: Any) -> bool:
    """Makes a decoder take `PREFIX`, and `READS` where its last layer is of the usual form; returns whether it is."""
    if decoder.config._attn_implementation == "sdpa":
        decoder.set_attn_implementation(NAME)
    layer = decoder.layers[-1]
    attention, code = layer.self_attn, sys.modules[type(layer.self_attn).__module__]
    parts = ("q_proj", "k_proj", "v_proj", "head_dim")
    if not all(hasattr(attention, part) for part in parts) or not hasattr(code, "apply_rotary_pos_emb"):
        return False
    layer.forward = MethodType(_last_layer, layer)
    layer._can_checkpoint_with_cache = True  # `_Known` is only read, so recomputation may read it again
    return True


def _last_layer(layer: Any, hidden: Tensor, **options: Any) -> Tensor:
    """The layer's output [B, S, D] for the columns `READS` [B, S] of hidden [B, L, D]; all of it without them."""
    columns = options.pop(READS, None)
    if columns is None:
        return type(layer).forward(layer, hidden, **options)
    row = torch.arange(len(columns), device=columns.device)[:, None]
    position = options["position_embeddings"]
    options |= {
        "past_key_values": _keys_and_values(layer, hidden, position),
        "position_embeddings": tuple(t.expand(len(columns), -1, -1)[row, columns] for t in position),
        "attention_mask": options["attention_mask"].expand(len(columns), -1, -1, -1)[row, 0, columns][:, None],
        "position_ids": None,
    }
    return type(layer).forward(layer, hidden[row, columns], **options)


def _keys_and_values(layer: Any, hidden: Tensor, position: tuple[Tensor, Tensor]) -> _Known:
    attention: Any = layer.self_attn
    rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    normed = layer.input_layernorm(hidden)
    shape = (*normed.shape[:-1], -1, attention.head_dim)
    key, value = attention.k_proj(normed).view(shape), attention.v_proj(normed).view(shape)
    if hasattr(attention, "k_norm"):
        key = attention.k_norm(key)
    key = key.transpose(1, 2)
    return _Known(rotate(key[:, :0], key, *position)[1], value.transpose(1, 2))
