"""Losses that also score an answer without the image, or more images than two: from log ratios that a caller brings.

r(y | v) = log pi(y | v, q) - log ref(y | v, q), [P]; v0: no image (or a blank one); v': the counterfactual image.

    vdpo  (V-DPO, arXiv 2411.02712)   DPO on the guided log-probability gamma log pi(y|v) - (gamma - 1) log pi(y|v0)
    svco  (S-VCO, arXiv 2502.13928)   -log s of beta times r(y+|v) - r(y+|v0), r(y+|v0) - r(y+|v'),
                                      r(y-|v') - r(y-|v0), r(y-|v0) - r(y-|v);  y- is the right answer under v'
    lpoi  (LPOI, arXiv 2505.21061)    r(y+ | v_1) > ... > r(y+ | v_K) over images that show less and less, list-wise
    povid (arXiv 2402.11411, stage 2) half DPO(y+, y-), half DPO(y+, y~), y~_t the likeliest token under a noised image

All but vdpo's guided pair and povid compare one text under several images, so partition functions do not cancel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clinalign.objectives.dpo import margin, preference


def guided(logp: Tensor, without: Tensor, gamma: float) -> Tensor:
    """V-DPO's log-probability of an answer, guided away from what the text alone suggests, [P]."""
    return gamma * logp - (gamma - 1) * without


def vdpo(
    policy: tuple[Tensor, Tensor],
    reference: tuple[Tensor, Tensor],
    policy_free: tuple[Tensor, Tensor],
    reference_free: tuple[Tensor, Tensor],
    *,
    beta: float = 0.1,
    gamma: float,
    variant: str = "sound",
) -> Tensor:
    """V-DPO, [P], from log-probabilities of (chosen, rejected) with and without the image. gamma 1 is DPO.

    `code` takes the image-free values as constants, as the published script does, which also sets gamma 0: what is left
    has no gradient. Raises `ValueError` for that.
    """
    if variant == "code":
        if gamma == 0:
            raise ValueError("gamma 0 with image-free values as constants has no gradient; set gamma to 1 or more")
        policy_free = (policy_free[0].detach(), policy_free[1].detach())
    a, b = (guided(with_, free, gamma) for with_, free in zip(policy, policy_free, strict=True))
    ref_a, ref_b = (guided(with_, free, gamma) for with_, free in zip(reference, reference_free, strict=True))
    return preference(margin(a, b, ref_a, ref_b, beta))


def svco(chosen: tuple[Tensor, Tensor, Tensor], rejected: tuple[Tensor, Tensor, Tensor], beta: float = 0.1) -> Tensor:
    """S-VCO, [P], from log ratios of y+ and of y- under (v, v0, v'); 4 log 2 at the reference."""
    (image, none, counter), (other, other_none, other_counter) = chosen, rejected
    gaps = (image - none, none - counter, other_counter - other_none, other_none - other)
    return torch.stack([preference(beta * gap) for gap in gaps]).sum(0)


def lpoi(ratios: Tensor, beta: float = 0.1) -> Tensor:
    """LPOI's list-wise loss, [P], from log ratios [K, P] of y+, the fullest image first; log K! at the reference.

    The chance, under Plackett and Luce, of drawing the images in that order.
    """
    rewards = beta * ratios
    rest = rewards.flip(0).logcumsumexp(0).flip(0)
    return (rest - rewards).sum(0)


def povid(chosen: Tensor, rejected: Tensor, likeliest: Tensor, beta: float = 0.1) -> Tensor:
    """POVID's second stage, [P], from log ratios of y+, y- and y~, all under the clean image."""
    return 0.5 * preference(beta * (chosen - rejected)) + 0.5 * preference(beta * (chosen - likeliest))
