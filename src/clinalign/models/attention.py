"""The one attention of a language model's decoder: torch's fast kernel, and what a single forward may ask of it.

One implementation is installed when a model is loaded. What a forward wants besides the plain result travels with it as
one argument, `AttentionRequest`, so that nothing is switched on or off around it, a failure leaves nothing behind, and
recomputation under gradient checkpointing sees the same request:

- `prefix`: packed rows begin with a stretch in which every token sees all before it; there the causal kernel does
  without a mask and skips what it would hide.
- `query_columns`: in the last layer only keys and values are needed of all tokens; queries, MLP and norms of those
  alone whose hidden states are read.
- `probe`: attention rows of chosen queries, formed beside the fast kernel instead of asking for whole eager maps.
- `rule`: what a decoder changes inside attention.
- `images`, `inputs`: where image tokens stand and the layers' inputs, for `image_projection.py`.

The first two are exact: they change what is computed, never a value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "clinalign"
REQUEST = "attention_request"
"""The argument's name in a forward of the language model."""


class Probe(dict[int, Tensor]):
    """Attention [B, H, R, keys] by layer, fp32, of the queries `queries` [B, R] (indexes into the forward's tokens).

    `layers`: which layers leave theirs (None: all). The first forward counts; gradient checkpointing runs a layer
    again, which changes nothing. With `log` values are logarithms (-inf where a query may not look). Gradients flow.
    """

    def __init__(self, queries: Tensor, *, layers: Sequence[int] | None = None, log: bool = False) -> None:
        super().__init__()
        self.queries, self.log = queries, log
        self.layers = None if layers is None else frozenset(layers)

    def wants(self, layer: int) -> bool:
        """Whether a layer leaves its rows here."""
        return self.layers is None or layer in self.layers

    def record(self, layer: int, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> None:
        """Softmax over all keys of the chosen queries of one layer; query [B, H, Q, d], key [B, G, K, d]."""
        rows, groups = self.queries.to(query.device), query.shape[1] // key.shape[1]
        batch = torch.arange(len(rows), device=query.device)[:, None]
        chosen = query.transpose(1, 2)[batch, rows].transpose(1, 2)
        with torch.autocast(query.device.type, enabled=False):
            shared = chosen.unflatten(1, (-1, groups)).flatten(2, 3).float()  # the queries of one key head together
            scores = (shared @ key.float().transpose(2, 3) * scaling).unflatten(2, (groups, -1)).flatten(1, 2)
        if mask is None:
            shift = key.shape[2] - query.shape[2]
            seen = torch.arange(key.shape[2], device=query.device) <= (rows % query.shape[2])[..., None] + shift
        else:
            seen = mask.expand(len(rows), -1, -1, -1)[:, 0][batch, rows][..., : key.shape[2]]
        # Formed even when it is not kept: recomputation has to repeat the first run operation by operation.
        scores = scores.masked_fill(~seen[:, None], -torch.inf)
        self.setdefault(layer, scores.log_softmax(-1) if self.log else scores.softmax(-1))


@dataclass
class Attention:
    """One layer's attention in one forward, after the rotation of positions: what a rule is given.

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


@dataclass(frozen=True)
class AttentionRequest:
    """What one forward asks of the attention (see above). `prefix`: columns at the start of every row that see all
    before them and nothing else; `query_columns` [B, S]: those whose last hidden states are read; `images` bool [B, L];
    `inputs`: filled with the input of each layer with an image projection by layer."""

    prefix: int = 0
    query_columns: Tensor | None = None
    probe: Probe | None = None
    rule: Rule | None = None
    images: Tensor | None = None
    inputs: dict[int, Tensor] | None = None


NOTHING = AttentionRequest()


def install(decoder: Any) -> Callable[[], None]:
    """Gives a decoder this attention, and a last layer that honours `query_columns` where it is of the usual form.

    Returns what takes both out again.
    """
    before, layer = decoder.config._attn_implementation, decoder.layers[-1]
    decoder.set_attn_implementation(NAME)
    if takes_query_columns(decoder):
        layer.forward = MethodType(_last_layer, layer)
        layer._can_checkpoint_with_cache = True  # `_GivenKeys` is only read, so recomputation may read it again

    def remove() -> None:
        decoder.set_attn_implementation(before)
        whole_last_layer(decoder)

    return remove


def whole_last_layer(decoder: Any) -> None:
    """Gives the last layer its own forward back."""
    for name in ("forward", "_can_checkpoint_with_cache"):
        vars(decoder.layers[-1]).pop(name, None)


def takes_query_columns(decoder: Any) -> bool:
    """Whether the last layer can compute chosen columns alone: rotary attention with the usual projections."""
    attention = getattr(decoder.layers[-1], "self_attn", None)
    if not hasattr(decoder.layers[-1], "input_layernorm"):
        return False
    code = sys.modules[type(attention).__module__]
    parts = ("q_proj", "k_proj", "v_proj", "head_dim")
    return all(hasattr(attention, part) for part in parts) and hasattr(code, "apply_rotary_pos_emb")


def _forward(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    request: AttentionRequest = options.pop(REQUEST, NOTHING)
    scaling = options.get("scaling") or query.shape[-1] ** -0.5
    if request.probe is not None and request.probe.wants(module.layer_idx):
        request.probe.record(module.layer_idx, query, key, attention_mask, scaling)

    def plain() -> Tensor:
        return _plain(module, query, key, value, attention_mask, request.prefix, options)

    if request.rule is None:
        return plain(), None
    return request.rule(Attention(module.layer_idx, query, key, value, attention_mask, scaling, plain)), None


AttentionInterface.register(NAME, _forward)
AttentionMaskInterface.register(NAME, sdpa_mask)  # without one of its own name no mask would be built


def _plain(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, prefix: int, options: dict[str, Any]
) -> Tensor:
    queries, keys = query.shape[2], key.shape[2]
    given = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if given is None else given
    if mask is None and causal and 1 < queries < keys:  # it goes on with its last tokens alone (Gemma 4's shared keys)
        mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)[None, None]
    if not prefix or mask is None or queries != keys:
        return sdpa_attention_forward(module, query, key, value, mask, **options)[0]
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    also = {"scale": options.get("scaling"), "dropout_p": options.get("dropout", 0.0)}
    head, key_head, value_head = (t[:, :, :prefix] for t in (query, key, value))
    parts = [scaled_dot_product_attention(head, key_head, value_head, is_causal=True, **also)]
    if prefix < query.shape[2]:
        rest = mask[:, :, prefix:]
        parts.append(scaled_dot_product_attention(query[:, :, prefix:], key, value, attn_mask=rest, **also))
    return torch.cat([part.transpose(1, 2) for part in parts], dim=1)


class _GivenKeys:
    """Stands in for a key-value cache: the keys and values of all tokens, whatever the layer has for the few."""

    def __init__(self, key: Tensor, value: Tensor) -> None:
        self.given = key, value

    def update(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, L, d]."""
        return self.given


def _last_layer(layer: Any, hidden: Tensor, *beside: Tensor, **options: Any) -> Tensor:
    """The layer's output [B, S, D] for the columns [B, S] asked for of hidden [B, L, D]; all of it if none are.
    `beside`: what else it is given of each token, [B, L, ...]."""
    request: AttentionRequest = options.get(REQUEST, NOTHING)
    columns = request.query_columns
    if columns is None:
        return type(layer).forward(layer, hidden, *beside, **options)
    row = torch.arange(len(columns), device=columns.device)[:, None]
    position = options["position_embeddings"]
    options |= {
        REQUEST: replace(request, prefix=0, query_columns=None),
        "past_key_values": _keys_and_values(layer, hidden, position),
        "position_embeddings": tuple(t.expand(len(columns), -1, -1)[row, columns] for t in position),
        "attention_mask": options["attention_mask"].expand(len(columns), -1, -1, -1)[row, 0, columns][:, None],
        "position_ids": None,
    }
    return type(layer).forward(layer, hidden[row, columns], *(one[row, columns] for one in beside), **options)


def _keys_and_values(layer: Any, hidden: Tensor, position: tuple[Tensor, Tensor]) -> _GivenKeys:
    attention: Any = layer.self_attn
    rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    normed = layer.input_layernorm(hidden)
    shape = (*normed.shape[:-1], -1, attention.head_dim)
    key, value = attention.k_proj(normed).view(shape), attention.v_proj(normed).view(shape)
    if hasattr(attention, "k_norm"):
        key = attention.k_norm(key)
    key = key.transpose(1, 2)
    return _GivenKeys(rotate(key[:, :0], key, *position)[1], value.transpose(1, 2))
