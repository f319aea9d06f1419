"""Attention rows of chosen queries, formed beside the fast kernel instead of asking for whole eager maps.

Registered under its own name together with a mask builder: without that the mask would silently be None.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from clinalign.models import packed
from clinalign.models.generate import encode_prompts, prefill
from clinalign.models.vlm import VLM

NAME = "sdpa_probe"
SLOT = packed.PROBE


class Rows(dict[int, Tensor]):
    """Attention [B, H, R, keys] by layer, fp32, of the queries `queries` [B, R] (indexes into the forward's tokens).

    The first forward after `clear` counts; gradient checkpointing runs a layer again, which changes nothing. With `log`
    the values are logarithms (-inf where a query may not look). Besides `attention_rows`, which names the layers, a
    forward may be given one as its argument `attention_probe`; `layers` then says which layers write into it.
    """

    def __init__(self, queries: Tensor, *, layers: Sequence[int] = (), log: bool = False) -> None:
        super().__init__()
        self.queries, self.layers, self.log = queries, frozenset(layers), log

    def record(self, layer: int, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, groups: int) -> None:
        """Softmax over all keys of the chosen queries of one layer; query [B, H, Q, d], key [B, H / groups, K, d]."""
        rows = self.queries.to(query.device)
        batch = torch.arange(len(rows), device=query.device)[:, None]
        chosen = query.transpose(1, 2)[batch, rows].transpose(1, 2)
        with torch.autocast(query.device.type, enabled=False):
            shared = chosen.unflatten(1, (-1, groups)).flatten(2, 3).float()  # the queries of one key head together
            scores = (shared @ key.float().transpose(2, 3) * scaling).unflatten(2, (groups, -1)).flatten(1, 2)
        if mask is None:
            shift = key.shape[2] - query.shape[2]
            seen = torch.arange(key.shape[2], device=query.device) <= rows[..., None] + shift
        else:
            seen = mask.expand(len(rows), -1, -1, -1)[:, 0][batch, rows][..., : key.shape[2]]
        # Formed even when it is not kept: recomputation has to repeat the first run operation by operation.
        scores = scores.masked_fill(~seen[:, None], -torch.inf)
        self.setdefault(layer, scores.log_softmax(-1) if self.log else scores.softmax(-1))


def _forward(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    given: Rows | None = options.pop(SLOT, None)
    wanted = given is not None and module.layer_idx in given.layers
    for rows in (getattr(module, SLOT, None), given if wanted else None):
        if rows is not None:
            scaling = options.get("scaling") or query.shape[-1] ** -0.5
            rows.record(module.layer_idx, query, key, attention_mask, scaling, query.shape[1] // key.shape[1])
    return ALL_ATTENTION_FUNCTIONS[packed.NAME](module, query, key, value, attention_mask, **options)


AttentionInterface.register(NAME, _forward)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def attention_rows(vlm: VLM, queries: Tensor, layers: Sequence[int] | None = None) -> Iterator[Rows]:
    """While open, forwards of the language model leave the attention of `queries` [B, R] in the yielded `Rows`.

    `layers`: which decoder layers (all of them if None). Gradients flow through the rows.
    """
    model, rows = vlm.language_model, Rows(queries)
    wanted = range(len(model.layers)) if layers is None else layers
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    for i in wanted:
        setattr(model.layers[i].self_attn, SLOT, rows)
    try:
        yield rows
    finally:
        for i in wanted:
            delattr(model.layers[i].self_attn, SLOT)
        model.set_attn_implementation(before)


@torch.no_grad()
def prompt_attention(vlm: VLM, prompt: str, images: Sequence[np.ndarray]) -> Tensor:
    """Attention of the last prompt token to each image token, by layer and head: [layers, H, N], fp32."""
    ids, features, grids = encode_prompts(vlm, [(prompt, images)])
    with attention_rows(vlm, torch.tensor([[len(ids[0]) - 1]])) as rows:
        prefill(vlm, ids, features, grids)
    image = torch.tensor(ids[0]) == vlm.image_token_id
    return torch.stack([rows[i][0, :, 0][:, image.to(vlm.device)] for i in sorted(rows)])
