"""Two images, each with its own right answer: y+ under v, y0 under its counterfactual v'. Partition functions cancel.

    m   = margin(v; y+, y0)          m' = margin(v'; y0, y+)          D = beta * (S - S_ref)

symmetric (FiRe-MPO's flipped term made true; span sums):
    -log s(m) - log s(D_v(y+)) + gamma * h * [-log s(m') - log s(D_v'(y0))] + alpha * KL2 outside the spans, both images
ic_vco_single (IC-VCO, arXiv 2605.31312, its single-image branch alone; spans):
    1.75 * mean over both images of [-log s(m) - log s(D)]
symmpo (SymMPO, arXiv 2506.11712; whole answers):
    -log s(margin(v; y+, y-)) + lam * [-log s(m) - log s(m')] - log s(D_v(y+)) - log s(D_v'(y0))
    + 1e-4 * ((m - m') / beta)^2

ic_vco (IC-VCO whole, with its script's weights): ic_vco_single + 0.75 * the same mean with both images in one prompt,
which asks for an answer based on the first image (y+ over y0, margin M) or on the second (y0 over y+, M')
    + 0.4 * distillation: mean of -[t log s(m) + (1 - t) log s(-m)], t = s(M) without gradient, and of the same of
    m' and M', over those of the two images where t > 1/2 and s(m) < t

SymMPO's lam is 0.5 in its script; its consistency term takes the margins without beta. IC-VCO's script takes the mean
of the distillation over all such images of a micro-batch, which depends on how a batch is cut; here it is of a pair.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clinalign.objectives.dpo import dpo, margin, preference
from clinalign.objectives.keep import two_way
from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps

SINGLE, JOINT, DISTILLED = 1.75, 0.75, 0.4
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
    """IC-VCO's two branches and the distillation of the joint one into the single, [P]; 5 log 2 at the reference."""
    terms, beta = ic_vco_single(logps, coefficients), coefficients.beta
    first, second = logps.views["first"], logps.views["second"]
    own, wrong = first.ratio("chosen"), first.ratio("counterfactual")
    other, other_wrong = second.ratio("counterfactual"), second.ratio("chosen")
    gaps = (own - wrong, own, other - other_wrong, other)
    single = torch.stack(margins(logps, beta))
    joint = beta * torch.stack((own - wrong, other - other_wrong))
    terms.parts["joint"] = JOINT / 2 * torch.stack([preference(beta * gap) for gap in gaps]).sum(0)
    terms.parts["distilled"] = DISTILLED * distilled(single, joint)
    terms.loss = terms.loss + terms.parts["joint"] + terms.parts["distilled"]
    return terms


def distilled(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy of the student's preferences with the teacher's, margins [2, P] of two images, [P].

    The mean over those images where the teacher is right (margin above 0) and surer than the student; 0 where none is.
    """
    target = torch.sigmoid(teacher.detach())
    active = ((target > 0.5) & (torch.sigmoid(student.detach()) < target)).float()
    entropy = target * preference(student) + (1 - target) * preference(-student)
    return (active * entropy).sum(0) / active.sum(0).clamp(min=1)


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
