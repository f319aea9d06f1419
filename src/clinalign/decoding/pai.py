"""Paying more attention to the image (Liu et al., ECCV 2024, arXiv 2407.21771).

In layers `first_layer` and up the newest token's scores e of image tokens become e + alpha |e| before the softmax; then
the log-probabilities are guided away from those without image: gamma (s - u) + u. Every prefill is boosted; in the
official release the first one of a run is not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clinalign.decoding.loop import DecodingSteps, PromptBatch, halves, plausible
from clinalign.decoding.options import PAI
from clinalign.models.attention import NOTHING, Attention, AttentionRequest
from clinalign.models.generate import advance, prefill


class Boost:
    """The rule: `images` bool [B, K] tells image tokens among the keys."""

    def __init__(self, alpha: float, first_layer: int, images: Tensor) -> None:
        self.alpha, self.first_layer, self.images = alpha, first_layer, images

    def __call__(self, attention: Attention) -> Tensor:
        if attention.layer < self.first_layer:
            return attention.plain()
        scores = attention.scores(first=attention.query.shape[2] - 1)
        images = torch.nn.functional.pad(self.images, (0, scores.shape[-1] - self.images.shape[1]))
        boosted = torch.where(images[:, None, None], scores + self.alpha * scores.abs(), scores)
        last = attention.mixed(boosted.softmax(-1))
        if attention.query.shape[2] == 1:
            return last
        return torch.cat([attention.plain()[:, :-1], last], dim=1)


def pai(batch: PromptBatch, options: PAI) -> DecodingSteps:
    """Two branches in one batch, the second without images: it has no image tokens, so the rule leaves it as it is."""
    vlm, (ids, features, grids) = batch.vlm, batch.pair_text_only()
    longest = max(map(len, ids))
    images = torch.zeros(len(ids), longest, dtype=torch.bool)
    for i, row in enumerate(ids):
        images[i, longest - len(row) :] = torch.tensor(row) == vlm.image_token_id
    rule = Boost(options.alpha, options.first_layer, images.to(vlm.device))
    request = AttentionRequest(rule=rule) if options.alpha else NOTHING
    state = prefill(vlm, ids, features, grids, request)
    while True:
        clean, blind = (branch.log_softmax(-1) for branch in halves(state.logits))
        tokens = yield plausible(options.gamma * (clean - blind) + blind, clean, options.beta)
        advance(vlm, state, tokens.repeat(2), request)
