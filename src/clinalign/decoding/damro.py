"""DAMRO (Gong et al., EMNLP 2024, arXiv 2410.04514).

The contrast branch keeps only the image tokens that the vision tower's class token attends to most; the embeddings of
the others are zero. In a public port the mask was dropped on the way and the method was plain truncated sampling.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clinalign.decoding.loop import DecodingSteps, PromptBatch, contrast, halves
from clinalign.decoding.options import DAMRO
from clinalign.models.generate import advance, prefill
from clinalign.models.tower import class_attention


def damro(batch: PromptBatch, options: DAMRO) -> DecodingSteps:
    """Two branches in one batch."""
    state = prefill(batch.vlm, *batch.pair(outlying_features(batch, options.outliers)))
    while True:
        tokens = yield contrast(*halves(state.logits), options.alpha, options.beta)
        advance(batch.vlm, state, tokens.repeat(2))


def outlying_features(batch: PromptBatch, count: int) -> list[list[Tensor]]:
    """Features of every prompt's images with all but the `count` most attended tokens of each image set to zero."""
    distinct = {id(image): image for _, images in batch.prompts for image in images}
    inputs = [batch.vlm.input_image(image) for image in distinct.values()]
    maps = dict(zip(distinct, class_attention(batch.vlm, inputs), strict=True)) if inputs else {}
    out = []
    for (_, images), own in zip(batch.prompts, batch.features, strict=True):
        kept = [outliers(maps[id(image)], count) for image in images]
        out.append([one * part[:, None].to(one) for one, part in zip(own, kept, strict=True)])
    return out


def outliers(attention: Tensor, count: int) -> Tensor:
    """The `count` largest of attention [N], bool [N]."""
    kept = torch.zeros(len(attention), dtype=torch.bool, device=attention.device)
    kept[attention.topk(min(count, len(attention))).indices] = True
    return kept
