"""MMedPO (arXiv 2412.06141): DPO whose rejected answer is scored under a lesion-noised image, weighed by relevance.

    loss = s' * -log s(beta * [r(y+ | v) - r(y- | v')]),   s' the pair's clinical relevance

The paper standardises relevance and clips it to [a, b] without saying which; the published data hold raw weights in
[0, 1] that the published code uses as they are. A negative weight would turn the preference round, so it is refused.
Two texts under two images: the partition functions do not cancel.
"""

from __future__ import annotations

from torch import Tensor

from clinalign.objectives.dpo import preference
from clinalign.objectives.firempo import v2
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def relevance(scores: Tensor, low: float, high: float) -> Tensor:
    """Scores [N] standardised and clipped to [low, high]; raises `ValueError` where that allows a negative weight."""
    if not 0 <= low <= high:
        raise ValueError(f"weights between {low:g} and {high:g}: a negative one prefers the rejected answer; raise low")
    return ((scores - scores.mean()) / scores.std(correction=0).clamp(min=1e-12)).clamp(low, high)


def mmedpo(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """s' * -log s(margin), [P]."""
    gap = v2(logps, coefficients.beta)
    rank = logps.weight * preference(gap)
    return LossTerms(rank, {"rank": rank}, visual_margin=gap)
