"""Direct preference optimisation (arXiv 2305.18290), sigmoid form, on sums over all answer tokens."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def margin(a: Tensor, b: Tensor, ref_a: Tensor, ref_b: Tensor, beta: float) -> Tensor:
    """beta * [(S(a) - S(b)) - (S_ref(a) - S_ref(b))], by pair [P]."""
    return beta * ((a - b) - (ref_a - ref_b))


def preference(margin: Tensor) -> Tensor:
    """-log sigmoid(margin), [P]; log 2 at margin 0."""
    return softplus(-margin)


def dpo(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """-log sigmoid(margin)."""
    gap = margin(logps.chosen, logps.rejected, logps.ref_chosen, logps.ref_rejected, coefficients.beta)
    rank = preference(gap)
    return LossTerms(rank, {"rank": rank}, gap)
