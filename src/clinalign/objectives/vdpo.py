"""V-DPO (arXiv 2411.02712): DPO on log-probabilities that are guided away from what the text alone suggests.

    log pi^(y) = gamma log pi(y | v, q) - (gamma - 1) log pi(y | q),      loss = -log s(beta [r^(y+) - r^(y-)])

The image-free prompt is the question alone (the authors: an image of zeros or of noise). gamma 1 is DPO; its default
here is ours. `code`: the image-free values are constants, as in the published script, which sets gamma 0 besides: what
is left then has no gradient.
"""

from __future__ import annotations

from torch import Tensor

from clinalign.objectives.dpo import margin, preference
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def guided(logp: Tensor, without: Tensor, gamma: float) -> Tensor:
    """The guided log-probability of an answer, [P], from those with and without the image."""
    return gamma * logp - (gamma - 1) * without


def vdpo(logps: SequenceLogps, coefficients: LossCoefficients, variant: str = "sound") -> LossTerms:
    """-log s of the guided margin, [P]. Raises `ValueError` for `code` at gamma 0, which has no gradient."""
    free, gamma = logps.views["free"], coefficients.gamma
    if variant == "code" and gamma == 0:
        raise ValueError("gamma 0 with image-free values as constants has no gradient; set gamma to 1 or more")
    mine = [free.logps[side].detach() if variant == "code" else free.logps[side] for side in ("chosen", "rejected")]
    gap = margin(
        guided(logps.chosen, mine[0], gamma),
        guided(logps.rejected, mine[1], gamma),
        guided(logps.ref_chosen, free.ref_logps["chosen"], gamma),
        guided(logps.ref_rejected, free.ref_logps["rejected"], gamma),
        coefficients.beta,
    )
    rank = preference(gap)
    return LossTerms(rank, {"rank": rank}, gap)
