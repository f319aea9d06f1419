"""Stage 2: the vision tower and the projector learn to see, from dense labels of every patch.

Linear heads read the projected image tokens and are thrown away afterwards: per patch and kind whether the finding
covers it, and, where it does, its side and size; and the same three per image from the mean of the patches.
"""

import math
import time

import numpy as np
import torch
from corpus import NO_LABEL, Corpus
from model import TEXT_WIDTH, pixels
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration

from clinalign.data.phantom.cases import KINDS
from clinalign.progress import say

COVERED = 0.15  # share of a patch from which it counts as showing a finding
PRESENT_WEIGHT = 3.0


def project(model: LlavaForConditionalGeneration, images: Tensor) -> Tensor:
    """uint8 [n, 64, 64] to projected image tokens [n, 64, 192], as the LLaVA forward computes them (CLS dropped)."""
    states = model.model.vision_tower(pixels(images)).last_hidden_state
    projected: Tensor = model.model.multi_modal_projector(states[:, 1:])
    return projected


class Heads(nn.Module):
    """Linear heads over projected tokens: presence, side and size of each kind, per patch and per image."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Linear(TEXT_WIDTH, 3 * len(KINDS))
        self.image = nn.Linear(TEXT_WIDTH, 3 * len(KINDS))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [n, 64, 6, 3] per patch and [n, 6, 3] per image; the last axis is presence, side, size."""
        patch = self.patch(tokens).unflatten(-1, (len(KINDS), 3))
        image = self.image(tokens.mean(1)).unflatten(-1, (len(KINDS), 3))
        return patch, image


def learning_rate(step: int, steps: int, peak: float, warmup: int = 50) -> float:
    """Linear warm-up, then a cosine to a tenth of `peak`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))))


def pretrain_vision(
    model: LlavaForConditionalGeneration, corpus: Corpus, *, steps: int, batch: int, peak: float, seed: int
) -> None:
    """Train the vision tower and the projector in place."""
    torch.manual_seed(seed)
    heads = Heads()
    modules = (model.model.vision_tower, model.model.multi_modal_projector, heads)
    parameters = [parameter for module in modules for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=peak, weight_decay=0.02, betas=(0.9, 0.98))
    order = np.random.default_rng(seed)
    start, recent = time.monotonic(), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        rows = order.integers(0, len(corpus.cases), batch)
        loss = _loss(model, heads, corpus, rows)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        recent.append(loss.item())
        if (step + 1) % 100 == 0:
            say(f"vision {step + 1}/{steps}: loss {np.mean(recent):.4f} ({time.monotonic() - start:.0f} s)")
            recent = []


def _loss(model: LlavaForConditionalGeneration, heads: Heads, corpus: Corpus, rows: np.ndarray) -> Tensor:
    share = torch.from_numpy(corpus.cover[rows]).float() / 255  # [n, 6, 64]
    present = share.amax(-1) > 0
    covered = (share >= COVERED) | ((share == share.amax(-1, keepdim=True)) & present[..., None])
    side, size = (torch.from_numpy(labels[rows]).long() for labels in (corpus.side, corpus.size))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        patch, image = (logits.float() for logits in heads(project(model, torch.from_numpy(corpus.images[rows]))))
    patch = patch.transpose(1, 2)  # [n, 6, 64, 3]
    weight = torch.where(covered, PRESENT_WEIGHT, 1.0)
    loss = F.binary_cross_entropy_with_logits(patch[..., 0], covered.float(), weight=weight)
    loss = loss + 0.3 * F.binary_cross_entropy_with_logits(image[..., 0], present.float())
    for index, labels in ((1, side), (2, size)):
        known = labels != NO_LABEL
        here = covered & known[..., None]
        target = labels[..., None].expand_as(covered).float()
        loss = loss + 0.3 * F.binary_cross_entropy_with_logits(patch[..., index][here], target[here])
        loss = loss + 0.3 * F.binary_cross_entropy_with_logits(image[..., index][known], labels[known].float())
    return loss
