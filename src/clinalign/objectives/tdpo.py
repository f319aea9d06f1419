"""TDPO (arXiv 2404.11999) and CHiP (arXiv 2501.16629): DPO with each answer's KL to the reference in the margin.

    KL(y) = sum over the answer's tokens of KL(ref || pi)
    tdpo1 = -log s(beta * [r(y+) - r(y-) - (KL(y-) - KL(y+))])
    tdpo2 = -log s(beta * [r(y+) - r(y-) - alpha * (KL(y-) - sg KL(y+))]),  alpha 0.5
    chip  = -log s(beta * [r(y+) - r(y-) + r(y+ | v) - r(y+ | v') - alpha * (KL(y-) - sg KL(y+))]),  alpha 0.1

TDPO's published settings have tdpo1. chip is what CHiP's code computes (its paper writes four terms, each with a
weight): one sigmoid, rewards with weight 2 on the changed segments, v' a diffused image. Its third difference compares
one text under two images, whose partition functions do not cancel.
"""

from __future__ import annotations

from clinalign.objectives.dpo import margin, preference
from clinalign.objectives.firempo import v1
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def tdpo1(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """The difference of the KLs in the margin as it is, [P]."""
    gap = margin(logps.chosen, logps.rejected, logps.ref_chosen, logps.ref_rejected, coefficients.beta)
    gap = gap - coefficients.beta * (logps.rejected_kl_forward - logps.kl_forward)
    rank = preference(gap)
    return LossTerms(rank, {"rank": rank}, gap)


def tdpo2(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """The difference of the KLs at weight alpha, the chosen answer's as a constant, [P]; DPO at alpha 0."""
    gap = margin(logps.chosen, logps.rejected, logps.ref_chosen, logps.ref_rejected, coefficients.beta)
    drift = logps.rejected_kl_forward - logps.kl_forward.detach()
    gap = gap - coefficients.beta * coefficients.alpha * drift
    rank = preference(gap)
    return LossTerms(rank, {"rank": rank}, gap)


def chip(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """CHiP as its code has it, [P]; a pair without v' is refused before."""
    terms = tdpo2(logps, coefficients)
    assert terms.margin is not None
    terms.visual_margin = v1(logps, coefficients.beta)
    rank = preference(terms.margin + terms.visual_margin)
    return LossTerms(rank, {"rank": rank}, terms.margin, terms.visual_margin)
