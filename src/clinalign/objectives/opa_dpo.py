"""OPA-DPO (arXiv 2501.09695): on-policy DPO, the same answer preferred under the image over a masked one, an anchor.

    loss = -log s(m) + gamma * -log s(beta * [r(y+ | v) - r(y+ | v')]) + alpha * -log s(beta * r(y+)),   gamma 0.2

v' has 30 % of its pixels or patches masked. The published code takes every sigmoid token by token, of position t of one
answer against position t of another, though an edit shifts the positions: `by_position` is that, and where answers do
not line up it compares tokens that have nothing to do with each other. `opa_dpo` takes sums. Published pairs come from
a first stage that trains on ground truth and revised answers; here they come from the editor.
"""

from __future__ import annotations

from torch import Tensor

from clinalign.objectives.dpo import dpo, preference
from clinalign.objectives.firempo import v1
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def opa_dpo(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """rank + visual + anchor of whole answers, [P]."""
    terms = dpo(logps, coefficients)
    terms.visual_margin = v1(logps, coefficients.beta)
    terms.parts["visual"] = coefficients.gamma * logps.has_corrupt * preference(terms.visual_margin)
    terms.parts["anchor"] = coefficients.alpha * preference(coefficients.beta * (logps.chosen - logps.ref_chosen))
    terms.loss = terms.loss + terms.parts["visual"] + terms.parts["anchor"]
    return terms


def by_position(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Mean over positions of -log s of the difference of log ratios [P, T], zero where an answer has ended, [P]."""
    return preference(beta * (chosen - rejected)).mean(-1)
