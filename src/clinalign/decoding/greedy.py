"""Greedy and sampled decoding: the model's own scores."""

from __future__ import annotations

from clinalign.decoding.loop import DecodingSteps, PromptBatch
from clinalign.decoding.options import Sampling
from clinalign.models.generate import advance, prefill


def greedy(batch: PromptBatch, options: Sampling) -> DecodingSteps:
    """The model's logits; `options.temperature` says whether the best one is taken or one is drawn."""
    state = prefill(batch.vlm, batch.ids, batch.features, batch.grids)
    while True:
        tokens = yield state.logits
        advance(batch.vlm, state, tokens)
