"""Keep: cross-entropy where the answer was edited, a two-way KL where it was not. After LAwF (longern/LAwF).

    keep                 = CE over the span tokens of y+ under v  +  alpha * sum over its other tokens of KL2
    keep_gated           = g * CE + alpha * KL2,  g = 2 sigmoid(-margin(v; y+, y-)) as a constant
    counterfactual_keep  = keep(v, y+) + gamma * h * keep(v', y0)
    KL2                  = lam KL(ref || pi) + (1 - lam) KL(pi || ref), whole vocabulary

CE is the mean over the tokens in the spans. Where an edit takes words out and puts none in ("no nodule" to "nodule"),
the answer turns at the token that follows: that one counts as edited (`empty_span: next_token`, the default here):
holding it to the reference would hold the word that was taken out. y0 is the answer that is right under the corrupted
image v', and h is 1 where a pair has both. g is 1 at the reference and falls to 0 as the margin grows: it stops pushing
as DPO does, without DPO's gradient on the rejected answer. LAwF prints KL(pi || target) and computes KL(target || pi).
"""

from __future__ import annotations

import torch
from torch import Tensor

from clinalign.objectives.dpo import margin
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps


def two_way(forward: Tensor, reverse: Tensor, lam: float) -> Tensor:
    """lam KL(ref || pi) + (1 - lam) KL(pi || ref), [P]."""
    return lam * forward + (1 - lam) * reverse


def keep(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """CE on the edit + alpha * KL2 on the rest, [P]."""
    kl = coefficients.alpha * two_way(logps.kl_forward, logps.kl_reverse, coefficients.lam)
    return LossTerms(logps.nll + kl, {"nll": logps.nll, "kl": kl})


def keep_gated(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """CE on the edit, weighed down as the margin of y+ over y- grows, + alpha * KL2 on the rest, [P]."""
    terms = keep(logps, coefficients)
    gap = margin(logps.chosen, logps.rejected, logps.ref_chosen, logps.ref_rejected, coefficients.beta).detach()
    terms.parts["nll"] = 2 * torch.sigmoid(-gap) * logps.nll
    return LossTerms(terms.parts["nll"] + terms.parts["kl"], terms.parts, gap)


def counterfactual_keep(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """Keep under the image, and keep of the counterfactual answer under the corrupted image, [P]."""
    terms = keep(logps, coefficients)
    weight = coefficients.gamma * logps.has_corrupt
    mixed = two_way(logps.corrupt_kl_forward, logps.corrupt_kl_reverse, coefficients.lam)
    terms.parts["visual"] = weight * logps.corrupt_nll
    terms.parts["visual_kl"] = weight * coefficients.alpha * mixed
    terms.loss = terms.loss + terms.parts["visual"] + terms.parts["visual_kl"]
    return terms
