"""The embedded model's shape: CLIP vision tower, two-layer projector, small Llama, and its processor."""

import torch
from tokenizer import CHAT_TEMPLATE, MAX_POSITIONS
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

IMAGE_SIZE, PATCH = 64, 8
GRID = IMAGE_SIZE // PATCH
IMAGE_TOKENS = GRID * GRID
VISION_WIDTH, TEXT_WIDTH = 128, 192
EMBEDDING_STD, KEY_STD, COPY = 0.07, 0.1, 0.05


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlavaForConditionalGeneration:
    """A freshly initialised model in fp32; the same seed gives the same weights."""
    vision = CLIPVisionConfig(
        hidden_size=VISION_WIDTH,
        intermediate_size=4 * VISION_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
        projection_dim=VISION_WIDTH,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=32,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=IMAGE_TOKENS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    _attend_to_the_alike(model)
    model.generation_config = GenerationConfig(
        max_new_tokens=128,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return model


@torch.no_grad()
def _attend_to_the_alike(model: LlavaForConditionalGeneration) -> None:
    """Start the language model with attention from each token to those that point its way, and let it copy them.

    Queries and keys start equal and outputs as the transpose of the values ("mimetic" initialisation, arXiv
    2305.09828). Image tokens point along the words for what they show (`pretrain`), so a word in the prompt starts out
    looking at the patches that show it.
    """
    table = model.get_input_embeddings().weight
    table.mul_(EMBEDDING_STD / table.std())
    for layer in model.model.language_model.layers:
        attention = layer.self_attn
        keys, width = attention.k_proj.weight.shape
        groups, size = attention.config.num_key_value_heads, attention.head_dim
        shared = attention.config.num_attention_heads // groups
        key = torch.randn(groups, size, width) * KEY_STD
        value = torch.randn(groups, size, width) / width**0.5
        attention.k_proj.weight.copy_(key.reshape(keys, width))
        attention.v_proj.weight.copy_(value.reshape(keys, width))
        attention.q_proj.weight.add_(key.repeat_interleave(shared, 0).reshape(shared * keys, width))
        attention.o_proj.weight.add_(COPY * value.repeat_interleave(shared, 0).reshape(shared * keys, width).T)


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """The processor: 64 x 64 px, mean and deviation 0.5, and exactly 64 image tokens for each `<image>`."""
    images = CLIPImageProcessor(
        do_resize=True,
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        do_center_crop=False,
        do_rescale=True,
        do_normalize=True,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        do_convert_rgb=True,
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    )


def pixels(images: torch.Tensor) -> torch.Tensor:
    """uint8 grey images [n, 64, 64] as the processor would give them: float [n, 3, 64, 64] in [-1, 1]."""
    grey = (images.float() / 255.0 - 0.5) / 0.5
    return grey[:, None].expand(-1, 3, -1, -1)
