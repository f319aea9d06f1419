"""Tiny models of each family, built from a configuration with random weights: no hub, no network."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from clinalign.models import VLM
from clinalign.models.families import FAMILIES as FAMILY_FUNCTIONS
from clinalign.models.families.family import Parts

try:
    from transformers import Qwen2VLImageProcessorPil
except ImportError:  # older releases
    from transformers import Qwen2VLImageProcessor as Qwen2VLImageProcessorPil

SENTENCES = [
    "There is a nodule in the left upper lung.",
    "There is a nodule in the right lower lung.",
    "No pleural effusion is seen. The heart is of normal size.",
    "Is there an effusion on the left? Yes, a large effusion on the right side.",
    "Describe the image. Where is the nodule? Naïve café µm “quotes” 12.5 mm.",
]
SPECIAL = ["<pad>", "<s>", "</s>", "<image>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
FRAMES = ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
FRAMES += ["<img>", "</img>", "<IMG_CONTEXT>", "<fake_token_around_image>", "<global-img>"]
TEMPLATE = (
    "{%- for m in messages -%}{{ m['role'].upper() + ': ' }}{%- for p in m['content'] -%}"
    "{%- if p['type'] == 'image' -%}{{ '<image>\\n' }}{%- else -%}{{ p['text'] + ' ' }}{%- endif -%}"
    "{%- endfor -%}{%- endfor -%}{%- if add_generation_prompt -%}ASSISTANT:{%- endif -%}"
)
QWEN_TEMPLATE = TEMPLATE.replace("<image>\\n", "<|vision_start|><|image_pad|><|vision_end|>")
FAMILIES = ("llava", "qwen2_5_vl", "qwen3_vl")
"""What every room is tested with; the others below go through `models` and the packed step."""
EVERY_FAMILY = (*FAMILIES, "qwen2_vl", "gemma3", "internvl", "idefics3")


@lru_cache
def _bpe() -> str:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=408, special_tokens=SPECIAL + FRAMES, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(SENTENCES * 4, trainer)
    return bpe.to_str()


def tokenizer(image_token: str = "<image>", template: str = TEMPLATE) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 408 entries trained on a few sentences."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_bpe()),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": image_token},
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=template,
    )


def _generation(tok: PreTrainedTokenizerFast) -> GenerationConfig:
    return GenerationConfig(eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id, bos_token_id=tok.bos_token_id)


def tiny_llava(seed: int = 0, size: int = 32, hidden: int = 32) -> VLM:
    """CLIP (16 image tokens at 32 px, patch 8) and a two-layer Llama."""
    tok = tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=size, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=len(tok),
        hidden_size=hidden,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        pad_token_id=tok.pad_token_id,
        bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(size // 8) ** 2,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    model.generation_config = _generation(tok)
    images = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tok,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=TEMPLATE,
    )
    return VLM(_spread(model), processor, family="llava", name="tiny-llava")


def tiny_qwen2(seed: int = 0) -> VLM:
    """Qwen2-VL: full attention in the tower, M-RoPE, images of any size."""
    tok = tokenizer("<|image_pad|>", QWEN_TEMPLATE)
    config = Qwen2VLConfig(
        text_config=_qwen_text(tok)
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}},
        vision_config=dict(
            depth=2, embed_dim=32, hidden_size=32, mlp_ratio=1, num_heads=2, patch_size=4, spatial_merge_size=2,
            temporal_patch_size=2,
        ),
        **_qwen_ids(tok),
    )  # fmt: skip
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(config)
    model.generation_config = _generation(tok)
    processor = Parts(_qwen_images(), tok, QWEN_TEMPLATE, "<|image_pad|>")
    return VLM(_spread(model), processor, family="qwen2_vl", name="tiny-qwen2-vl")


def tiny_qwen2_5(seed: int = 0) -> VLM:
    """Qwen2.5-VL: window attention in the tower, M-RoPE, images of any size."""
    tok = tokenizer("<|image_pad|>", QWEN_TEMPLATE)
    config = Qwen2_5_VLConfig(
        text_config=_qwen_text(tok)
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}},
        vision_config=dict(
            depth=2,
            hidden_size=32,
            intermediate_size=32,
            num_heads=2,
            patch_size=4,
            spatial_merge_size=2,
            temporal_patch_size=2,
            window_size=16,
            out_hidden_size=32,
            fullatt_block_indexes=[1],
        ),
        **_qwen_ids(tok),
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config = _generation(tok)
    processor = Parts(_qwen_images(), tok, QWEN_TEMPLATE, "<|image_pad|>")
    return VLM(_spread(model), processor, family="qwen2_5_vl", name="tiny-qwen2.5-vl")


def tiny_qwen3(seed: int = 0) -> VLM:
    """Qwen3-VL: DeepStack features for the first two decoder layers, interleaved M-RoPE."""
    tok = tokenizer("<|image_pad|>", QWEN_TEMPLATE)
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config=_qwen_text(tok) | {"head_dim": 8, "rope_parameters": rope},
        vision_config=dict(
            depth=3,
            hidden_size=32,
            intermediate_size=32,
            num_heads=2,
            patch_size=4,
            spatial_merge_size=2,
            temporal_patch_size=2,
            out_hidden_size=32,
            num_position_embeddings=64,
            deepstack_visual_indexes=[0, 1],
        ),
        **_qwen_ids(tok),
    )
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config = _generation(tok)
    processor = Parts(_qwen_images(), tok, QWEN_TEMPLATE, "<|image_pad|>")
    return VLM(_spread(model), processor, family="qwen3_vl", name="tiny-qwen3-vl")


def tiny_gemma3(seed: int = 0, window: int = 12) -> VLM:
    """Gemma 3: 16 image tokens that see each other, three layers with a window of 12 tokens and one without."""
    tok = tokenizer("<image_soft_token>", TEMPLATE.replace("<image>\\n", "<start_of_image>"))
    text = _qwen_text(tok) | {
        "num_hidden_layers": 4, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": window,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
    }  # fmt: skip
    ids = {"image_token_index": "<image_soft_token>", "boi_token_index": "<start_of_image>"}
    ids |= {"eoi_token_index": "<end_of_image>"}
    config = Gemma3Config(
        text_config=text, vision_config=_siglip(), mm_tokens_per_image=16,
        **{name: tok.convert_tokens_to_ids(token) for name, token in ids.items()},
    )  # fmt: skip
    torch.manual_seed(seed)
    model = Gemma3ForConditionalGeneration(config)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)
    model.generation_config = _generation(tok)
    images = Gemma3ImageProcessorPil(size={"height": 32, "width": 32}, image_seq_length=16)
    processor = FAMILY_FUNCTIONS["gemma3"].build_processor(images, tok, {}, config)
    return VLM(_spread(model), processor, family="gemma3", name="tiny-gemma3")


def tiny_internvl(seed: int = 0) -> VLM:
    """InternVL: 16 image tokens after pixel shuffle, and a two-layer Qwen2."""
    tok = tokenizer("<IMG_CONTEXT>", TEMPLATE.replace("<image>", "<IMG_CONTEXT>"))
    vision = dict(hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    config = InternVLConfig(
        vision_config=vision | {"image_size": [32, 32], "patch_size": [4, 4]},
        text_config=_qwen_text(tok) | {"model_type": "qwen2"},
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=16,
    )
    torch.manual_seed(seed)
    model = InternVLForConditionalGeneration(config)
    model.generation_config = _generation(tok)
    images = GotOcr2ImageProcessorPil(size={"height": 32, "width": 32})
    processor = FAMILY_FUNCTIONS["internvl"].build_processor(images, tok, {}, config)
    return VLM(_spread(model), processor, family="internvl", name="tiny-internvl")


def tiny_idefics3(seed: int = 0) -> VLM:
    """Idefics3: 16 image tokens after pixel shuffle, and a two-layer Llama under another name."""
    tok = tokenizer("<image>", TEMPLATE.replace("<image>\\n", "<image>"))
    config = Idefics3Config(
        vision_config=_siglip() | {"patch_size": 4},
        text_config=_qwen_text(tok) | {"model_type": "llama"},
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tok.pad_token_id,
    )
    torch.manual_seed(seed)
    model = Idefics3ForConditionalGeneration(config)
    model.generation_config = _generation(tok)
    processor = FAMILY_FUNCTIONS["idefics3"].build_processor(Idefics3ImageProcessorPil(), tok, {}, config)
    return VLM(_spread(model), processor, family="idefics3", name="tiny-idefics3")


BUILDERS = {
    "llava": tiny_llava,
    "qwen2_vl": tiny_qwen2,
    "qwen2_5_vl": tiny_qwen2_5,
    "qwen3_vl": tiny_qwen3,
    "gemma3": tiny_gemma3,
    "internvl": tiny_internvl,
    "idefics3": tiny_idefics3,
}


def tiny(family: str, seed: int = 0) -> VLM:
    """A tiny model of the named family."""
    return BUILDERS[family](seed)


def save(vlm: VLM, folder: Path) -> Path:
    """Writes model and processor as a Hugging Face folder."""
    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    return folder


def image(seed: int = 0, height: int = 40, width: int = 32) -> np.ndarray:
    """A random uint8 picture with coarse structure."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, axis=0).repeat(8, axis=1))


def perturb(vlm: VLM, scale: float = 0.3, seed: int = 1) -> None:
    """Moves everything that trains away from where it started, so that policy and reference differ."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in vlm.trainable().values():
            value += scale * value.std().clamp(min=0.05) * torch.randn(value.shape, generator=generator)


def _spread(model: Any) -> Any:
    """Random weights at their usual scale give almost uniform logits; larger ones make differences visible."""
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim > 1:
                value *= 3.0
    return model


def _qwen_text(tok: PreTrainedTokenizerFast) -> dict[str, Any]:
    return dict(
        vocab_size=len(tok),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        pad_token_id=tok.pad_token_id,
        bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id,
    )


def _siglip() -> dict[str, Any]:
    return dict(
        hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )


def _qwen_ids(tok: PreTrainedTokenizerFast) -> dict[str, int]:
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {key: tok.convert_tokens_to_ids(name) for key, name in names.items()}


def _qwen_images() -> Any:
    return Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
    )
