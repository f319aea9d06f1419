"""LLaVA is a shape, not a model: other towers, other decoders, a class token kept, a sliding window."""

from __future__ import annotations

from pathlib import Path

import naive
import pytest
import tiny
import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MistralConfig,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from clinalign.errors import RowError
from clinalign.models import VLM, load_vlm
from clinalign.records import Pair
from clinalign.training.encode import encode_pair

DECODERS = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}


def variant(tower: str, decoder: str, strategy: str, window: int | None = None) -> VLM:
    tok = tiny.tokenizer()
    shape = dict(hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32)
    vision = (CLIPVisionConfig if tower == "clip" else SiglipVisionConfig)(**shape, patch_size=8)
    text = DECODERS[decoder](
        vocab_size=len(tok), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, eos_token_id=tok.eos_token_id,
        **({"sliding_window": window} if decoder == "mistral" else {}),
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision, text_config=text, image_token_index=tok.convert_tokens_to_ids("<image>"),
            vision_feature_layer=-2 if tower == "clip" else -1, vision_feature_select_strategy=strategy,
        )
    )  # fmt: skip
    model.generation_config.eos_token_id = tok.eos_token_id
    side = {"height": 32, "width": 32}
    images = CLIPImageProcessorPil(size=side, crop_size=side) if tower == "clip" else SiglipImageProcessorPil(size=side)
    processor = LlavaProcessor(
        images, tok, patch_size=8, vision_feature_select_strategy=strategy,
        num_additional_image_tokens=int(tower == "clip"), chat_template=tiny.TEMPLATE,
    )  # fmt: skip
    return VLM(model, processor, family="llava", name=f"{tower}-{decoder}")


@pytest.mark.parametrize(
    "tower, decoder, strategy, tokens",
    [("clip", "llama", "full", 17), ("clip", "mistral", "default", 16), ("siglip", "qwen2", "full", 16)],
)
def test_variants_load_place_their_images_and_give_the_models_own_numbers(
    tower: str, decoder: str, strategy: str, tokens: int, tmp_path: Path
) -> None:
    vlm = load_vlm(str(tiny.save(variant(tower, decoder, strategy), tmp_path)))
    picture = tiny.image(1)
    ids = vlm.prompt_ids("Where is it?", [picture])
    assert ids.count(vlm.image_token_id) == tokens == len(vlm.image_features([picture])[0])
    rects = vlm.image_token_rects(picture)
    assert len(rects) == tokens
    assert tokens == 16 or rects[0].tolist() == [0, 0, picture.shape[1], picture.shape[0]]  # the class token: all of it
    answer = [20, 21, 22]
    mask = torch.ones(1, 1, len(ids) + 3, len(ids) + 3, dtype=torch.bool).tril()
    positions = vlm.positions(ids + answer, [vlm.image_grid(picture)])[:, None]
    hidden = vlm.hidden_states(torch.tensor([ids + answer]), [vlm.image_features([picture])], mask, positions)
    expected = naive.answer_logits(vlm, ids, answer, [picture])
    assert torch.allclose(vlm.logits(hidden[0, len(ids) - 1 : -1]), expected, atol=1e-5)
    vlm.attach_lora(r=2, alpha=4)
    assert len(vlm.trainable()) == 2 * 7 * 2


def test_a_folder_that_does_not_say_its_patch_size_takes_it_from_the_model(tmp_path: Path) -> None:
    import json

    path = tiny.save(variant("clip", "llama", "default"), tmp_path) / "processor_config.json"
    settings = json.loads(path.read_text())
    for name in ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"):
        settings.pop(name)
    path.write_text(json.dumps(settings))
    vlm = load_vlm(str(tmp_path))
    assert vlm.prompt_ids("Where?", [tiny.image(1)]).count(vlm.image_token_id) == 16


def test_a_sliding_window_is_the_length_limit() -> None:
    """A packed row's mask knows no window: what is longer is refused instead of being silently wrong."""
    vlm = variant("clip", "mistral", "default", window=40)
    assert vlm.max_positions == 40
    ids = list(range(20, 30))
    text = vlm.decode(ids)
    sides = (text, text, [], [], "chosen", ids, ids)
    pair = Pair("p", "e", 0, ["0"], "Where is the nodule?", *sides, False, "side", "rules")
    with pytest.raises(RowError, match="the limit is 40"):
        encode_pair(vlm, pair, [(4, 4)])
