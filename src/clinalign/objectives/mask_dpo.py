"""MASK-DPO: DPO whose sums run over the differing spans only, as compared in arXiv 2606.12590 (FiRe-MPO without KL)."""

from __future__ import annotations

from clinalign.objectives.dpo import dpo
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def mask_dpo(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """DPO on span sums; the choice of tokens is made where the sums are formed."""
    return dpo(logps, coefficients)
