"""Attentional vision calibration (Woo et al., arXiv 2405.17820).

At the first step the layers that hold most of the attention to the image are chosen; image tokens that draw at least
mean + lam standard deviations of it there are called blind. The contrast branch keeps only these: the embeddings of the
others are zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clinalign.decoding.loop import DecodingSteps, PromptBatch, contrast, halves
from clinalign.decoding.options import AvisC
from clinalign.models.attention import AttentionRequest, Probe
from clinalign.models.generate import advance, prefill


def avisc(batch: PromptBatch, options: AvisC) -> DecodingSteps:
    """A prefill that is watched, then two branches in one batch."""
    state = prefill(batch.vlm, *batch.pair(blind_features(batch, options.gamma, options.lam)))
    while True:
        tokens = yield contrast(*halves(state.logits), options.alpha, options.beta)
        advance(batch.vlm, state, tokens.repeat(2))


def blind_features(batch: PromptBatch, gamma: float, lam: float) -> list[list[Tensor]]:
    """Features of every prompt's images with all but the blind tokens set to zero."""
    longest = max(map(len, batch.ids))
    probe = Probe(torch.full((len(batch), 1), longest - 1))
    state = prefill(batch.vlm, batch.ids, batch.features, batch.grids, AttentionRequest(probe=probe))
    looked = torch.stack([probe[layer][:, :, 0].mean(1) for layer in sorted(probe)], dim=1)
    out: list[list[Tensor]] = []
    for i, own in enumerate(batch.features):
        if not own:
            out.append([])
            continue
        kept = blind(looked[i][:, state.images[i]], gamma, lam)
        parts = kept.split([len(one) for one in own])
        out.append([one * part[:, None].to(one) for one, part in zip(own, parts, strict=True)])
    return out


def blind(attention: Tensor, gamma: float, lam: float) -> Tensor:
    """Which image tokens are blind, bool [N]; attention [layers, N] of the last prompt token."""
    mass = attention.sum(1)
    shares, order = (mass / mass.sum()).sort(descending=True)
    count = int((shares.cumsum(0) < gamma).sum()) + 1
    mean = attention[order[:count]].mean(0)
    return mean >= mean.mean() + lam * mean.std(correction=0)
