"""How small: settings by name, and what single types need besides."""

from __future__ import annotations

from typing import Any

WIDTH, INNER, LAYERS, HEADS, HEAD, EXPERTS = 32, 48, 2, 4, 8, 4
CELLS = 4
"""Patches along a side of a tower of one size."""

NAMES: dict[int, str] = {
    WIDTH: "hidden_size embed_dim d_model out_hidden_size text_hidden_size output_dim projection_dim "
    "word_embed_proj_dim encoder_hidden_size vision_output_dim projector_input_dim projector_output_dim "
    "projection_hidden_size",
    INNER: "intermediate_size moe_intermediate_size ffn_dim mlp_dim intermediate_size_mlp encoder_ffn_dim "
    "decoder_ffn_dim projector_hidden_size moe_shared_expert_intermediate_size shared_expert_intermediate_size "
    "shared_experts_intermediate_size alignment_intermediate_size",
    LAYERS: "num_hidden_layers depth encoder_layers decoder_layers num_layers layers n_layers",
    HEADS: "num_attention_heads num_heads encoder_attention_heads decoder_attention_heads attention_heads "
    "linear_num_key_heads linear_num_value_heads index_n_heads",
    HEAD: "head_dim linear_key_head_dim linear_value_head_dim query_pre_attn_scalar v_head_dim qk_nope_head_dim "
    "qk_rope_head_dim index_head_dim hidden_size_per_layer_input",
}
SMALL: dict[str, int] = {name: size for size, names in NAMES.items() for name in names.split()} | {
    "num_key_value_heads": 2,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    **dict.fromkeys("num_local_experts num_experts n_routed_experts moe_num_experts".split(), EXPERTS),
    **dict.fromkeys("num_experts_per_tok moe_topk moe_k".split(), 2),
    **dict.fromkeys("n_group topk_group first_k_dense_replace".split(), 1),
    "max_position_embeddings": 2048,
    "sliding_window": 24,
    "attention_chunk_size": 4096,
    "num_query_tokens": 4,
    "vocab_size_per_layer_input": 1024,
    "num_kv_shared_layers": 0,
    "insert_layer_id": 0,
    "qk_head_dim": 2 * HEAD,
}
"""Sizes by the name of the setting, wherever it stands."""

ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}

CONFIG: dict[str, dict[str, Any]] = {
    "aria": {
        "vision_config.image_size": 980,
        "vision_config.patch_size": 70,
        "projector_patch_to_query_dict": {196: 4},
        "max_value_projector_patch_to_query_dict": 4,
    },
    "cohere_compass": {
        "text_config.rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE},
        "text_config.logit_scale": 0.25,
    },
    "deepseek_ocr2": {
        "text_config.mlp_layer_types": ["dense", "sparse"],
        "vision_config.sam_config.downsample_channels": [WIDTH, WIDTH],
    },
    "deepseek_vl_hybrid": {"high_res_vision_config.image_size": 1024, "high_res_vision_config.patch_size": 128},
    "ernie4_5_vl_moe": {"text_config.rope_parameters": ROPE | {"mrope_section": [1, 1, 2]}},
    "gemma3": {"mm_tokens_per_image": 4},
    "gemma4": {
        "vision_config.pooling_kernel_size": 2,
        "text_config.per_layer_config": {},
        "text_config.final_logit_softcapping": 5.0,
    },
    "got_ocr2": {"vision_config.image_size": 1024, "vision_config.patch_size": 16},
    "granite_docling": {"text_config.logits_scaling": 4.0},
    "granite4_vision": {
        "deepstack_layer_map": [[-1, 0]],
        "spatial_target_layers": [1],
        "downsample_rate": "1/2",
        "vision_config.hidden_size": 64,
        "qformer_config.hidden_size": 64,
        "qformer_config.num_attention_heads": 1,
        "qformer_config.encoder_hidden_size": 64,
    },
    "hunyuan_vl": {"text_config.head_dim": HEAD},
    "mllama": {"vision_config.vision_output_dim": 2 * WIDTH, "text_config.cross_attention_layers": [1]},
    "qwen4_exp": {
        "text_config.indexer_n_heads": 2,
        "text_config.indexer_kv_heads": 1,
        "text_config.indexer_head_dim": HEAD,
        "text_config.indexer_budget": 64,
        "text_config.indexer_compress_ratio": 4,
    },
    "shieldgemma2": {"mm_tokens_per_image": 4},
    "video_llava": {"vision_config.image_size": 224, "vision_config.patch_size": 56},
    "vipllava": {"vision_feature_layer": [-2, -1]},
}
"""What a type needs besides, by the dotted name of the setting."""

IMAGES: dict[str, dict[str, Any]] = {
    "gemma4": {"max_soft_tokens": 70, "pooling_kernel_size": 2},
    "paligemma": {"image_seq_length": CELLS**2},
}
"""Settings of image processors."""

PROCESSORS: dict[str, dict[str, Any]] = {
    "aria": {"size_conversion": {980: 4}},
    "aya_vision": {"img_size": 56, "downsample_factor": 2},
    "gemma3": {"image_seq_length": 4},
    "idefics3": {"image_seq_len": 4},
    "llava_onevision": {"num_image_tokens": CELLS**2, "vision_aspect_ratio": "anyres_max_9"},
    "shieldgemma2": {"image_seq_length": 4},
    "smolvlm": {"image_seq_len": 4},
}
"""Settings of processors."""

PROCESSOR_CLASSES = {
    "fast_vlm": "LlavaProcessor",
    "glm_ocr": "Glm46VProcessor",
    "glmga": "Glm46VProcessor",
    "qwen2_5_omni_thinker": "Qwen2_5OmniProcessor",
    "qwen3_omni_moe_thinker": "Qwen3OmniMoeProcessor",
}
IMAGE_CLASSES = {
    "fast_vlm": "CLIPImageProcessorPil",
    "glm_ocr": "Glm46VImageProcessorPil",
    "glm4v_moe": "Glm4vImageProcessorPil",
    "qwen3_vl_moe": "Qwen2VLImageProcessorPil",
    "qwen2_5_omni_thinker": "Qwen2VLImageProcessorPil",
    "qwen3_omni_moe_thinker": "Qwen2VLImageProcessorPil",
}
"""Parts of types that transformers' tables do not name."""

TOKENS: dict[str, dict[str, str]] = {
    "cohere_compass": {"image_token": "<|IMAGE_PAD|>", "video_token": "<|VIDEO_PAD|>"},
    "gemma4": {name: f"<{name}>" for name in ("audio_token", "boa_token", "eoa_token", "video_token")},
}
"""Special tokens that a processor asks its tokenizer for in a way that its text does not show."""

IMAGE_TOKENS = dict.fromkeys(("gemma3", "shieldgemma2"), "<image_token>") | {
    "aya_vision": "<|IMG_PATCH|>",
    "ovis2": "<IMG_ATOM>",
}
"""The token that stands for a part of an image, where it is not the one that stands for the image."""

OTHER_TOKENS = dict.fromkeys(
    ("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker"), {"vision_start_token_id": "<vision_bos_token>"}
)
"""Ids that a model reads from its configuration, where the configuration has no field for them."""

FRAMES = {"hunyuan_vl": "<image_start_token>{}<image_end_token>"}
"""What a chat template has to write around an image."""

NOT_DECODERS = {
    **dict.fromkeys(
        ("florence2", "pix2struct", "pp_formulanet", "t5gemma2", "udop", "vision-encoder-decoder"),
        "encoder and decoder",
    ),
    **dict.fromkeys(("blip", "git"), "a captioner whose prompt has no images"),
    "diffusion_gemma": "block diffusion",
    "evolla": "proteins, not images",
    "instructblipvideo": "videos, not images",
    "mistral4": "text alone",
    "shieldgemma2": "a classifier of pictures by policies",
    "pi0": "robot actions, not answers",
}
"""Types of transformers' image-text-to-text mapping that are no decoder-only models of images and text."""
