"""FiRe-MPO (arXiv 2606.12590): span preference, flipped under a lesion-corrupted image, with a two-way token KL.

    rank   = -log sigmoid(margin(v; y+, y-))
    visual = gamma * h * -log sigmoid(margin(v'; y-, y+))       the preference turns round where the lesion is destroyed
    kl     = alpha * sum_t [lam KL(ref || pi) + (1 - lam) KL(pi || ref)]      at the spans of (v, y+), whole vocabulary

The paper's printed loss subtracts the KL; its pseudocode and published code add it, as here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clinalign.objectives.dpo import margin, preference
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def flipped(logps: SequenceLogps, beta: float) -> Tensor:
    """Margin of y- over y+ under the corrupted image, [P]."""
    return margin(
        logps.corrupt_rejected, logps.corrupt_chosen, logps.corrupt_ref_rejected, logps.corrupt_ref_chosen, beta
    )


def v1(logps: SequenceLogps, beta: float) -> Tensor:
    """Variant v1: margin of y+ under the image over y+ under the corrupted image, [P]."""
    return margin(logps.chosen, logps.corrupt_chosen, logps.ref_chosen, logps.corrupt_ref_chosen, beta)


def v2(logps: SequenceLogps, beta: float) -> Tensor:
    """Variant v2: margin of y+ under the image over y- under the corrupted image, [P]."""
    return margin(logps.chosen, logps.corrupt_rejected, logps.ref_chosen, logps.corrupt_ref_rejected, beta)


VISUAL: dict[str, Callable[[SequenceLogps, float], Tensor]] = {"flipped": flipped, "v1": v1, "v2": v2}


def firempo(logps: SequenceLogps, coefficients: LossCoefficients, visual: str = "flipped") -> LossTerms:
    """rank + visual + kl, [P]. A weight of zero leaves its term out."""
    gap = margin(logps.chosen, logps.rejected, logps.ref_chosen, logps.ref_rejected, coefficients.beta)
    terms = LossTerms(preference(gap), margin=gap)
    terms.parts["rank"] = terms.loss
    if coefficients.gamma:
        terms.visual_margin = VISUAL[visual](logps, coefficients.beta)
        terms.parts["visual"] = coefficients.gamma * logps.has_corrupt * preference(terms.visual_margin)
    if coefficients.alpha:
        mixed = coefficients.lam * logps.kl_forward + (1 - coefficients.lam) * logps.kl_reverse
        terms.parts["kl"] = coefficients.alpha * mixed
    terms.loss = sum(terms.parts.values(), torch.zeros_like(gap))
    return terms
