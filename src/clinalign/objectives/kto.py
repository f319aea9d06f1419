"""KTO (arXiv 2402.01306): good and bad answers each against a baseline, no pairs needed.

    loss = desirable * (1 - s(beta * (r(y+) - z0)))  and  undesirable * (1 - s(beta * (z0 - r(y-))))

z0 = max(0, KL estimate) is one number a batch, a constant: the mean log ratio of answers that belong to other prompts.
It is measured before the step, over the whole batch and all processes, from one answer of another example a pair: so it
does not depend on how the batch is cut. With z0 = 0 the loss is APO-zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def baseline(mismatched: Tensor, ref_mismatched: Tensor) -> Tensor:
    """z0 from the log-probabilities [N] of answers to other prompts: max(0, mean log ratio), a constant."""
    return (mismatched - ref_mismatched).mean().clamp(min=0).detach()


def kto(
    logps: SequenceLogps, coefficients: LossCoefficients, desirable: float = 1.0, undesirable: float = 1.0
) -> LossTerms:
    """Mean of both answers' losses, [P]; 1/2 at the reference with z0 = 0 and weights of 1."""
    z0 = logps.baseline
    good, bad = logps.chosen - logps.ref_chosen, logps.rejected - logps.ref_rejected
    parts = {
        "chosen": desirable / 2 * torch.sigmoid(-coefficients.beta * (good - z0)),
        "rejected": undesirable / 2 * torch.sigmoid(-coefficients.beta * (z0 - bad)),
    }
    return LossTerms(parts["chosen"] + parts["rejected"], parts, coefficients.beta * (good - bad))
