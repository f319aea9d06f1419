"""RRPO (arXiv 2504.12083): ranking on the differing spans, kept near the reference by a forward token KL.

Its authors take the KL over all tokens of the chosen answer; the comparison in arXiv 2606.12590 takes it over the spans
(`rrpo_authors` and `rrpo`). Which tokens enter the sums is the only difference.
"""

from __future__ import annotations

from clinalign.objectives.dpo import dpo
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def rrpo(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """-log sigmoid(margin) + alpha * sum_t KL(reference || policy)."""
    terms = dpo(logps, coefficients)
    terms.parts["kl"] = coefficients.alpha * logps.kl_forward
    terms.loss = terms.loss + terms.parts["kl"]
    return terms
