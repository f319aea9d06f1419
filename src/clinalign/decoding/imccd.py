"""Inter-modality correlation calibration decoding (Li et al., arXiv 2501.01926; its third version is named CMAC).

The contrast branch keeps its attention but loses what it attends to: wherever a text token after the image scores an
image token above the layer's mean score, the image token's value is replaced by the mean value of the image. Both
branches also see the image nearer than its many tokens put it:

- `version: imccd` (CDAR): attention is mixed, gamma parts of it with the image at a single position;
- `version: cmac` (CMPC): the scores of image tokens are taken with their positions divided by gamma.

The mean value is taken for each dimension; the official code takes one number a head (`variant: code`). Whether the
distorted branch is calibrated too is not said; here it is, so that the branches differ in the erased values alone. The
extra rule for captions (no contrast at steps that look little at the image) is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from clinalign.decoding.loop import Batch, Steps, contrast, halves
from clinalign.decoding.options import IMCCD
from clinalign.models.attention import Attention, AttentionRequest
from clinalign.models.generate import advance, prefill


def imccd(batch: Batch, options: IMCCD) -> Steps:
    """Clean and distorted branch in one batch; the distorted one keeps its own cache."""
    vlm = batch.vlm
    features = [row for row in batch.features]
    request = AttentionRequest(rule=Calibrated.of(batch, options))
    state = prefill(vlm, *batch.pair(features), request)
    while True:
        tokens = yield contrast(*halves(state.logits), options.alpha, options.beta)
        advance(vlm, state, tokens.repeat(2), request)


@dataclass
class Calibrated:
    """The rule, for rows [clean | distorted]. images bool [B, L]: image tokens; after bool [B, L]: text behind one;
    nearer [A, B, L]: how far each token's position moves; rotary: the model's rotation, angles from positions."""

    options: IMCCD
    images: Tensor
    after: Tensor
    nearer: Tensor
    rotary: Any
    moved: dict[int, Tensor] = field(default_factory=dict)
    """Keys rotated to their displaced positions, by layer: each is rotated once."""

    @classmethod
    def of(cls, batch: Batch, options: IMCCD) -> Calibrated:
        """For a batch, padded on the left as `prefill` pads it."""
        vlm, longest = batch.vlm, max(map(len, batch.ids))
        images = torch.zeros(len(batch), longest, dtype=torch.bool)
        after, nearer = images.clone(), torch.zeros(vlm.functions.axes, len(batch), longest)
        for i, ids in enumerate(batch.ids):
            there = torch.tensor(ids) == vlm.image_token_id
            images[i, longest - len(ids) :] = there
            after[i, longest - len(ids) :] = (there.cumsum(0) > 0) & ~there
            counts = [len(features) for features in batch.features[i]]
            moved = displacement(vlm.positions(ids, batch.grids[i]), there, counts, _compressed(options))
            nearer[:, i, longest - len(ids) :] = moved
        to = vlm.device
        return cls(options, images.to(to), after.to(to), nearer.to(to), vlm.language_model.rotary_emb)

    def __call__(self, attention: Attention) -> Tensor:
        rows, _, queries, _ = attention.query.shape
        grown = attention.key.shape[2] - self.images.shape[1]
        images = pad(self.images, (0, grown)).repeat(2, 1)
        seen_image = images.any(1, keepdim=True).expand(-1, grown).new_ones(rows, grown) & images.any(1, keepdim=True)
        after = torch.cat([self.after.repeat(2, 1), seen_image], dim=1)[:, -queries:]
        block = after[:, None, :, None] & images[:, None, None, :]
        scores = attention.scores()
        weights = self._weights(attention, scores, block, after, grown)
        out = attention.mixed(weights)
        half = rows // 2
        above = scores[half:] > self._threshold(scores[half:], block[half:])
        lost = weights[half:] * (block[half:] & above)
        total = lost.sum(-1).transpose(1, 2)[..., None].to(out.dtype)
        branch = replace(attention, value=attention.value[half:])
        erased = out[half:] - branch.mixed(lost) + total * self._mean_value(attention, images)[half:]
        return torch.cat([out[:half], erased])

    def _weights(self, attention: Attention, scores: Tensor, block: Tensor, after: Tensor, grown: int) -> Tensor:
        if _compressed(self.options) == 1.0 or self.options.mixing == 0.0:
            return scores.softmax(-1)
        moved = self._moved(attention, grown).scores()
        if self.options.version == "cmac":
            return torch.where(block, moved, scores).softmax(-1)
        mixed = torch.lerp(scores.softmax(-1), moved.softmax(-1), self.options.mixing)
        return torch.where(after[:, None, :, None], mixed, scores.softmax(-1))

    def _moved(self, attention: Attention, grown: int) -> Attention:
        """The same attention with queries and keys at their displaced positions."""
        queries, held = attention.query.shape[2], self.moved.get(attention.layer)
        # Generated tokens stand behind everything: they move as far as the last prompt token.
        nearer = self.nearer if held is None else self.nearer[..., -1:].expand(-1, -1, queries)
        nearer = nearer.repeat(1, 2, 1)
        angles = self.rotary(attention.query.float(), nearer[0] if len(nearer) == 1 else nearer)
        fresh = turned(attention.key[:, :, -queries:], angles, self.rotary)
        keys = fresh if held is None else torch.cat([held, fresh], dim=2)
        self.moved[attention.layer] = keys
        return replace(attention, query=turned(attention.query, angles, self.rotary), key=keys)

    def _threshold(self, scores: Tensor, block: Tensor) -> Tensor:
        """The mean score over heads, text queries behind the image and image keys, of each row, [B, 1, 1, 1]."""
        heads = scores.shape[1]
        total = scores.masked_fill(~block, 0.0).sum((1, 2, 3), keepdim=True)
        count = block.sum((1, 2, 3), keepdim=True) * heads
        return total / count.clamp(min=1) + self.options.threshold

    def _mean_value(self, attention: Attention, images: Tensor) -> Tensor:
        """Mean value of the image tokens, [B, 1, H, d] (variant "code": one number a head)."""
        there = images[:, None, :, None].to(attention.value.dtype)
        mean = (attention.value * there).sum(2) / there.sum(2).clamp(min=1)
        if self.options.variant == "code":
            mean = mean.mean(-1, keepdim=True).expand_as(mean)
        groups = attention.query.shape[1] // attention.key.shape[1]
        return mean.repeat_interleave(groups, dim=1)[:, None]


def _compressed(options: IMCCD) -> float:
    """What positions inside the image are divided by; infinity puts all its tokens at one position."""
    return options.gamma if options.version == "cmac" else float("inf")


def displacement(positions: Tensor, images: Tensor, counts: list[int], gamma: float) -> Tensor:
    """New minus old positions [A, L] when positions inside each image are divided by gamma and what follows moves up.

    positions [A, L], images bool [L], counts: tokens of each image. With gamma infinite an image takes one position.
    """
    new = positions.float().clone()
    at, shift = 0, 0.0
    places = images.nonzero()[:, 0].tolist()
    for count in counts:
        first, last = places[at], places[at + count - 1]
        start = float(positions[:, first].min())
        extent = float(positions[:, first : last + 1].max()) + 1 - start
        new[:, first : last + 1] = start - shift + (positions[:, first : last + 1] - start) / gamma
        shift += extent - max(extent / gamma, 1.0 if gamma == float("inf") else 0.0)
        new[:, last + 1 :] = positions[:, last + 1 :] - shift
        at += count
    return new - positions


def turned(states: Tensor, angles: tuple[Tensor, Tensor], rotary: Any) -> Tensor:
    """Queries or keys [B, H, L, d] rotated further; angles: cosines and sines that `rotary` gives for displacements
    ([B, L], or [3, B, L] with three axes)."""
    cos, sin = (part[:, None] / rotary.attention_scaling for part in angles)
    first, second = states.float().chunk(2, dim=-1)
    return (states.float() * cos + torch.cat([-second, first], dim=-1) * sin).to(states.dtype)
