"""EfficientNet-Lite0 as a tower: published names, padding by hand, frozen statistics, an ordinary LLaVA folder."""

from __future__ import annotations

from pathlib import Path

import naive
import pytest
import tiny
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from clinalign.models import VLM, load_vlm
from clinalign.models.efficientnet import (
    BLOCK_NAMES,
    NAMES,
    EfficientNetLiteConfig,
    EfficientNetLiteModel,
    SamePadded,
    load_published,
    published_weights,
)
from clinalign.small import assemble

PARAMETERS = 3_371_008
"""Of Lite0 without its classifier (the published count 4.65 million less 1280 x 1000 + 1000)."""


@pytest.fixture(scope="module")
def tower() -> EfficientNetLiteModel:
    torch.manual_seed(0)
    return EfficientNetLiteModel(EfficientNetLiteConfig()).eval()


def published(tower: EfficientNetLiteModel) -> dict[str, torch.Tensor]:
    """The tower's weights under the published checkpoint's names, with its classifier."""
    outside = {new: old for old, new in NAMES.items()}
    inside = {new: old for old, new in BLOCK_NAMES.items()}
    state = {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    for name, value in tower.state_dict().items():
        parts = name.split(".")
        if parts[0] == "blocks":
            state[f"_blocks.{parts[1]}.{inside[parts[2]]}.{parts[3]}"] = value
        else:
            state[f"{outside[parts[0]]}.{parts[1]}"] = value
    return state


def test_shape_and_size(tower: EfficientNetLiteModel) -> None:
    assert sum(p.numel() for p in tower.parameters()) == PARAMETERS
    assert len(tower.blocks) == 16 and sum(block.shortcut for block in tower.blocks) == 9
    with torch.no_grad():
        out = tower(torch.randn(2, 3, 224, 224))
    assert out.last_hidden_state.shape == (2, 49, 1280)
    assert 0 <= out.last_hidden_state.min() and out.last_hidden_state.max() <= 6


def test_a_published_checkpoint_loads(tower: EfficientNetLiteModel, tmp_path: Path) -> None:
    torch.save(published(tower), tmp_path / "lite0.pth")
    again = load_published(tmp_path / "lite0.pth")
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(pixels).last_hidden_state, tower(pixels).last_hidden_state)
    names = published_weights(published(tower))
    assert names.keys() == tower.state_dict().keys()


def test_same_padding_by_hand() -> None:
    """Kernel 3, stride 2, 4 cells: one cell of padding, to the right. Sums of (0 1 2), (2 3 -)."""
    layer = SamePadded(1, 1, 3, 2, bias=False)
    layer.weight.data = torch.tensor([[[[0.0, 0, 0], [1, 1, 1], [0, 0, 0]]]])
    row = torch.tensor([0.0, 1, 2, 3]).expand(1, 1, 4, 4)
    assert layer(row)[0, 0, 0].tolist() == [3.0, 5.0]


def test_statistics_stay_when_the_rest_trains(tower: EfficientNetLiteModel) -> None:
    before = {name: value.clone() for name, value in tower.named_buffers()}
    tower.train()
    tower(torch.randn(2, 3, 64, 64))
    assert not tower.training and not tower.stem_norm.training
    assert all(torch.equal(value, before[name]) for name, value in tower.named_buffers())


def little(tower: EfficientNetLiteModel) -> VLM:
    """The small model's shape around a two-layer decoder."""
    tok = tiny.tokenizer()
    tok.add_special_tokens({"additional_special_tokens": ["<|endoftext|>"]})
    config = LlamaConfig(
        vocab_size=len(tok), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, eos_token_id=tok.eos_token_id, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model, processor = assemble(tower, tiny._spread(LlamaForCausalLM(config)), tok)
    return VLM(model, processor, family="llava", name="little")


def test_the_folder_is_an_ordinary_llava_folder(tower: EfficientNetLiteModel, tmp_path: Path) -> None:
    vlm = little(tower)
    again = load_vlm(str(tiny.save(vlm, tmp_path)))
    picture = tiny.image(1, 64, 96)
    ids = again.prompt_ids("Where is it?", [picture])
    assert ids.count(again.image_token_id) == 49 == len(again.image_token_rects(picture))
    prompts = [("Where is it?", [picture])]
    assert again.generate(prompts, max_new_tokens=6) == vlm.generate(prompts, max_new_tokens=6)
    answer = [20, 21, 22]
    mask = torch.ones(1, 1, len(ids) + 3, len(ids) + 3, dtype=torch.bool).tril()
    positions = again.positions(ids + answer, [again.image_grid(picture)])[:, None]
    hidden = again.hidden_states(torch.tensor([ids + answer]), [again.image_features([picture])], mask, positions)
    expected = naive.answer_logits(again, ids, answer, [picture])
    assert torch.allclose(again.logits(hidden[0, len(ids) - 1 : -1]), expected, atol=1e-4)
    assert again.tokenizer.pad_token_id != again.tokenizer.eos_token_id
    again.attach_lora(r=2, alpha=4)
    assert all(".language_model.layers." in name for name in again.trainable())
