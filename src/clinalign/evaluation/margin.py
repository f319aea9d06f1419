"""Teacher-forced margins: how much likelier the model finds one answer than another, given an image and a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Contest:
    """Two answers to one prompt. `own` and `other` are token ids, EOS included; `images` are uint8 [H, W, 3]."""

    prompt: str
    images: Sequence[np.ndarray]
    own: list[int]
    other: list[int]


@torch.no_grad()
def margins(vlm: Any, contests: Sequence[Contest], *, batch_size: int) -> list[float]:
    """`log p(own) - log p(other)` of each contest, whole answers, in their order.

    Both answers share one sequence `[prompt with image | common start | rest of own | rest of other]`: a mask hides the
    two rests from each other and positions restart at the fork, so one forward gives both, and logits are taken at the
    two rests only.
    """
    prompts = [vlm.prompt_ids(c.prompt, c.images) for c in contests]
    order = sorted(range(len(contests)), key=lambda i: len(prompts[i]) + len(contests[i].own) + len(contests[i].other))
    result = [0.0] * len(contests)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        got = _batch(vlm, [prompts[i] for i in chosen], [contests[i] for i in chosen])
        for index, value in zip(chosen, got.tolist(), strict=True):
            result[index] = value
    return result


@torch.no_grad()
def token_logps(vlm: Any, contests: Sequence[Contest]) -> list[Tensor]:
    """`log p` of each token of `own`, fp64 [T], in one batch; `other` is empty."""
    prompts = [vlm.prompt_ids(c.prompt, c.images) for c in contests]
    rows, hidden = _hidden(vlm, prompts, list(contests))
    at, logps, _ = _logps(vlm, hidden, rows)
    return [logps[at == number] for number in range(len(rows))]


def _batch(vlm: Any, prompts: list[list[int]], contests: list[Contest]) -> Tensor:
    rows, hidden = _hidden(vlm, prompts, contests)
    at, logps, signs = _logps(vlm, hidden, rows)
    return torch.zeros(len(rows), dtype=torch.double).index_add_(0, at, logps * signs)


def _hidden(vlm: Any, prompts: list[list[int]], contests: list[Contest]) -> tuple[list[_Packed], Tensor]:
    """The packed rows and their last hidden states [B, L, D], rows padded on the right."""
    rows = [_pack(prompt, contest) for prompt, contest in zip(prompts, contests, strict=True)]
    places = [
        _positions(vlm, prompt, contest, row) for prompt, contest, row in zip(prompts, contests, rows, strict=True)
    ]
    count, length = len(rows), max(len(row.ids) for row in rows)
    ids = torch.full((count, length), vlm.pad_id, dtype=torch.long)
    positions = torch.zeros((len(places[0]), count, length), dtype=torch.long)
    mask = torch.eye(length, dtype=torch.bool).repeat(count, 1, 1, 1)
    for number, row in enumerate(rows):
        size = len(row.ids)
        ids[number, :size] = torch.tensor(row.ids)
        positions[:, number, :size] = places[number]
        mask[number, 0, :size, :size] = row.visible()
    features = _features(vlm, contests)
    device = vlm.device
    return rows, vlm.hidden(ids.to(device), features, mask.to(device), positions.to(device))


def _positions(vlm: Any, prompt: list[int], contest: Contest, row: _Packed) -> Tensor:
    """[A, L]: the family's own positions for the prompt, then one by one, starting again at the fork."""
    start = vlm.positions(prompt, [vlm.image_grid(image) for image in contest.images])
    common = row.fork - len(prompt)
    steps = [*range(common + len(row.own)), *range(common, common + len(row.other))]
    after = int(start.max()) + 1 + torch.tensor(steps, dtype=torch.long)
    return torch.cat([start.cpu(), after.expand(len(start), -1)], dim=1)


def _features(vlm: Any, contests: list[Contest]) -> list[list[Tensor]]:
    """Features of every row's images, all images of the batch encoded together."""
    images = [image for contest in contests for image in contest.images]
    taken = iter(vlm.image_features(images) if images else [])
    return [[next(taken) for _ in c.images] for c in contests]


def _logps(vlm: Any, hidden: Tensor, rows: list[_Packed]) -> tuple[Tensor, Tensor, Tensor]:
    """Of every token of both rests: its row, its log-probability (fp64) and its sign, plus for own, minus for other."""
    at, sources, targets, signs = [], [], [], []
    for number, row in enumerate(rows):
        for rest, begin, sign in ((row.own, row.fork, 1.0), (row.other, row.fork + len(row.own), -1.0)):
            for step, token in enumerate(rest):
                at.append(number)
                sources.append(row.fork - 1 if step == 0 else begin + step - 1)
                targets.append(token)
                signs.append(sign)
    where = torch.tensor([at, sources], dtype=torch.long, device=hidden.device)
    logits = vlm.logits(hidden[where[0], where[1]])
    said = torch.tensor(targets, dtype=torch.long, device=logits.device)[:, None]
    logps = logits.float().log_softmax(-1).gather(1, said)[:, 0].double()
    return torch.tensor(at, dtype=torch.long), logps.cpu(), torch.tensor(signs, dtype=torch.double)


@dataclass(frozen=True, slots=True)
class _Packed:
    """`ids` = prefix up to `fork`, then the rest of `own`, then the rest of `other`."""

    ids: list[int]
    fork: int
    own: list[int]
    other: list[int]

    def visible(self) -> Tensor:
        """Causal, except that the second rest does not see the first; [L, L], True = may attend."""
        size, second = len(self.ids), self.fork + len(self.own)
        mask = torch.ones(size, size, dtype=torch.bool).tril()
        mask[second:, self.fork : second] = False
        return mask


def _pack(prompt: list[int], contest: Contest) -> _Packed:
    common = 0
    for left, right in zip(contest.own, contest.other, strict=False):
        if left != right:
            break
        common += 1
    prefix = prompt + contest.own[:common]
    own, other = contest.own[common:], contest.other[common:]
    fork = len(prefix)
    return _Packed(prefix + own + other, fork, own, other)
