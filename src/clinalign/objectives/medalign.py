"""MEDALIGN (arXiv 2512.18554): a frozen medical CLIP teaches a language model's layer how image tokens relate to each
other, and where the prompt looks.

    L = L_method + alpha * L_vis + beta * L_att

    L_vis = mean_ij (S_x - S_e)_ij^2          S_x, S_e: cosine similarities of the student's and the teacher's patches
    L_att = KL(T || A)                        T: the teacher's map, A: the prompt's attention, over the image tokens

Three forms of L_att go by the name. "sum" (variant `sound`, the default) divides both maps by their sums: a true KL,
zero only where the maps agree. "softmax" (variant `paper`, as printed) puts both through a softmax, which turns
attention probabilities of about 1e-3 into an almost uniform map with almost no gradient. "l2" (variant `code`, as
published) divides both by their L2 norms and the result by N: it goes below zero, and its minimum is at A ~ sqrt(T), a
flatter map than the teacher's.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Norm = Literal["sum", "softmax", "l2"]
NORMS: dict[str, Norm] = {"sound": "sum", "paper": "softmax", "code": "l2"}
"""Form of L_att by variant."""

FLOOR = -100.0
"""Least log-probability of a patch: attention that underflows costs 100 nats instead of infinity."""

UNSEEN = -1e4
"""Stands for the logarithm of no attention at all; the floor applies to it."""


def cosine_gram(tokens: Tensor) -> Tensor:
    """Cosine similarities [..., N, N] of tokens [..., N, D], in fp32 or wider. An all-zero token is similar to none."""
    tokens = tokens if tokens.dtype == torch.float64 else tokens.float()
    norm = tokens.norm(dim=-1, keepdim=True)
    unit = tokens / torch.where(norm > 0, norm, 1.0)
    return unit @ unit.transpose(-1, -2)


def gram_from_gram(gram: Tensor, resample: Tensor) -> Tensor:
    """Cosine similarities [N, N] of features resampled by `resample` [N, M], given their Gram matrix [M, M] alone.

    Resampling is linear, so the Gram matrix of the resampled features is B G B^T; its diagonal holds their norms.
    """
    mixed = resample @ gram @ resample.t()
    norm = mixed.diagonal().clamp(min=0).sqrt()
    return mixed / torch.where(norm > 0, norm, 1.0) / torch.where(norm > 0, norm, 1.0)[:, None]


def bilinear(points: Tensor, grid: tuple[int, int]) -> Tensor:
    """Weights [N, M] that read a grid of M = rows * columns cells at `points` [N, 2] (row, column; both 0 to 1).

    Cell centres lie at (i + 1/2) / rows, and beyond the outermost centres the border's value holds, so points at the
    centres of another grid give F.interpolate(mode="bilinear", align_corners=False). Each row sums to 1 and has at most
    four entries that are not zero.
    """
    axes = []
    for axis, count in enumerate(grid):
        at = (points[:, axis].double() * count - 0.5).clamp(0, count - 1).round(decimals=9)
        low = at.floor().long().clamp(max=max(0, count - 2))
        share = at - low
        weights = at.new_zeros(len(at), count)
        weights.scatter_(1, low[:, None], (1 - share)[:, None])
        weights.scatter_add_(1, (low + 1).clamp(max=count - 1)[:, None], share[:, None])
        axes.append(weights)
    return (axes[0][:, :, None] * axes[1][:, None, :]).flatten(1).float()


def centres(grid: tuple[int, int]) -> Tensor:
    """Centres [rows * columns, 2] of a grid's cells as shares of height and width, row by row."""
    rows, columns = ((torch.arange(count, dtype=torch.float64) + 0.5) / count for count in grid)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)


def visual_loss(student: Tensor, teacher: Tensor, *, diagonal: bool = True, weights: Tensor | None = None) -> Tensor:
    """L_vis: mean of (S_x - S_e)^2 of tokens [N, D] against the teacher's similarities [N, N].

    `diagonal=False` leaves the entries i = j, which are zero, out of the mean. `weights` [N] weigh entry ij by w_i w_j
    and are not normalised again, as published.
    """
    gap = (cosine_gram(student) - teacher) ** 2
    if weights is not None:
        gap = gap * weights[:, None] * weights
    if diagonal:
        return gap.mean()
    count = len(gap)
    return (gap.sum() - gap.diagonal().sum()) / max(1, count * (count - 1))


def mean_attention(log_rows: Tensor) -> Tensor:
    """Log of the mean over heads and rows of attention given as logs: [H, R, N] to [N], without leaving log space.

    A patch that a row may not see (-inf) becomes a very small number: where no row sees it, the gradient of the
    logarithm of nothing is not a number.
    """
    heads, rows = log_rows.shape[:2]
    finite = log_rows.masked_fill(log_rows == -torch.inf, UNSEEN)
    return finite.flatten(0, 1).logsumexp(0) - math.log(heads * rows)


def attention_loss(log_attention: Tensor, teacher: Tensor, *, norm: Norm = "sum", temperature: float = 1.0) -> Tensor:
    """L_att of a student's map, given as its log [N], against the teacher's map [N] (>= 0, any scale).

    `norm` "sum" and "l2" do not depend on how much attention the image gets in all. "softmax" does, and has a
    temperature. Raises `ValueError` for a norm it does not know.
    """
    teacher = teacher.to(log_attention.dtype)
    if norm == "sum":
        log_student = log_attention - log_attention.logsumexp(0)
        return _forward_kl(teacher / teacher.sum(), log_student)
    if norm == "softmax":
        target = (teacher / temperature).softmax(0)
        return _forward_kl(target, (log_attention.exp() / temperature).log_softmax(0))
    if norm == "l2":
        log_student = log_attention - 0.5 * (2 * log_attention).logsumexp(0)
        return _forward_kl(teacher / teacher.norm(), log_student) / len(teacher)
    raise ValueError(f"norm '{norm}': use one of {', '.join(NORMS.values())}")


def _forward_kl(target: Tensor, log_student: Tensor) -> Tensor:
    """sum_i t_i (log t_i - log p_i); a patch without target costs nothing."""
    return torch.xlogy(target, target).sum() - (target * log_student.clamp(min=FLOOR)).sum()
