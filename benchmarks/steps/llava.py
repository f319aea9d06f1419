"""A LLaVA folder with random weights and a word-level tokenizer: the shape counts, not what it says."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
TEMPLATE = (
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}<image>{% else %} {{ c.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
)


def words(ids: list[int]) -> str:
    """Text that tokenises to exactly these ids (none of them special)."""
    return " ".join(f"w{i}" for i in ids)


def build_llava(
    folder: Path,
    *,
    vision: tuple[int, int] = (6, 192),
    language: tuple[int, int] = (8, 256),
    vocab: int = 32000,
    image_size: int = 224,
    patch: int = 14,
    seed: int = 0,
) -> Path:
    """Writes a LLaVA of `vision` and `language` (layers, width) to a folder; (image_size / patch)² image tokens."""
    vocabulary = {word: i for i, word in enumerate(SPECIAL)} | {f"\u2581w{i}": i for i in range(len(SPECIAL), vocab)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}),
        tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=vision[1], intermediate_size=4 * vision[1], num_hidden_layers=vision[0],
            num_attention_heads=vision[1] // 32, image_size=image_size, patch_size=patch,
        ),
        text_config=LlamaConfig(
            vocab_size=vocab, hidden_size=language[1], intermediate_size=8 * language[1] // 3 // 32 * 32,
            num_hidden_layers=language[0], num_attention_heads=language[1] // 32, max_position_embeddings=2048,
            pad_token_id=0, bos_token_id=1, eos_token_id=2,
        ),
        image_token_index=4,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
