"""Idefics3 (SmolVLM's ancestor): a SigLIP tower, pixel shuffle, a Llama decoder with ordinary positions.

Every image is one square at the tower's size. Splitting large images (`do_image_splitting`) is not used, and the image
is resized once instead of twice, so that noise drawn at that size goes through unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinalign.models.families.family import Family, Parts, cells, framed, plain_positions, put, square_grid

AROUND = "<fake_token_around_image>"


def _check(config: Any) -> str | None:
    return None


def _build_processor(image_processor: Any, tokenizer: Any, settings: dict[str, Any], config: Any) -> Parts:
    image_processor.do_image_splitting = False
    side = config.vision_config.image_size
    image_processor.size = {"height": side, "width": side}
    image_processor.max_image_size = {"longest_edge": side}
    template = settings.get("chat_template") or tokenizer.chat_template
    token = tokenizer.convert_ids_to_tokens(config.image_token_id)
    cells_a_side = side // config.vision_config.patch_size // config.scale_factor
    frame = (f"{AROUND}<global-img>", token, AROUND)
    return Parts(image_processor, tokenizer, template, token, cells_a_side, frame, nested=True)


def _encode(model: Any, processor: Any, images: Sequence[np.ndarray]) -> list[Tensor]:
    pixels = processor.image_processor(images=[[image] for image in images], return_tensors="pt")["pixel_values"]
    out = model.model.get_image_features(pixel_values=pixels.to(model.device, model.dtype), return_dict=True)
    return [features.detach() for features in out.pooler_output]


def _place(embeddings: Tensor, where: Tensor, features: Tensor) -> tuple[Tensor, dict[str, Any]]:
    return put(embeddings, where, features), {}


FAMILY = Family(
    name="idefics3",
    model_class="Idefics3ForConditionalGeneration",
    build_processor=_build_processor,
    grid=square_grid,
    token_count=cells,
    encode=torch.no_grad()(_encode),
    place=_place,
    positions=plain_positions,
    check=_check,
    image_text=framed,
    language="model.text_model",
)
