"""ORPO (arXiv 2403.07691): NLL of the chosen answer, and the log odds ratio of chosen over rejected; no reference.

    loss = NLL(y+) - beta * log s(log odds(y+) - log odds(y-)),   odds = p / (1 - p), log p the mean a token

beta is the paper's lambda. TRL takes the NLL over prompt and answer; here, as in the paper, over the answer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clinalign.objectives.dpo import preference
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps

CERTAIN = -1e-6
"""Largest mean log-probability: odds are infinite at 0."""


def log_odds(mean: Tensor) -> Tensor:
    """log p - log(1 - p) from log p, [P]."""
    mean = mean.clamp(max=CERTAIN)
    return mean - torch.log(-torch.expm1(mean))


def orpo(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """NLL - beta * log s(log odds ratio), [P]."""
    chosen = log_odds(logps.chosen / logps.chosen_tokens.clamp(min=1))
    rejected = log_odds(logps.rejected / logps.rejected_tokens.clamp(min=1))
    parts = {"nll": logps.nll, "rank": coefficients.beta * preference(chosen - rejected)}
    return LossTerms(parts["nll"] + parts["rank"], parts, chosen - rejected)
