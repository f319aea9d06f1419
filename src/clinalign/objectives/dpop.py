"""DPOP (arXiv 2402.13228): DPO with a penalty where the chosen answer falls below the reference.

    loss = -log s(beta * [r(y+) - r(y-) - alpha * max(0, -r(y+))])

alpha is the paper's lambda, 5 to 50. Made for answers that differ little, where DPO lowers both.
"""

from __future__ import annotations

from clinalign.objectives.dpo import margin, preference
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def dpop(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """DPO with the penalty inside the sigmoid, [P]."""
    gap = margin(logps.chosen, logps.rejected, logps.ref_chosen, logps.ref_rejected, coefficients.beta)
    fall = (logps.ref_chosen - logps.chosen).clamp(min=0)
    rank = preference(gap - coefficients.beta * coefficients.alpha * fall)
    return LossTerms(rank, {"rank": rank}, gap)
