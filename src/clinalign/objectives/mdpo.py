"""mDPO (arXiv 2406.11839): DPO, the same answer preferred under the image over a corrupted one, and an anchor; CoPO.

    rank   = -log sigmoid(beta [r(y+, v) - r(y-, v)])                 r(y, v) = log pi(y | v, q) - log ref(y | v, q)
    visual = gamma * h * -log sigmoid(beta [r(y+, v) - r(y+, v')])
    anchor = -log sigmoid(beta r(y+, v) - delta), delta = 0

gamma is 1 in the published form, where v' is a small random crop of v (`corrupt.kind: crop`).
"""

from __future__ import annotations

from clinalign.objectives.dpo import dpo, preference
from clinalign.objectives.firempo import v1
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def mdpo(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """rank + visual + anchor, [P]."""
    terms = dpo(logps, coefficients)
    terms.visual_margin = v1(logps, coefficients.beta)
    terms.parts["visual"] = coefficients.gamma * logps.has_corrupt * preference(terms.visual_margin)
    terms.parts["anchor"] = preference(coefficients.beta * (logps.chosen - logps.ref_chosen))
    terms.loss = terms.loss + terms.parts["visual"] + terms.parts["anchor"]
    return terms


def copo(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """CoPO: mDPO's visual term alone, [P], as arXiv 2601.17918 compares it; a pair without v' is refused before."""
    gap = v1(logps, coefficients.beta)
    rank = preference(gap)
    return LossTerms(rank, {"visual": rank}, visual_margin=gap)
