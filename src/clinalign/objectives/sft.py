"""Supervised fine-tuning on the chosen answers: no reference, no rejected side."""

from __future__ import annotations

from clinalign.objectives.sums import Sums, Terms, Weights


def sft(sums: Sums, weights: Weights) -> Terms:
    """Mean negative log-likelihood a token of the chosen answer, [P]."""
    return Terms(sums.nll, {"nll": sums.nll})
