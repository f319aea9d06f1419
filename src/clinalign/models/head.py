"""The language-model head on chosen rows: log-probability of a target and both token KLs in one sweep, in fp32.

Rows are taken in tiles and the vocabulary in slices, so the largest tensor is [tile, V]. The gradient with respect to a
row is formed in the same sweep (three vectors of the row's width at most), so nothing of size V survives the forward
and a frozen head gets no gradient tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

ROWS, SLICE = 64, 16384


class Readout(NamedTuple):
    """What a model makes of its head's products: times `scale`, then cap * tanh(. / cap) where there is a `cap`."""

    scale: float = 1.0
    cap: float = 0.0

    def __call__(self, products: Tensor) -> Tensor:
        """Logits of the head's products, in place."""
        products = products if self.scale == 1.0 else products.mul_(self.scale)
        return products.div_(self.cap).tanh_().mul_(self.cap) if self.cap else products

    def slope(self, logits: Tensor) -> Tensor | float:
        """The derivative of logits by products, where logits are what they are."""
        return (1.0 - (logits / self.cap) ** 2).mul_(self.scale) if self.cap else self.scale


PLAIN = Readout()


def score_rows(
    rows: Tensor,
    weight: Tensor,
    targets: Tensor,
    reference_rows: Tensor | None = None,
    reference_weight: Tensor | None = None,
    *,
    readout: Readout = PLAIN,
    tile: int = ROWS,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores hidden rows.

    rows [R, D] after the final norm; weight [V, D]; targets [R] token ids; reference_rows [K, D], the frozen model's
    hidden states for the first K rows; reference_weight [V, D] its head, where that is another one. Returns, in fp32,
    log pi(target) [R], KL(reference || policy) [K] and KL(policy || reference) [K], over the whole vocabulary.
    """
    known = rows.new_zeros(0, rows.shape[1]) if reference_rows is None else reference_rows.detach()
    head = weight.detach() if reference_weight is None else reference_weight.detach()
    return _ScoreRows.apply(rows, weight, targets, known, head, readout, tile)


def row_logits(rows: Tensor, weight: Tensor, readout: Readout = PLAIN) -> Tensor:
    """Logits [R, V] in fp32, differentiable in the ordinary way. For decoding; training uses `score_rows`."""
    return readout(torch.nn.functional.linear(rows.float(), weight.float()))


def _slices(weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, weight.shape[0], SLICE):
        part = slice(start, min(start + SLICE, weight.shape[0]))
        yield part, weight[part].float()


def _log_probs(rows: Tensor, weight: Tensor, readout: Readout) -> tuple[Tensor, Tensor | float]:
    """Log-probabilities [r, V], and the slope of their logits by the head's products."""
    logits = torch.empty(rows.shape[0], weight.shape[0], dtype=torch.float32, device=rows.device)
    rows = rows.float()
    for part, w in _slices(weight):
        logits[:, part] = rows @ w.t()
    logits = readout(logits)
    slope = readout.slope(logits)
    return logits.sub_(torch.logsumexp(logits, dim=1, keepdim=True)), slope


def _by(values: Tensor, slope: Tensor | float) -> Tensor:
    return values if isinstance(slope, float) and slope == 1.0 else values * slope


def _times_head(values: Tensor, weight: Tensor) -> Tensor:
    """[r, V] @ [V, D] in fp32."""
    total = torch.zeros(values.shape[0], weight.shape[1], dtype=torch.float32, device=values.device)
    for part, w in _slices(weight):
        total.addmm_(values[:, part], w)
    return total


def _reverse(p: Tensor, gap: Tensor) -> Tensor:
    """KL(p || q) [r] from p and log p - log q, both [r, V]."""
    return (p * gap).sum(1)


class _ScoreRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        targets: Tensor,
        reference: Tensor,
        reference_weight: Tensor,
        readout: Readout,
        tile: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        count, known = rows.shape[0], reference.shape[0]
        logps = torch.empty(count, dtype=torch.float32, device=rows.device)
        forward_kl, reverse_kl = logps.new_empty(known), logps.new_empty(known)
        wanted = ctx.needs_input_grad[0]
        d_logp = logps.new_empty(count if wanted else 0, rows.shape[1])
        d_forward = logps.new_empty(known if wanted else 0, rows.shape[1])
        d_reverse = torch.empty_like(d_forward)
        for start, end in _tiles(known, count, tile):
            at = slice(start, end)
            p_log, slope = _log_probs(rows[at], weight, readout)
            p = p_log.exp()
            logps[at] = p_log.gather(1, targets[at, None])[:, 0]
            if wanted:
                at_target = slope if isinstance(slope, float) else slope.gather(1, targets[at, None])
                d_logp[at] = _by(weight[targets[at]].float(), at_target) - _times_head(_by(p, slope), weight)
            if start >= known:
                continue
            q_log, _ = _log_probs(reference[at], reference_weight, readout)
            q, gap = q_log.exp(), p_log - q_log
            forward_kl[at], reverse_kl[at] = -(q * gap).sum(1), _reverse(p, gap)
            if wanted:
                d_forward[at] = _times_head(_by(p - q, slope), weight)
                d_reverse[at] = _times_head(_by(p * (gap - reverse_kl[at, None]), slope), weight)
        ctx.save_for_backward(rows, weight, targets, reference, reference_weight, d_logp, d_forward, d_reverse)
        ctx.tile, ctx.readout = tile, readout
        return logps, forward_kl, reverse_kl

    @staticmethod
    def backward(ctx: Any, g_logp: Tensor, g_forward: Tensor, g_reverse: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, targets, reference, reference_weight, d_logp, d_forward, d_reverse = ctx.saved_tensors
        d_rows = d_weight = None
        if ctx.needs_input_grad[0]:
            d_rows = d_logp * g_logp[:, None]
            d_rows[: len(reference)] += d_forward * g_forward[:, None] + d_reverse * g_reverse[:, None]
            d_rows = d_rows.to(rows.dtype)
        if ctx.needs_input_grad[1]:
            d_weight = torch.zeros_like(weight, dtype=torch.float32)
            for start, end in _tiles(len(reference), len(rows), ctx.tile):
                at = slice(start, end)
                p_log, slope = _log_probs(rows[at], weight, ctx.readout)
                d_logits = -p_log.exp() * g_logp[at, None]
                d_logits.scatter_add_(1, targets[at, None], g_logp[at, None])
                if start < len(reference):
                    q_log, _ = _log_probs(reference[at], reference_weight, ctx.readout)
                    d_logits += _kl_gradient(p_log, q_log, g_forward[at], g_reverse[at])
                d_weight.addmm_(_by(d_logits, slope).t(), rows[at].float())
            d_weight = d_weight.to(weight.dtype)
        return d_rows, d_weight, None, None, None, None, None


def _tiles(known: int, count: int, tile: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows; none straddles the border between rows with a reference and rows without."""
    for low, high in ((0, known), (known, count)):
        for start in range(low, high, tile):
            yield start, min(start + tile, high)


def _kl_gradient(p_log: Tensor, q_log: Tensor, g_forward: Tensor, g_reverse: Tensor) -> Tensor:
    """Gradient [r, V] of both KLs with respect to the policy's logits."""
    p, gap = p_log.exp(), p_log - q_log
    return (p - q_log.exp()) * g_forward[:, None] + p * (gap - _reverse(p, gap)[:, None]) * g_reverse[:, None]
