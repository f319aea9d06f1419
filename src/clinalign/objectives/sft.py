"""Supervised fine-tuning on the chosen answers: no reference, no rejected side."""

from __future__ import annotations

from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def sft(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """Mean negative log-likelihood a token of the chosen answer, [P]."""
    return LossTerms(logps.nll, {"nll": logps.nll})
