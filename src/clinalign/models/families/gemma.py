"""Gemma 3 and MedGemma: a SigLIP tower pooled to one size, layers with a window, images that look both ways.

Every image is one square (pan and scan off, as the processors ship). Inside an image all tokens see each other; five
layers of six see only `sliding_window` tokens back. Source: arXiv 2503.19786 and the masks of transformers' Gemma 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinalign.models.families.family import Family, Parts, cells, framed, plain_positions, put, square_grid


def _check(config: Any) -> str | None:
    text = config.get_text_config()
    if getattr(text, "use_bidirectional_attention", False):
        return "a Gemma 3 whose text looks both ways is an encoder; give a generating one"
    return None


def _build_processor(image_processor: Any, tokenizer: Any, settings: dict[str, Any], config: Any) -> Parts:
    image_processor.do_pan_and_scan = False
    template = settings.get("chat_template") or tokenizer.chat_template
    side = math.isqrt(config.mm_tokens_per_image)
    begin = tokenizer.convert_ids_to_tokens(config.boi_token_index)
    soft, end = map(tokenizer.convert_ids_to_tokens, (config.image_token_id, config.eoi_token_index))
    return Parts(image_processor, tokenizer, template, begin, side, (f"\n\n{begin}", soft, f"{end}\n\n"))


def _encode(model: Any, processor: Any, images: Sequence[np.ndarray]) -> list[Tensor]:
    pixels = processor.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
    out = model.model.get_image_features(pixels.to(model.device, model.dtype), return_dict=True)
    return [features.detach() for features in out.pooler_output]


def _place(embeddings: Tensor, where: Tensor, features: Tensor) -> tuple[Tensor, dict[str, Any]]:
    return put(embeddings, where, features), {}


def _masks(config: Any, mask: Tensor, queries: Tensor, keys: Tensor, images: Tensor | None) -> dict[str, Tensor]:
    """The same as transformers makes of token types: an image's tokens see each other, then the window cuts."""
    if images is not None:
        begins = images & ~images.roll(1, dims=1)
        begins[:, 0] = images[:, 0]
        number = begins.cumsum(1).masked_fill(~images, 0)
        mask = mask | ((number[:, None, :, None] == number[:, None, None, :]) & images[:, None, None, :])
    near = keys[:, None, None, :] > queries[:, None, :, None] - config.sliding_window
    return {"full_attention": mask, "sliding_attention": mask & near}


FAMILY = Family(
    name="gemma3",
    model_class="Gemma3ForConditionalGeneration",
    build_processor=_build_processor,
    grid=square_grid,
    token_count=cells,
    encode=torch.no_grad()(_encode),
    place=_place,
    positions=plain_positions,
    check=_check,
    image_text=framed,
    masks=_masks,
)
