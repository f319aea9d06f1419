"""Visual contrastive decoding (Leng et al., CVPR 2024, arXiv 2311.16922).

Scores (1 + alpha) z(image) - alpha z(noised image). The noise is one step of a diffusion process on the normalised
pixels, drawn once per image. In a widely copied port the noised image never reached the encoder and the method was
plain truncated sampling; here the contrast branch encodes it, in the same batch as the clean one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clinalign.decoding.loop import DecodingSteps, PromptBatch, contrast, halves, image_seed
from clinalign.decoding.options import VCD
from clinalign.models import VLM
from clinalign.models.generate import advance, prefill

STEPS = 1000
FAMILIES = ("llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def vcd(batch: PromptBatch, options: VCD) -> DecodingSteps:
    """Two branches in one batch; a branch's key-value cache sees its own image."""
    state = prefill(batch.vlm, *batch.pair(noised_features(batch, options.noise_step, options.seed)))
    while True:
        tokens = yield contrast(*halves(state.logits), options.alpha, options.beta)
        advance(batch.vlm, state, tokens.repeat(2))


def kept(step: int) -> float:
    """Share of the signal's variance left at `step` of the schedule, abar; 500 gives .7448, 0 stands for no noise."""
    betas = torch.sigmoid(torch.linspace(-6, 6, STEPS, dtype=torch.float64)) * (5e-3 - 1e-5) + 1e-5
    return float(torch.cumprod(1 - betas, 0)[step]) if step else 1.0


def noised_features(batch: PromptBatch, step: int, seed: int) -> list[list[Tensor]]:
    """Features of every prompt's images under the noise of `step`; each distinct image is encoded once."""
    vlm = batch.vlm
    distinct = {id(image): image for _, images in batch.prompts for image in images}
    features = dict(zip(distinct, _noised(vlm, list(distinct.values()), step, seed), strict=True))
    return [[features[id(image)] for image in images] for _, images in batch.prompts]


def _noised(vlm: VLM, images: list, step: int, seed: int) -> list[Tensor]:
    signal = kept(step)
    inputs = [vlm.input_image(image) for image in images]

    def change(i: int, pixels: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(image_seed(inputs[i], seed))
        normals = vlm.family.normals
        assert normals is not None
        return signal**0.5 * pixels + (1 - signal) ** 0.5 * normals(vlm.processor, pixels, generator).to(pixels)

    return vlm.image_features(inputs, change if step else None)
