"""S-VCO (arXiv 2502.13928): each of two images against no image, and no image against the other one, both ways round.

    loss = -log s(beta [r(y+ | v)  - r(y+)])  - log s(beta [r(y+) - r(y+ | v')])
           -log s(beta [r(y0 | v') - r(y0)])  - log s(beta [r(y0) - r(y0 | v)])

y0 is the answer that is right under the counterfactual image v'; r(y) without an image is under the question alone.
Every difference is of one text under two inputs, so partition functions do not cancel.
"""

from __future__ import annotations

from clinalign.objectives.dpo import preference
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def svco(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """The four terms, [P]; 4 log 2 at the reference."""
    free, beta = logps.views["free"], coefficients.beta
    image, other = logps.chosen - logps.ref_chosen, logps.corrupt_chosen - logps.corrupt_ref_chosen
    own = logps.corrupt_counterfactual - logps.corrupt_ref_counterfactual
    wrong = logps.counterfactual - logps.ref_counterfactual
    none, none_own = free.ratio("chosen"), free.ratio("counterfactual")
    parts = {
        "rank": preference(beta * (image - none)) + preference(beta * (own - none_own)),
        "visual": preference(beta * (none - other)) + preference(beta * (none_own - wrong)),
    }
    return LossTerms(parts["rank"] + parts["visual"], parts, visual_margin=beta * (image - other))
