"""The naive path of a family loaded with `naive=True`: every answer under every image in a pass of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from clinalign.models import VLM
from clinalign.models.dropout import token_keys
from clinalign.models.families.unknown import inputs
from clinalign.models.features import Features
from clinalign.training.batches import Batch
from clinalign.training.encode import SIDES


def separate_rows(vlm: VLM, batch: Batch, features: Features) -> Tensor:
    """The hidden states [R, D] that predict a batch's scored tokens, as `packed_rows` gives them."""
    passes: dict[tuple[int, bool, str], Tensor] = {}
    rows = []
    for pair, corrupt, slots in zip(batch.pair.tolist(), batch.corrupt.tolist(), batch.slots.t().tolist(), strict=True):
        side = SIDES[0] if slots[0] >= 0 else SIDES[1]
        key = (pair, corrupt, side)
        if key not in passes:
            passes[key] = _answer_states(vlm, batch, features, *key)
        rows.append(passes[key][max(slots)])
    return torch.stack(rows) if rows else torch.zeros(0, vlm.head.weight.shape[1], device=vlm.device)


def _answer_states(vlm: VLM, batch: Batch, features: Features, pair: int, corrupt: bool, side: str) -> Tensor:
    """Last hidden states [T, D] before each of the T tokens of one answer."""
    sample = batch.samples[pair]
    images = [features.read(key) for key in (sample.corrupted or [] if corrupt else sample.images)]
    answer = sample.answers[side]
    given = inputs(vlm.processor, vlm.prompt_text(sample.text, len(images)), images, answer)
    if vlm.peft is not None and vlm.peft.training:
        # Each pass is one answer alone: a stream of its own is enough, and checkpointing restores it.
        vlm.peft.masks.tokens(None)
        torch.manual_seed(int(token_keys(sample.id, corrupt, side, vlm.peft.masks.draw, count=1)[0]))
    given = {name: v.to(vlm.device, vlm.dtype if v.is_floating_point() else None) for name, v in given.items()}
    hidden = vlm.model.model(**given, use_cache=False).last_hidden_state[0]
    return hidden[-len(answer) - 1 : -1]
