"""DPO whose tokens have a temperature by kind: DDPO (RLHF-V, arXiv 2312.00849), and one beta for each kind of span.

    ddpo        = -log s(beta * [R(y+) - R(y-)]),  R = sum_t w_t log(pi / ref) / sum_t w_t,  w 5 in spans and 1 outside
    segment_dpo = -log s(sum over kinds k of beta_k * [r_k(y+) - r_k(y-)]),  r_k over the tokens of kind k

A beta a kind covers the idea of a beta by quality or by modality of a segment.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clinalign.objectives.dpo import margin, preference
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps

CHANGED = 5.0


def ddpo(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """-log s of the margin of weighted means, [P]; the weights enter where the sums and counts are formed."""
    chosen, rejected = logps.chosen_tokens.clamp(min=1), logps.rejected_tokens.clamp(min=1)
    gap = margin(
        logps.chosen / chosen,
        logps.rejected / rejected,
        logps.ref_chosen / chosen,
        logps.ref_rejected / rejected,
        coefficients.beta,
    )
    rank = preference(gap)
    return LossTerms(rank, {"rank": rank}, gap)


def segment_dpo(chosen: Tensor, rejected: Tensor, betas: Sequence[float]) -> LossTerms:
    """From log ratios [K, P] of both answers by kind of token, and a beta a kind, [P]."""
    scale = torch.tensor(betas, dtype=chosen.dtype, device=chosen.device)
    gap = (scale[:, None] * (chosen - rejected)).sum(0)
    rank = preference(gap)
    return LossTerms(rank, {"rank": rank}, gap)
