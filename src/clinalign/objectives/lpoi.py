"""LPOI (arXiv 2505.21061): the same answer over a ladder of images that show less and less of what it speaks of.

    loss = -log of the chance, under Plackett and Luce with rewards beta r(y+ | v_k), of drawing v_1, v_2, ..., v_K

The authors mask the object that matters and reveal it in steps; here the steps lie between the image and its corrupted
copy (`corrupt.levels`, `ladder_images` of a pair). One text under several images: partition functions do not cancel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps

NEVER = -1e30


def ranked(rewards: Tensor, has: Tensor) -> Tensor:
    """-log of the chance of the order of the images, [P], from rewards [K, P] and which images a pair has [K, P]; its
    last image is there. log K! where rewards are equal."""
    open_ = rewards.masked_fill(has == 0, NEVER)
    rest = open_.flip(0).logcumsumexp(0).flip(0)
    return ((rest - rewards) * has).sum(0)


def lpoi(logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """The list-wise loss over the image, the steps of the ladder and the corrupted image, [P]."""
    steps = [logps.views[name] for name in sorted(logps.views)]
    first, last = logps.chosen - logps.ref_chosen, logps.corrupt_chosen - logps.corrupt_ref_chosen
    ratios = torch.stack([first, *(step.ratio("chosen") for step in steps), last])
    has = torch.stack([torch.ones_like(first), *(step.has for step in steps), torch.ones_like(first)])
    loss = ranked(coefficients.beta * ratios, has)
    return LossTerms(loss, {"visual": loss}, visual_margin=coefficients.beta * (first - last))
