"""POVID (arXiv 2402.11411), second stage: DPO against the rejected answer and against what noise makes the model say.

    loss = (1 - alpha) * DPO(y+, y-) + alpha * DPO(y+, y~),   alpha 0.5
    y~_t = the policy's likeliest token behind y+_<t under the noised image,  scored behind y+_<t under the clean image

The authors noise the whole image by 500 diffusion steps; here it is the pair's corrupted image. Both answers of each
margin are under one image. Where the noise changes no token, y~ is what greedy decoding says behind y+.
"""

from __future__ import annotations

from clinalign.objectives.dpo import margin, preference
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def povid(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """Both preferences at their shares, [P]; log 2 at the reference, DPO at alpha 0."""
    beta, share = coefficients.beta, coefficients.alpha
    gap = margin(logps.chosen, logps.rejected, logps.ref_chosen, logps.ref_rejected, beta)
    noised = margin(logps.chosen, logps.likeliest, logps.ref_chosen, logps.ref_likeliest, beta)
    parts = {"rank": (1 - share) * preference(gap), "visual": share * preference(noised)}
    return LossTerms(parts["rank"] + parts["visual"], parts, gap, noised)
