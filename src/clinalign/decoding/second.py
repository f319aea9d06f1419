"""SECOND: selective and contrastive decoding over several sizes of an image (Park et al., ICML 2025, arXiv 2506.08391).

Coarse to fine: at each stage the model also sees the patches of a finer image, chosen by where it looked so far, and
the stages' logits are contrasted: z_S + sum_s alpha_s (z_{s+1} - z_s) among the finest stage's `top` tokens.

The sizes are grids of the vision tower's own: an interpolated table of positions, or what it computes for any grid.
Where tokens have rows and columns (M-RoPE) views of an image follow one another, and a chosen token keeps its place.

Departures: the official code selects anew and runs every stage's whole prompt for each token; here the choice is made
once, at the prompt, and each stage keeps a cache. The entropy is that of the whole map over log(cells); the code takes
the mean over rows of the map. Both are cut at .1, so that some patches always stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from clinalign.decoding.loop import DecodingSteps, PromptBatch
from clinalign.decoding.options import SECOND
from clinalign.models import VLM
from clinalign.models.attention import AttentionRequest, Probe
from clinalign.models.generate import Decoding, advance, prefill
from clinalign.models.tower import TowerFeatures, tower_features

LEAST = 0.1
FINER = 4.0


@dataclass
class Picture:
    """One image on its way through the stages: chosen features of each stage so far, where they are in the whole grids
    of these stages laid end to end, which patches of the newest one they are, and the running map [rows, columns] of
    where the model looks, at the finest stage's grid."""

    views: list[TowerFeatures]
    map: Tensor
    chosen: list[Tensor] = field(default_factory=list)
    places: list[Tensor] = field(default_factory=list)
    patches: Tensor | None = None

    def select(self, stage: int, options: SECOND) -> None:
        """Takes the stage's patches in: all of them at the first stage or without selection."""
        current = self.views[stage]
        count = len(current.features)
        self.patches = torch.arange(count, device=self.map.device)
        if stage and options.select:
            share = kept_share(entropy(self.map), options.lam)
            pooled = adaptive_avg_pool2d(self.map[None, None], current.grid).reshape(-1)
            self.patches = pooled.topk(max(1, math.ceil(share * count))).indices.sort().values
        self.chosen.append(current.features[self.patches])
        self.places.append(self.patches + sum(len(view.features) for view in self.views[:stage]))

    def look(self, stage: int, attention: Tensor) -> None:
        """Adds the stage's map: attention [patches] of the newest token, spread by the tower's own attention."""
        assert self.patches is not None
        current = self.views[stage]
        drawn = torch.zeros(len(current.features), device=self.map.device)
        drawn[self.patches] = attention.to(drawn)
        spread = (drawn @ current.attention.to(drawn)).view(1, 1, *current.grid)
        fine = interpolate(spread, size=self.map.shape, mode="nearest")[0, 0]
        self.map = self.map + FINER**stage * fine / fine.max().clamp(min=1e-12)


def second(batch: PromptBatch, options: SECOND) -> DecodingSteps:
    """A cache a stage; every stage is advanced by every token."""
    states = stages(batch, options)
    while True:
        logits = [state.logits for state in states]
        scores = logits[-1].clone()
        for alpha, coarse, fine in zip(options.alphas, logits, logits[1:], strict=False):
            scores += alpha * (fine - coarse)
        if options.top:
            least = logits[-1].topk(min(options.top, scores.shape[-1])).values[:, -1:]
            scores = scores.masked_fill(logits[-1] < least, -torch.inf)
        tokens = yield scores
        for state in states:
            advance(batch.vlm, state, tokens)


def stages(batch: PromptBatch, options: SECOND) -> list[Decoding]:
    """The prompt at every stage."""
    vlm, states = batch.vlm, []
    pictures = _pictures(batch, options)
    for stage in range(len(options.scales)):
        for row in pictures:
            for picture in row:
                picture.select(stage, options)
        features = [[torch.cat(picture.chosen) for picture in row] for row in pictures]
        ids = [with_counts(own, vlm.image_token_id, [len(f) for f in row], [len(f) for f in before])
               for own, row, before in zip(batch.ids, features, batch.features, strict=True)]  # fmt: skip
        longest = max(map(len, ids))
        probe = Probe(torch.full((len(batch), 1), longest - 1))
        positions = None if vlm.family.axes == 1 else [_positions(vlm, *one, stage) for one in zip(ids, pictures)]
        state = prefill(vlm, ids, features, batch.grids, AttentionRequest(probe=probe), positions=positions)
        states.append(state)
        for i, (row, looked) in enumerate(zip(pictures, attention_to_images(state, probe), strict=True)):
            sizes = [len(f) for f in features[i]]
            for picture, part in zip(row, looked.split(sizes), strict=True):
                picture.look(stage, part[-len(picture.chosen[-1]) :])
    return states


def _pictures(batch: PromptBatch, options: SECOND) -> list[list[Picture]]:
    """Every prompt's images at all sizes; at the usual size the features are those any decoder sees."""
    vlm = batch.vlm
    distinct = {id(image): image for _, images in batch.prompts for image in images}
    views: dict[int, list[TowerFeatures]] = {key: [] for key in distinct}
    for scale in options.scales if distinct else ():
        for key, one in zip(distinct, tower_features(vlm, list(distinct.values()), scale), strict=True):
            views[key].append(one)
    out = []
    for (_, images), own in zip(batch.prompts, batch.features, strict=True):
        row = []
        for image, usual in zip(images, own, strict=True):
            seen = [
                replace(v, features=usual) if s == 1 else v
                for s, v in zip(options.scales, views[id(image)], strict=True)
            ]
            row.append(Picture(seen, torch.zeros(seen[-1].grid, device=vlm.device)))
        out.append(row)
    return out


def _positions(vlm: VLM, ids: list[int], row: list[Picture], stage: int) -> Tensor:
    """Positions [A, L] of a prompt with the chosen tokens: those they have where no token is left out."""
    token, seen = vlm.image_token_id, slice(stage + 1)
    sizes = [sum(len(view.features) for view in picture.views[seen]) for picture in row]
    whole = with_counts(ids, token, sizes, [sum(map(len, picture.chosen)) for picture in row])
    positions = vlm.positions(whole, [view.grid for picture in row for view in picture.views[seen]])
    kept, images = torch.ones(len(whole), dtype=torch.bool), torch.tensor(whole) == token
    if row:
        chosen = [torch.cat(picture.places) for picture in row]
        there = [torch.zeros(n, dtype=torch.bool).index_fill_(0, c.cpu(), True) for n, c in zip(sizes, chosen)]
        kept[images] = torch.cat(there)
    return positions[:, kept]


def with_counts(ids: list[int], image_token: int, counts: list[int], before: list[int]) -> list[int]:
    """Token ids with each image's placeholders repeated `counts` times instead of `before` times."""
    out, at = [], 0
    for new, old in zip(counts, before, strict=True):
        start = ids.index(image_token, at)
        out += ids[at:start] + [image_token] * new
        at = start + old
    return out + ids[at:]


def attention_to_images(state: Decoding, rows: dict[int, Tensor]) -> list[Tensor]:
    """The last token's attention to each row's image tokens, [n]: mean over heads, first token of the sequence left
    out, mean over layers of what then sums to one."""
    first = state.attention_mask.long().argmax(1)
    total = torch.zeros(state.attention_mask.shape, device=state.attention_mask.device)
    for attention in rows.values():
        mean = attention[:, :, 0].mean(1)
        mean = mean.scatter(1, first[:, None], 0.0)
        total += mean / mean.sum(1, keepdim=True)
    return [row[there] / len(rows) for row, there in zip(total, state.images, strict=True)]


def entropy(map: Tensor) -> float:
    """Entropy of a map >= 0 over log(cells): 0 where one cell has everything, 1 where all have the same."""
    share = (map / map.sum().clamp(min=1e-12)).view(-1)
    return float(torch.special.entr(share).sum() / math.log(max(2, share.numel())))


def kept_share(spread: float, lam: float) -> float:
    """(exp(lam H) - 1) / (exp(lam) - 1) with H cut at .1: a focused map keeps few patches, a flat one all."""
    return math.expm1(lam * max(LEAST, min(1.0, spread))) / math.expm1(lam)
