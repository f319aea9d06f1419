"""Rewards of a group into rank-normalised advantages (VALOR's second stage).

The abstract says "rank-normalised" and no more; this is our reading (docs/valor.md).
"""

from __future__ import annotations

import torch
from torch import Tensor


def rank_advantages(scores: Tensor, group: int, *, spread: float = 1e-6) -> Tensor:
    """Advantages [N] from -1 to 1 of scores [N], ranked within consecutive groups of `group`.

    A = (2 r - n - 1) / (n - 1), r the rank from 1 (worst) to n of the n scores of a group that are numbers; equal
    scores share their mean rank. Sums to 0 in a group and depends on the order of the scores alone. 0 for what is no
    number, and for a group whose scores differ by `spread` or less, or with fewer than two of them: ranks would
    make a full-size step of nothing.

    Of scores 0.1, 0.4, 0.4, 0.9: ranks 1, 2.5, 2.5, 4, advantages (2 - 5) / 3 = -1, 0, 0 and 1.
    """
    rows = scores.double().view(-1, group)
    known = rows.isfinite()
    pairs = known[:, :, None] & known[:, None, :]
    below = ((rows[:, :, None] > rows[:, None, :]) & pairs).sum(-1)
    above = ((rows[:, :, None] < rows[:, None, :]) & pairs).sum(-1)
    count = known.sum(-1, keepdim=True)
    advantages = (below - above) / (count - 1).clamp(min=1)
    low = rows.masked_fill(~known, torch.inf).amin(-1, keepdim=True)
    high = rows.masked_fill(~known, -torch.inf).amax(-1, keepdim=True)
    kept = known & (count > 1) & (high - low > spread)
    return torch.where(kept, advantages, 0.0).to(scores.dtype).view(-1)


def weighted(scores: Tensor, weights: Tensor) -> Tensor:
    """Scores [N, R] of R rewards as one [N]: what does not apply (NaN) adds nothing; NaN where none applies."""
    total = (scores * weights.to(scores.device)).nansum(1)
    return total.masked_fill(scores.isnan().all(1), torch.nan)
