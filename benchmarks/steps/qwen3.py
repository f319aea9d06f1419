"""A Qwen3-VL folder with random weights, up to the shape of the 4B model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration

try:
    from transformers import Qwen2VLImageProcessorPil
except ImportError:  # older releases
    from transformers import Qwen2VLImageProcessor as Qwen2VLImageProcessorPil

TEMPLATE = (
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %} {{ c.text }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}"
)
SPECIAL = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def image_ids(vocab: int, count: int) -> list[int]:
    """Ids of an image of `count` tokens; the special ids stand 284 before the end, as in the real vocabulary."""
    start = vocab - 284
    return [start, *[start + 3] * count, start + 1]


def build_qwen3(folder: Path, shape: dict[str, Any]) -> Path:
    """Writes a Qwen3-VL of `vision` and `language` (layers, width); (image_size / patch / 2)² image tokens."""
    model_of(shape).save_pretrained(folder)
    return write_processor(folder, shape)


def write_processor(folder: Path, shape: dict[str, Any]) -> Path:
    """Writes tokenizer and image processor; square images of the size of the shape keep it, larger ones shrink."""
    vocab = shape["vocab"]
    start = vocab - 284  # 151652 of 151936
    special = {name: start + i for name, i in zip(SPECIAL, (0, 1, 3, 4), strict=True)}
    named = {i: name for name, i in (special | {"<pad>": 0, "<s>": 1, "</s>": 2}).items()}
    core = Tokenizer(models.WordLevel({named.get(i, f"\u2581w{i}"): i for i in range(vocab)}, unk_token="<pad>"))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in (*special, "<pad>", "</s>")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", chat_template=TEMPLATE, padding_side="left"
    )
    tokenizer.save_pretrained(folder)
    side = shape["image_size"] ** 2
    size = {"shortest_edge": side // 4, "longest_edge": side}
    images = Qwen2VLImageProcessorPil(patch_size=shape["patch"], merge_size=2, temporal_patch_size=2, size=size)
    images.save_pretrained(folder)
    return folder


def model_of(shape: dict[str, Any]) -> Any:
    """The model with random weights, made on the shape's device in its type."""
    vocab, width = shape["vocab"], shape["language"][1]
    start = vocab - 284
    tower, heads = shape["vision"], shape.get("heads", [4, 2, 16])
    config = Qwen3VLConfig(
        text_config=dict(
            vocab_size=vocab, hidden_size=width, num_hidden_layers=shape["language"][0], num_attention_heads=heads[0],
            num_key_value_heads=heads[1], head_dim=heads[2], intermediate_size=shape.get("inner", 4 * width),
            max_position_embeddings=8192, tie_word_embeddings=True, pad_token_id=0, eos_token_id=2,
            rope_parameters={"rope_type": "default", "rope_theta": 5e6, "mrope_interleaved": True,
                             "mrope_section": shape.get("mrope", [4, 2, 2])},
        ),
        vision_config=dict(
            depth=tower[0], hidden_size=tower[1], intermediate_size=4 * tower[1], num_heads=tower[1] // 16 // 4 or 1,
            patch_size=shape["patch"], spatial_merge_size=2, temporal_patch_size=2, out_hidden_size=width,
            num_position_embeddings=2304, deepstack_visual_indexes=shape.get("deepstack", [0, 1]),
        ),
        image_token_id=start + 3, video_token_id=start + 4, vision_start_token_id=start, vision_end_token_id=start + 1,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(shape["device"]):
        torch.set_default_dtype(getattr(torch, shape["dtype"]))
        model = Qwen3VLForConditionalGeneration(config)
        torch.set_default_dtype(torch.float32)
    model.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=0)
    return model
