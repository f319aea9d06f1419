"""Med-VCD (Mahdavi et al., 2026, arXiv 2512.01922) on VASparse (Zhuang et al., CVPR 2025, arXiv 2501.06553).

The text of Med-VCD is not public; the names of its parts (VATS, SVCD, SAC) are VASparse's, and so is what is done here:

- visually informed tokens: for each head the prompt's tokens with the largest <q, K>^2 + visual * P stay in the cache,
  q the last prompt token and P the softmax over tokens of their own attention to the image;
- the others are clustered by density peaks of their keys, and each cluster stays as one entry;
- sinks: scores e become (1 + sink) e - sink w e, w the softmax over tokens of the attention each has received;
- contrast: (1 + alpha) z - alpha z', z' the head on the layer-0 state of the newest token, final norm applied: one
  product of a vector and the head instead of a second pass.

Ours, where the sources leave it open: merged entries are means (VASparse's text sums keys, which lets a cluster's score
grow with its size); the choice is made once, after the prompt; masking image tokens at layer 0, as the text describes,
cannot reach the state of the newest token there and is left out; greedy instead of beams; no detector in the loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad

from clinalign.decoding.loop import DecodingSteps, PromptBatch, contrast
from clinalign.decoding.options import MedVCD
from clinalign.models import VLM
from clinalign.models.attention import Attention, AttentionRequest
from clinalign.models.generate import Decoding, advance, prefill

NEIGHBOURS = 5


@dataclass
class Sparse:
    """The rule. Of each layer: `received` [B, H, K], attention each token has drawn so far, and `worth` [B, G, K], what
    speaks for keeping it. images bool [B, L], seen bool [B, L] as `prefill` lays them out."""

    options: MedVCD
    images: Tensor
    seen: Tensor
    received: dict[int, Tensor] = field(default_factory=dict)
    worth: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self, attention: Attention) -> Tensor:
        layer = attention.layer
        if layer in self.received:
            received = pad(self.received[layer], (0, 1))
            weights = self._calibrated(attention.scores(), received, attention.seen()[:, None, -1:]).softmax(-1)
            self.received[layer] = received + weights[:, :, 0]
            return attention.mixed(weights)
        scores = attention.scores()
        weights = scores.softmax(-1) * self.seen[:, None, :, None]
        self.received[layer] = weights.sum(2)
        self.worth[layer] = self._worth(attention, scores[:, :, -1] / attention.scaling, weights)
        seen = attention.seen()[:, None, -1:]
        last = self._calibrated(scores[:, :, -1:], self.received[layer], seen).softmax(-1)
        return torch.cat([attention.plain()[:, :-1], attention.mixed(last)], dim=1)

    def _calibrated(self, scores: Tensor, received: Tensor, seen: Tensor) -> Tensor:
        """Scores [B, H, 1, K] of sinks turned down; received [B, H, K], seen bool [B, 1, 1, K]."""
        if not self.options.sink:
            return scores
        return sunk(scores, received[:, :, None].masked_fill(~seen, -torch.inf), self.options.sink)

    def _worth(self, attention: Attention, products: Tensor, weights: Tensor) -> Tensor:
        """<q, K>^2 + visual * P, summed over the heads that share a key: [B, G, K], -inf on padding."""
        visual = (weights * self.images[:, None, None, :]).sum(-1).mean(1)
        salience = visual.masked_fill(~self.seen, -torch.inf).softmax(-1)
        products = products.masked_fill(~self.seen[:, None], 0.0)
        groups = attention.key.shape[1]
        worth = (products**2 + self.options.visual * salience[:, None]).unflatten(1, (groups, -1)).sum(2)
        return worth.masked_fill(~self.seen[:, None], -torch.inf)


def med_vcd(batch: PromptBatch, options: MedVCD) -> DecodingSteps:
    """One branch; the cache is pruned after the prompt."""
    vlm, longest = batch.vlm, max(map(len, batch.ids))
    seen = torch.zeros(len(batch), longest, dtype=torch.bool)
    last = torch.tensor([ids[-1] for ids in batch.ids])
    for i, ids in enumerate(batch.ids):
        seen[i, longest - len(ids) :] = True
    rule = Sparse(options, batch.images, seen.to(vlm.device))
    request = AttentionRequest(rule=rule)
    state = prefill(vlm, batch.ids, batch.features, batch.grids, request)
    if options.keep < 1:
        prune(state, rule, options)
    exit = vlm.logits(early(vlm, last.to(vlm.device)))
    while True:
        tokens = yield contrast(state.logits, exit, options.alpha, options.beta)
        exit = advance(vlm, state, tokens, request, beside=early(vlm, tokens))


def early(vlm: VLM, tokens: Tensor) -> Tensor:
    """The layer-0 states [B, D] of tokens [B], as the head takes them."""
    return vlm.language_model.norm(vlm.language_model.get_input_embeddings()(tokens))


def sunk(scores: Tensor, received: Tensor, strength: float) -> Tensor:
    """(1 + strength) e - strength w e with w the softmax of what tokens have received; -inf stays."""
    factor = 1 + strength - strength * received.softmax(-1)
    return torch.where(scores > -torch.inf, scores * factor, scores)


def prune(state: Decoding, rule: Sparse, options: MedVCD) -> None:
    """Keeps the worthiest entries of every row, layer and key head, and the merged rest behind them."""
    lengths = state.attention_mask.sum(1).tolist()
    kept = [math.ceil(options.keep * n) for n in lengths]
    merged = [min(options.clusters, n - k) for n, k in zip(lengths, kept, strict=True)]
    sizes = [k + m for k, m in zip(kept, merged, strict=True)]
    width = max(sizes)
    for layer, worth in rule.worth.items():
        cache = state.cache.layers[layer]
        rows = [
            _pruned(
                cache.keys[i], cache.values[i], rule.received[layer][i], worth[i], kept[i], merged[i], options.merge
            )
            for i in range(len(lengths))
        ]
        keys, values, received = zip(*rows, strict=True)
        cache.keys = torch.stack([pad(one, (0, 0, width - one.shape[1], 0)) for one in keys])
        cache.values = torch.stack([pad(one, (0, 0, width - one.shape[1], 0)) for one in values])
        rule.received[layer] = torch.stack([pad(one, (width - one.shape[1], 0)) for one in received])
    entries = torch.arange(width, device=state.attention_mask.device)
    state.attention_mask = entries >= width - torch.tensor(sizes, device=entries.device)[:, None]
    # Which entries are image tokens, and where each stood, now differs from head to head; nothing asks any more.
    state.images = torch.zeros_like(state.attention_mask)
    state.position_ids = state.position_ids[:, -1:].expand(-1, width)


def _pruned(
    keys: Tensor, values: Tensor, received: Tensor, worth: Tensor, kept: int, merged: int, merge: str
) -> tuple[Tensor, Tensor, Tensor]:
    """One row's keys and values [G, K, d] and received [H, K] as [G, kept + merged, d] and [H, kept + merged]."""
    order = worth.argsort(dim=-1, descending=True, stable=True)[:, : int((worth[0] > -torch.inf).sum())]
    stay, leave = order[:, :kept].sort(-1).values, order[:, kept:]
    index = stay[..., None].expand(-1, -1, keys.shape[-1])
    groups, heads = len(keys), len(received)
    drawn = received.unflatten(0, (groups, heads // groups))
    parts = [
        [keys.gather(1, index)],
        [values.gather(1, index)],
        [drawn.gather(2, stay[:, None].expand(-1, heads // groups, -1))],
    ]
    if merged:
        gone = leave[..., None].expand(-1, -1, keys.shape[-1])
        lost_keys, lost_values = keys.gather(1, gone), values.gather(1, gone)
        members = clusters(lost_keys.float(), merged)
        share = members / members.sum(-1, keepdim=True) if merge == "mean" else members
        parts[0].append((share @ lost_keys.float()).to(keys.dtype))
        parts[1].append((share @ lost_values.float()).to(values.dtype))
        gathered = drawn.gather(2, leave[:, None].expand(-1, heads // groups, -1))
        parts[2].append(gathered @ members.transpose(1, 2))
    new_keys, new_values, new_received = torch.cat(parts[0], 1), torch.cat(parts[1], 1), torch.cat(parts[2], 2)
    return new_keys, new_values, new_received.flatten(0, 1)


def clusters(keys: Tensor, count: int) -> Tensor:
    """Membership [G, count, n] (0 or 1, each column sums to 1) of keys [G, n, d] by k-nearest-neighbour density peaks.

    Density is exp(- mean squared distance to the nearest neighbours); the centres are the entries with the largest
    product of density and distance to the next denser one (arXiv 1601.00182's kNN form of density peaks).
    """
    n = keys.shape[1]
    distance = torch.cdist(keys, keys)
    near = distance.topk(min(NEIGHBOURS + 1, n), largest=False).values
    scale = distance.amax((1, 2), keepdim=True).clamp(min=1e-9)
    density = torch.exp(-((near / scale) ** 2).mean(-1))
    # Ties in density go to the earlier entry, so that exactly one entry has no denser one.
    rank = density.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    denser = rank[:, None, :] < rank[:, :, None]
    apart = distance.masked_fill(~denser, torch.inf).amin(-1)
    apart = torch.where(apart.isinf(), distance.amax(-1), apart)
    centres = (density * apart).topk(count).indices
    nearest = distance.gather(2, centres[:, None].expand(-1, n, -1))
    own = torch.arange(count, device=keys.device)
    chosen = nearest.argmin(-1)
    chosen = chosen.scatter(1, centres, own.expand(len(keys), -1))
    return (chosen[:, None, :] == own[None, :, None]).to(keys.dtype)
