"""Original LLaVA checkpoints, tiny, in the published key layout, become folders that give the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import naive
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

from clinalign.errors import UsageError
from clinalign.models import load_vlm
from clinalign.models.convert import convert

WORDS = len(tiny.tokenizer())
KINDS = {"llava_llama": "llama", "llava_mistral": "mistral", "llava_qwen2": "qwen2"}
TEXT = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=512, rope_theta=1e6,
)  # fmt: skip
PROMPTS = {
    "llava_llama": "USER: <image>\nWhere is it? ASSISTANT:",
    "llava_mistral": "[INST] <image>\nWhere is it? [/INST]",
    "llava_qwen2": "<|user|>\n<image>\nWhere is it?\n<|assistant|>\n",
}


def original(folder: Path, kind: str, *, tower: str = "inside") -> LlavaForConditionalGeneration:
    """Writes a checkpoint as published; returns the model it holds."""
    text = TEXT | {"vocab_size": WORDS + (8 if kind == "llava_qwen2" else 0)}  # Qwen2 has rows to spare
    clip = CLIPVisionConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=1, image_size=32, patch_size=8
    )
    config = LlavaConfig(
        vision_config=clip, text_config={**text, "model_type": KINDS[kind]}, image_token_index=3,
        vision_feature_layer=-2, vision_feature_select_strategy="default",
    )  # fmt: skip
    torch.manual_seed(0)
    model = tiny._spread(LlavaForConditionalGeneration(config)).eval()
    names = {
        "model.vision_tower.": "model.vision_tower.vision_tower.vision_model.",
        "model.multi_modal_projector.linear_1.": "model.mm_projector.0.",
        "model.multi_modal_projector.linear_2.": "model.mm_projector.2.",
        "model.language_model.": "model.",
        "lm_head.": "lm_head.",
    }
    state = {}
    for name, value in model.state_dict().items():
        old = next(prefix for prefix in names if name.startswith(prefix))
        state[names[old] + name.removeprefix(old).removeprefix("vision_model.")] = value.clone()
    state["model.vision_tower.vision_tower.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    folder.mkdir(parents=True)
    vision = {name: value for name, value in state.items() if ".vision_tower." in name}
    if tower != "inside":
        state = {name: value for name, value in state.items() if name not in vision}
        (folder / tower).mkdir(parents=True)
        clip.save_pretrained(folder / tower)
        save_file(
            {n.removeprefix("model.vision_tower.vision_tower."): v for n, v in vision.items()},
            folder / tower / "model.safetensors",
        )
    half = sorted(state)[: len(state) // 2]
    save_file({n: state[n] for n in half}, folder / "model-00001-of-00002.safetensors")
    save_file({n: v for n, v in state.items() if n not in half}, folder / "model-00002-of-00002.safetensors")
    settings = text | {
        "model_type": kind, "architectures": ["Llava" + kind.removeprefix("llava_").title() + "ForCausalLM"],
        "mm_vision_tower": tower if tower != "inside" else "openai/clip-vit-large-patch14-336",
        "mm_projector_type": "mlp2x_gelu", "mm_hidden_size": 64, "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch", "image_aspect_ratio": "pad", "use_mm_proj": True,
        "mm_use_im_start_end": False, "mm_use_im_patch_token": False, "tokenizer_padding_side": "right",
        "tune_mm_mlp_adapter": False, "freeze_mm_mlp_adapter": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    tokenizer(folder)
    return model


def tokenizer(folder: Path) -> None:
    """Without an image token, as the originals have: another word takes the placeholder's place."""
    tok = tiny.tokenizer()
    tok.save_pretrained(folder)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("<image>", "<unused>"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for name in ("extra_special_tokens", "image_token", "chat_template"):
        settings.pop(name, None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").unlink(missing_ok=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tower", ["inside", "vit/clip_vit_large_patch14_336"])
def test_an_original_checkpoint_gives_the_same_numbers(kind: str, tower: str, tmp_path: Path) -> None:
    model = original(tmp_path / "a", kind, tower=tower)
    vlm = load_vlm(str(convert(tmp_path / "a", tmp_path / "b")))
    picture = tiny.image(1, 32, 64)
    rows = WORDS + (8 if kind == "llava_qwen2" else 1)
    assert vlm.image_token_id == WORDS and len(vlm.head.weight) == rows  # the placeholder is new
    ids = vlm.prompt_ids("Where is it?", [picture])
    assert ids.count(WORDS) == 16
    assert vlm.prompt_text("Where is it?", 1).endswith(PROMPTS[kind])
    assert vlm.processor.image_processor.do_pad and vlm.image_token_rects(picture)[0].tolist() == [0, 0, 16, 0]
    answer = [20, 21, 22]
    found = naive.answer_logits(vlm, ids, answer, [picture])[:, : model.lm_head.out_features]
    old = torch.tensor([[3 if i == WORDS else i for i in ids + answer]])  # the model's own placeholder
    pixels = vlm.processor.image_processor(images=[picture], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model(input_ids=old, pixel_values=pixels).logits[0, len(ids) - 1 : -1]
    assert torch.allclose(found, expected, atol=1e-5)
    vlm.attach_lora(r=2, alpha=4)
    assert len(vlm.trainable()) == 2 * 7 * 2


def broken(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop_tower(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        save_file({n: v for n, v in load_file(path).items() if "vision_tower" not in n}, path)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: broken(f, model_type="qwen2_5_vl"), "'qwen2_5_vl' is not the original LLaVA layout"),
        (lambda f: broken(f, mm_projector_type="linear"), "only mlp2x_gelu"),
        (lambda f: (f / "config.json").unlink(), "no such file"),
        (drop_tower, "carries no vision tower; .* --vision"),
        (lambda f: [p.unlink() for p in f.glob("*.safetensors")], "no safetensors files"),
        (lambda f: (f / "model-00001-of-00002.safetensors").write_bytes(b"\x10" * 64), "damaged weights"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "cannot load the tokenizer"),
    ],
)
def test_another_layout_is_one_clear_line(tmp_path: Path, change, message: str) -> None:
    original(tmp_path / "a", "llava_mistral")
    change(tmp_path / "a")
    with pytest.raises(UsageError, match=message) as caught:
        convert(tmp_path / "a", tmp_path / "b")
    assert "\n" not in str(caught.value) and not (tmp_path / "b").exists()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    original(tmp_path / "a", "llava_mistral")
    with pytest.raises(UsageError, match="is there already"):
        convert(tmp_path / "a", tmp_path / "a")
    with pytest.raises(UsageError, match="prompt 'chatml' is unknown"):
        convert(tmp_path / "a", tmp_path / "b", prompt="chatml")
