"""SimPO (arXiv 2405.14734): mean log-probabilities a token, no reference, a target margin gamma.

    loss = -log s(beta * (mean log pi(y+) - mean log pi(y-)) - gamma)

Published settings: beta 2 to 2.5 (10 for some models), gamma / beta mostly 0.5. The mean over a whole answer dilutes
the one or two tokens that a minimal edit changes.
"""

from __future__ import annotations

from clinalign.objectives.dpo import preference
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def simpo(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """-log s(beta * gap of means - gamma), [P]; `coefficients.gamma` is the target margin."""
    chosen = logps.chosen / logps.chosen_tokens.clamp(min=1)
    rejected = logps.rejected / logps.rejected_tokens.clamp(min=1)
    gap = coefficients.beta * (chosen - rejected)
    rank = preference(gap - coefficients.gamma)
    return LossTerms(rank, {"rank": rank}, gap)
