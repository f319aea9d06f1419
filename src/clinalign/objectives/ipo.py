"""IPO (arXiv 2310.12036): the margin is pulled to 1 / (2 beta) instead of to infinity; beta is the paper's tau.

    loss = (r(y+) - r(y-) - 1 / (2 beta))^2

`paper` takes r as sums over the answer. `code` takes means a token, which is what the paper's authors ran and what TRL
computes; `sound` is that, since a target for a sum depends on the answers' lengths.
"""

from __future__ import annotations

from clinalign.objectives.dpo import margin
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def ipo(logps: SequenceLogps, coefficients: LossCoefficients, variant: str = "sound") -> LossTerms:
    """(gap - 1 / (2 beta))^2, [P]; 1 / (4 beta^2) at the reference, 0 where the gap is 1 / (2 beta)."""
    sums = variant == "paper"
    lengths = [1 if sums else n.clamp(min=1) for n in (logps.chosen_tokens, logps.rejected_tokens)]
    chosen, rejected = logps.chosen / lengths[0], logps.rejected / lengths[1]
    gap = margin(chosen, rejected, logps.ref_chosen / lengths[0], logps.ref_rejected / lengths[1], 1.0)
    loss = (gap - 1 / (2 * coefficients.beta)) ** 2
    return LossTerms(loss, {"rank": loss}, coefficients.beta * gap)
