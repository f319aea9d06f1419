"""Two images, each with its own right answer: y+ under v, y0 under its counterfactual v'. Partition functions cancel.

    m   = margin(v; y+, y0)          m' = margin(v'; y0, y+)          D = beta * (S - S_ref)

symmetric (FiRe-MPO's flipped term made true; span sums):
    -log s(m) - log s(D_v(y+)) + gamma * h * [-log s(m') - log s(D_v'(y0))] + alpha * KL2 outside the spans, both images
ic_vco_single (IC-VCO, arXiv 2605.31312, its single-image branch alone; spans):
    1.75 * mean over both images of [-log s(m) - log s(D)]
symmpo (SymMPO, arXiv 2506.11712; whole answers):
    -log s(margin(v; y+, y-)) + lam * [-log s(m) - log s(m')] - log s(D_v(y+)) - log s(D_v'(y0))
    + 1e-4 * ((m - m') / beta)^2

ic_vco (IC-VCO with its joint branch): ic_vco_single + 0.75 * the same mean with both images in one prompt, which asks
for
    an answer based on the first image (y+ over y0) or on the second (y0 over y+)

IC-VCO's distillation between the branches (weight 0.4) is left out. SymMPO's lam is 0.5 in its script; its consistency
term takes the margins without beta.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clinalign.objectives.dpo import dpo, margin, preference
from clinalign.objectives.keep import two_way
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps

SINGLE, JOINT = 1.75, 0.75
CONSISTENCY = 1e-4


def margins(logps: SequenceLogps, beta: float) -> tuple[Tensor, Tensor]:
    """m of y+ over y0 under the image and m' of y0 over y+ under the corrupted image, [P]."""
    clean = margin(logps.chosen, logps.counterfactual, logps.ref_chosen, logps.ref_counterfactual, beta)
    corrupt = margin(
        logps.corrupt_counterfactual,
        logps.corrupt_chosen,
        logps.corrupt_ref_counterfactual,
        logps.corrupt_ref_chosen,
        beta,
    )
    return clean, corrupt


def anchors(logps: SequenceLogps, beta: float) -> tuple[Tensor, Tensor]:
    """-log s of the reward of y+ under the image, and of y0 under the corrupted image, [P]."""
    return (
        preference(beta * (logps.chosen - logps.ref_chosen)),
        preference(beta * (logps.corrupt_counterfactual - logps.corrupt_ref_counterfactual)),
    )


def symmetric(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """Span preference under each image for its own answer, with anchors and a KL on the rest, [P]."""
    clean, corrupt = margins(logps, coefficients.beta)
    anchor, corrupt_anchor = anchors(logps, coefficients.beta)
    seen = logps.has_corrupt
    kl = two_way(logps.kl_forward, logps.kl_reverse, coefficients.lam)
    corrupt_kl = two_way(logps.corrupt_kl_forward, logps.corrupt_kl_reverse, coefficients.lam)
    parts = {
        "rank": preference(clean),
        "visual": coefficients.gamma * seen * preference(corrupt),
        "anchor": anchor + coefficients.gamma * seen * corrupt_anchor,
        "kl": coefficients.alpha * (kl + seen * corrupt_kl),
    }
    return LossTerms(parts["rank"] + parts["visual"] + parts["anchor"] + parts["kl"], parts, clean, corrupt)


def ic_vco_single(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """IC-VCO's single-image branch, [P]."""
    clean, corrupt = margins(logps, coefficients.beta)
    anchor, corrupt_anchor = anchors(logps, coefficients.beta)
    half = SINGLE / 2
    parts = {
        "rank": half * preference(clean),
        "visual": half * preference(corrupt),
        "anchor": half * (anchor + corrupt_anchor),
    }
    return LossTerms(parts["rank"] + parts["visual"] + parts["anchor"], parts, clean, corrupt)


def ic_vco(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """IC-VCO's two branches, [P]; 5 log 2 at the reference."""
    terms, beta = ic_vco_single(logps, coefficients), coefficients.beta
    first, second = logps.views["first"], logps.views["second"]
    own, wrong = first.ratio("chosen"), first.ratio("counterfactual")
    other, other_wrong = second.ratio("counterfactual"), second.ratio("chosen")
    gaps = (own - wrong, own, other - other_wrong, other)
    terms.parts["joint"] = JOINT / 2 * torch.stack([preference(beta * gap) for gap in gaps]).sum(0)
    terms.loss = terms.loss + terms.parts["joint"]
    return terms


def symmpo(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """SymMPO, [P]."""
    terms = dpo(logps, coefficients)
    clean, corrupt = margins(logps, coefficients.beta)
    anchor, corrupt_anchor = anchors(logps, coefficients.beta)
    terms.visual_margin = corrupt
    terms.parts |= {
        "visual": coefficients.lam * (preference(clean) + preference(corrupt)),
        "anchor": anchor + corrupt_anchor,
        "consistency": CONSISTENCY * ((clean - corrupt) / coefficients.beta) ** 2,
    }
    terms.loss = terms.loss + terms.parts["visual"] + terms.parts["anchor"] + terms.parts["consistency"]
    return terms
