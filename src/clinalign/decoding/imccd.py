"""Inter-modality correlation calibration decoding (Li et al., arXiv 2501.01926; its third version is named CMAC).

z = (1 + alpha) z_clean - alpha z_distorted, cut at `beta` of the clean branch. The distorted branch keeps its attention
but loses what it attends to. For a text token q behind an image and a key k, over the keys that q sees:

    e_qk = <q, k> / sqrt(d)              c_qk = the same with q and k at calibrated positions
    s_qk = the calibrated score where k is an image token, e_qk elsewhere             w_q = softmax(s_q)
    M_qk = 1 where k is an image token and s_qk > mean s + threshold, the mean over all heads, such q and image tokens
    o_q  = sum_k w_qk (v_k, or the mean value of the image tokens where M_qk)         (clean branch: M = 0)

Both branches are calibrated alike, so that they differ in the erased values alone.

- `version: cmac` (CMPC): positions inside an image are divided by gamma and the text moves up; s_qk = c_qk.
- `version: imccd` (CDAR): an image stands at one position; s_qk = (1 - mixing) e_qk + mixing c_qk.

| `variant` | calibrated by CDAR | M compares | mean value | CDAR in | gamma |
|---|---|---|---|---|---|
| `sound` | scores, as above | calibrated scores | of each dimension | all layers | 2 |
| `paper` | weights, see below | CDAR: e_qk | of each dimension | all layers | 2 |
| `code` | scores, as above | calibrated scores | one number a head | the first six | 3 |

CDAR of the paper: w_qk = (1 - mixing) softmax(e_q)_k + mixing softmax(c_q)_k for image tokens, softmax(e_q)_k
elsewhere. Mixed scores keep a token's weights at a sum of 1, which weights mixed for a part of the keys do not. The
official code (lijm48/IMCCD at 9db52a0) hands CDAR's mixing share to no branch when it decodes greedily, and to the
clean one alone, as 1, when it samples; here both get `mixing`. Its rule for captions (no contrast at steps that look
little at the image) is left out.

Nothing is scored twice: relative positions are all that counts, so after the prompt the cached keys of image tokens are
replaced once by calibrated ones (mixing scores is mixing keys), and a step is plain attention over them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from clinalign.decoding.loop import DecodingSteps, PromptBatch, contrast, halves
from clinalign.decoding.options import IMCCD
from clinalign.models.attention import Attention, AttentionRequest
from clinalign.models.generate import advance, prefill

ONE_POSITION = float("inf")
CODE_LAYERS = 6


def imccd(batch: PromptBatch, options: IMCCD) -> DecodingSteps:
    """Clean and distorted branch in one batch; the distorted one keeps its own cache."""
    vlm = batch.vlm
    rule = Calibrated.of(batch, options)
    request = AttentionRequest(rule=rule)
    state = prefill(vlm, *batch.pair(batch.features), request)
    rule.settle(state.cache)
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
    keys: dict[int, Tensor] = field(default_factory=dict)
    """The prompt's keys [B, G, L, d] of each calibrated layer as any later token is to see them."""
    means: dict[int, Tensor] = field(default_factory=dict)
    """The mean value of the image tokens [B / 2, 1, H, d] of each layer, in the distorted branch."""

    @classmethod
    def of(cls, batch: PromptBatch, options: IMCCD) -> Calibrated:
        """For a batch, padded on the left as `prefill` pads it."""
        vlm, longest = batch.vlm, max(map(len, batch.ids))
        images = batch.images.cpu()
        nearer = torch.zeros(vlm.family.axes, len(batch), longest)
        for i, ids in enumerate(batch.ids):
            counts = [len(features) for features in batch.features[i]]
            there = torch.tensor(ids) == vlm.image_token_id
            moved = displacement(vlm.positions(ids, batch.grids[i]), there, counts, _compressed(options))
            nearer[:, i, longest - len(ids) :] = moved
        after = (images.cumsum(1) > 0) & ~images
        images, after, nearer = (t.to(vlm.device) for t in (images, after, nearer))
        return cls(options, images, after, nearer, vlm.language_model.rotary_emb)

    def __call__(self, attention: Attention) -> Tensor:
        queries, keys = attention.query.shape[2], attention.key.shape[2]
        has_image = self.images.any(1, keepdim=True)
        behind = torch.cat([self.after, has_image.expand(-1, max(0, keys - self.after.shape[1]))], dim=1)
        behind = behind[:, keys - queries : keys].repeat(2, 1)
        if attention.layer not in self.means:
            self.means[attention.layer] = self._mean_value(attention)
        if queries == 1:
            return self._attend(attention, 0, behind, self._later(attention))
        near, out = self._prompt(attention), attention.plain()
        if not bool(behind.any()):
            return out
        # Only text behind an image is changed; nothing else has to be scored.
        first = int(behind.any(0).nonzero()[0])
        return torch.cat([out[:, :first], self._attend(attention, first, behind[:, first:], near)], dim=1)

    def settle(self, cache: Any) -> None:
        """From here on image tokens are seen where they were put: what mixes scores mixes the cached keys, once."""
        if _mixes_weights(self.options):
            return
        there = self.images.repeat(2, 1)[:, None, :, None]
        for layer, near in self.keys.items():
            held = cache.layers[layer].keys
            held.copy_(torch.where(there, torch.lerp(held, near, _share(self.options)), held))

    def _attend(self, attention: Attention, first: int, behind: Tensor, near: Attention | None) -> Tensor:
        """The outputs of the queries from `first` on. behind bool [B, Q']: those who stand behind an image; near: the
        same attention at calibrated positions, where its scores still have to be put in."""
        length, half = min(self.images.shape[1], attention.key.shape[2]), len(self.images)
        images = self.images[:, :length].repeat(2, 1)[:, None, None, :] & behind[:, None, :, None]
        scores = attention.scores(first)
        weights = scores.softmax(-1)
        seen = scores[..., :length]
        if near is not None:
            calibrated = near.scores(first)
            if _mixes_weights(self.options):
                mixed = torch.lerp(weights, calibrated.softmax(-1), self.options.mixing)[..., :length]
                weights[..., :length] = torch.where(images, mixed, weights[..., :length])
            else:
                mixed = calibrated[..., :length]
                if _share(self.options) < 1:  # where nothing is seen both are -inf, which lerp makes a nan of
                    mixed = torch.where(seen > -torch.inf, torch.lerp(seen, mixed, _share(self.options)), seen)
                seen.copy_(torch.where(images, mixed, seen))
                weights = scores.softmax(-1)
        judged = images[half:] & (seen[half:] > -torch.inf)
        lost = judged & (seen[half:] > self._threshold(seen[half:], judged))
        kept = weights[half:, ..., :length]
        gone = kept.masked_fill(~lost, 0.0).sum(-1).transpose(1, 2)[..., None]
        kept.masked_fill_(lost, 0.0)
        out = attention.mixed(weights)
        out[half:] += gone.to(out.dtype) * self.means[attention.layer]
        return out

    def _prompt(self, attention: Attention) -> Attention | None:
        """The prompt's attention with queries and keys moved, all by as much as leaves its last token in place."""
        if not self._calibrates(attention.layer):
            return None
        moved = (self.nearer - self.nearer[..., -1:]).repeat(1, 2, 1)
        angles = self.rotary(attention.query.float(), moved[0] if len(moved) == 1 else moved)
        self.keys[attention.layer] = turned(attention.key, angles, self.rotary)
        return replace(attention, query=turned(attention.query, angles, self.rotary), key=self.keys[attention.layer])

    def _later(self, attention: Attention) -> Attention | None:
        """A later token's attention at calibrated positions; None where `settle` has put them into the cache."""
        if not _mixes_weights(self.options) or attention.layer not in self.keys:
            return None
        near = self.keys[attention.layer]
        return replace(attention, key=torch.cat([near, attention.key[:, :, near.shape[2] :]], dim=2))

    def _calibrates(self, layer: int) -> bool:
        if self.options.version == "cmac":
            return _compressed(self.options) != 1.0
        return self.options.mixing > 0 and (self.options.variant != "code" or layer < CODE_LAYERS)

    def _threshold(self, scores: Tensor, judged: Tensor) -> Tensor:
        """The mean of the judged scores over heads, queries and image keys of each row, [B, 1, 1, 1]."""
        total = scores.masked_fill(~judged, 0.0).sum((1, 2, 3), keepdim=True)
        count = judged.expand_as(scores).sum((1, 2, 3), keepdim=True)
        return total / count.clamp(min=1) + self.options.threshold

    def _mean_value(self, attention: Attention) -> Tensor:
        """Mean value of the image tokens, [B / 2, 1, H, d] (variant "code": one number a head)."""
        there = self.images[:, None, :, None].to(attention.value.dtype)
        value = attention.value[len(self.images) :]
        mean = (value * there).sum(2) / there.sum(2).clamp(min=1)
        if self.options.variant == "code":
            mean = mean.mean(-1, keepdim=True).expand_as(mean)
        groups = attention.query.shape[1] // attention.key.shape[1]
        return mean.repeat_interleave(groups, dim=1)[:, None]


def _compressed(options: IMCCD) -> float:
    """What positions inside the image are divided by; infinity puts all its tokens at one position."""
    if options.version == "imccd":
        return ONE_POSITION
    return options.gamma if options.gamma is not None else 3.0 if options.variant == "code" else 2.0


def _share(options: IMCCD) -> float:
    """The share of the calibrated score in the score of an image token."""
    return 1.0 if options.version == "cmac" else options.mixing


def _mixes_weights(options: IMCCD) -> bool:
    return options.version == "imccd" and options.variant == "paper"


def displacement(positions: Tensor, images: Tensor, counts: list[int], gamma: float) -> Tensor:
    """New minus old positions [A, L] when positions inside each image are divided by gamma and what follows moves up.

    positions [A, L], images bool [L], counts: tokens of each image. With gamma infinite an image takes one position.
    """
    new = positions.float().clone()
    at, shift = 0, 0.0
    columns = images.nonzero()[:, 0].tolist()
    for count in counts:
        first, last = columns[at], columns[at + count - 1]
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
