"""Families that see every image as one square: Gemma 3 and MedGemma, InternVL (the `-hf` folders), Idefics3.

Gemma 3: a SigLIP tower pooled to one size. Inside an image all tokens see each other; five layers of six see only
`sliding_window` tokens back (arXiv 2503.19786 and the masks of transformers' Gemma 3). InternVL: an InternViT tower,
pixel shuffle. Idefics3 (SmolVLM's ancestor): a SigLIP tower, pixel shuffle. What cuts large images into several (pan
and scan, `crop_to_patches`, `do_image_splitting`) is not used, and an image is resized once instead of twice, so that
noise drawn at that size goes through unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinalign.models.families.family import (
    Change,
    Family,
    Parts,
    View,
    blocks,
    encode_selected,
    noise,
    resized,
    same_image,
)

AROUND = "<fake_token_around_image>"


def _check_gemma(config: Any) -> str | None:
    text = config.get_text_config()
    if getattr(text, "use_bidirectional_attention", False):
        return "a Gemma 3 whose text looks both ways is an encoder; give a generating one"
    return None


def _gemma_processor(image_processor: Any, tokenizer: Any, settings: dict[str, Any], config: Any) -> Parts:
    image_processor.do_pan_and_scan = False
    template = settings.get("chat_template") or tokenizer.chat_template
    side = math.isqrt(config.mm_tokens_per_image)
    begin = tokenizer.convert_ids_to_tokens(config.boi_token_index)
    soft, end = map(tokenizer.convert_ids_to_tokens, (config.image_token_id, config.eoi_token_index))
    return Parts(image_processor, tokenizer, template, begin, side, (f"\n\n{begin}", soft, f"{end}\n\n"))


def _internvl_processor(image_processor: Any, tokenizer: Any, settings: dict[str, Any], config: Any) -> Parts:
    image_processor.crop_to_patches = False
    template = settings.get("chat_template") or tokenizer.chat_template
    token = tokenizer.convert_ids_to_tokens(config.image_token_id)
    side = math.isqrt(config.image_seq_length)
    around = (getattr(tokenizer, f"{end}_image_token", None) for end in ("start", "end"))
    begin, end = (own or usual for own, usual in zip(around, ("<img>", "</img>"), strict=True))
    return Parts(image_processor, tokenizer, template, token, side, (begin, token, end))


def _idefics_processor(image_processor: Any, tokenizer: Any, settings: dict[str, Any], config: Any) -> Parts:
    image_processor.do_image_splitting = False
    side = config.vision_config.image_size
    image_processor.size = {"height": side, "width": side}
    image_processor.max_image_size = {"longest_edge": side}
    template = settings.get("chat_template") or tokenizer.chat_template
    token = tokenizer.convert_ids_to_tokens(config.image_token_id)
    cells_a_side = side // config.vision_config.patch_size // config.scale_factor
    frame = (f"{AROUND}<global-img>", token, AROUND)
    return Parts(image_processor, tokenizer, template, token, cells_a_side, frame, nested=True)


def _encode(model: Any, processor: Any, images: Sequence[np.ndarray], change: Change | None = None) -> list[Tensor]:
    given: list[Any] = [[image] for image in images] if processor.nested else list(images)
    pixels = processor.image_processor(images=given, return_tensors="pt")["pixel_values"]
    if change is not None:
        pixels = torch.stack([change(i, one) for i, one in enumerate(pixels)])
    out = model.model.get_image_features(pixel_values=pixels.to(model.device, model.dtype), return_dict=True)
    return list(out.pooler_output)


def _gemma_masks(config: Any, mask: Tensor, queries: Tensor, keys: Tensor, images: Tensor | None) -> dict[str, Tensor]:
    """The same as transformers makes of token types: an image's tokens see each other, then the window cuts."""
    if images is not None:
        mask = mask | same_image(images)
    near = keys[:, None, None, :] > queries[:, None, :, None] - config.sliding_window
    return {"full_attention": mask, "sliding_attention": mask & near}


def _internvl_view(model: Any, processor: Any, input_image: np.ndarray, scale: float) -> View:
    """The tower's table of positions, interpolated."""
    patch = model.config.vision_config.patch_size[0]
    shuffled = round(1 / model.config.downsample_ratio)
    pixels, grid = resized(processor, input_image, scale, patch * shuffled)
    out = model.model.get_image_features(
        pixel_values=pixels.to(model.device, model.dtype),
        vision_feature_layer=model.config.vision_feature_layer,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
        return_dict=True,
    )
    return View(out.pooler_output[0], grid, blocks(grid, shuffled))


def _idefics_view(model: Any, processor: Any, input_image: np.ndarray, scale: float) -> View:
    """The tower's positions are shares of the image's sides, in its own table."""
    shuffled = model.config.scale_factor
    pixels, grid = resized(processor, input_image, scale, model.config.vision_config.patch_size * shuffled)
    out = model.model.get_image_features(pixel_values=pixels[None].to(model.device, model.dtype), return_dict=True)
    return View(out.pooler_output[0], grid, blocks(grid, shuffled))


def _one_layer(config: Any) -> str:
    one = isinstance(config.vision_feature_layer, int) and config.vision_feature_select_strategy == "default"
    return "" if one else "its features are not one layer's patches without the class token"


GEMMA3 = Family(
    name="gemma3",
    model_class="Gemma3ForConditionalGeneration",
    build_processor=_gemma_processor,
    encode=_encode,
    check=_check_gemma,
    masks=_gemma_masks,
    normals=noise,
    no_view=lambda config: "its projector pools one grid of patches, and takes no image of another size",
)
INTERNVL = Family(
    name="internvl",
    model_class="InternVLForConditionalGeneration",
    build_processor=_internvl_processor,
    encode=encode_selected,
    normals=noise,
    view=_internvl_view,
    no_view=_one_layer,
)
IDEFICS3 = Family(
    name="idefics3",
    model_class="Idefics3ForConditionalGeneration",
    build_processor=_idefics_processor,
    encode=_encode,
    normals=noise,
    view=_idefics_view,
    no_view=lambda config: "",
    tower="model.vision_model",
    language="model.text_model",
)
