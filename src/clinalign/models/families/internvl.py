"""InternVL (the `-hf` folders): an InternViT tower, pixel shuffle, a decoder with ordinary positions.

Every image is one square tile. Cutting large images into several tiles (`crop_to_patches`) is not used.
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
    return None


def _build_processor(image_processor: Any, tokenizer: Any, settings: dict[str, Any], config: Any) -> Parts:
    image_processor.crop_to_patches = False
    template = settings.get("chat_template") or tokenizer.chat_template
    token = tokenizer.convert_ids_to_tokens(config.image_token_id)
    side = math.isqrt(config.image_seq_length)
    around = (getattr(tokenizer, f"{end}_image_token", None) for end in ("start", "end"))
    begin, end = (told or usual for told, usual in zip(around, ("<img>", "</img>"), strict=True))
    return Parts(image_processor, tokenizer, template, token, side, (begin, token, end))


def _encode(model: Any, processor: Any, images: Sequence[np.ndarray]) -> list[Tensor]:
    pixels = processor.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
    out = model.model.get_image_features(
        pixel_values=pixels.to(model.device, model.dtype),
        vision_feature_layer=model.config.vision_feature_layer,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
        return_dict=True,
    )
    return [features.detach() for features in out.pooler_output]


def _place(embeddings: Tensor, where: Tensor, features: Tensor) -> tuple[Tensor, dict[str, Any]]:
    return put(embeddings, where, features), {}


FAMILY = Family(
    name="internvl",
    model_class="InternVLForConditionalGeneration",
    build_processor=_build_processor,
    grid=square_grid,
    token_count=cells,
    encode=torch.no_grad()(_encode),
    place=_place,
    positions=plain_positions,
    check=_check,
    image_text=framed,
)
