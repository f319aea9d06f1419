"""Segmenters built from a configuration: input, output, prompts, adapter, and every way of having no weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import Sam2Config, Sam2Model, Sam3Config, Sam3Model, SamConfig, SamModel
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

from clinalign.errors import UsageError
from clinalign.models.segmenter import Segmenter, load_segmenter

DETR = dict(hidden_size=32, num_layers=1, num_attention_heads=4, intermediate_size=32, dropout=0.0)
PROMPT = dict(hidden_size=32, image_size=64, patch_size=16)
DECODER = dict(hidden_size=32, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=32)


def tiny_sam3() -> Sam3Model:
    vit = dict(
        model_type="sam3_vit_model", hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
        image_size=112, patch_size=14, window_size=4, global_attn_indexes=[0], pretrain_image_size=112,
    )  # fmt: skip
    text = dict(
        model_type="clip_text_model", vocab_size=400, hidden_size=32, intermediate_size=32, projection_dim=16,
        num_hidden_layers=1, num_attention_heads=4, max_position_embeddings=32, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config = Sam3Config(
        vision_config=dict(
            backbone_config=vit, fpn_hidden_size=32, backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]]
        ),
        text_config=text,
        geometry_encoder_config=DETR,
        detr_encoder_config=DETR,
        detr_decoder_config=DETR | {"num_queries": 5},
        mask_decoder_config=dict(hidden_size=32, num_attention_heads=4, num_upsampling_stages=2),
    )
    return _seeded(Sam3Model, config)


def tiny_sam() -> SamModel:
    vision = dict(
        hidden_size=32, output_channels=32, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=16,
        mlp_dim=32, window_size=2, global_attn_indexes=[0], num_pos_feats=16, initializer_range=0.1,
    )  # fmt: skip
    return _seeded(SamModel, SamConfig(vision_config=vision, prompt_encoder_config=PROMPT, mask_decoder_config=DECODER))


def tiny_sam2() -> Sam2Model:
    hiera = dict(
        model_type="sam2_hiera_det_model", hidden_size=16, num_attention_heads=1, image_size=[64, 64],
        blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8], window_size_per_stage=[4, 4, 4, 4], global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )  # fmt: skip
    vision = dict(
        backbone_config=hiera, backbone_channel_list=[128, 64, 32, 16], fpn_hidden_size=32,
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
    )  # fmt: skip
    return _seeded(
        Sam2Model, Sam2Config(vision_config=vision, prompt_encoder_config=PROMPT, mask_decoder_config=DECODER)
    )


def _seeded(kind: type, config: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return kind(config).eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = {}
    for name, make in (("sam3", tiny_sam3), ("sam2", tiny_sam2), ("sam", tiny_sam)):
        folder = tmp_path_factory.mktemp(name)
        make().save_pretrained(folder)
        out[name] = str(folder)
    tiny.tokenizer().save_pretrained(out["sam3"])
    return out


def picture(height: int = 48, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name, prompt", [("sam3", "left nodule"), ("sam2", [10, 5, 30, 20]), ("sam", [10, 5, 30, 20])])
def test_a_mask_of_the_images_own_size_the_same_every_time(folders: dict[str, str], name: str, prompt: object) -> None:
    segmenter = load_segmenter(folders[name])
    found = segmenter.segment(picture(), prompt, threshold=-1.0)
    assert found.mask.shape == (48, 80) and found.mask.dtype == bool
    assert len(found.scores) == (5 if name == "sam3" else 1)
    again = load_segmenter(folders[name]).segment(picture(), prompt, threshold=-1.0)
    assert (found.mask == again.mask).all() and found.scores == again.scores
    assert not segmenter.segment(picture(), prompt, threshold=0.999).mask.any()
    other = segmenter.segment(picture(), "large effusion" if name == "sam3" else [40, 20, 10, 10], threshold=-1.0)
    assert other.scores != found.scores or (other.mask != found.mask).any()  # the prompt matters


def test_sam3_scores_and_masks_by_its_definition(folders: dict[str, str]) -> None:
    """Score: sigmoid of the query times that of the presence; mask: probability above one half, union of those kept."""
    segmenter = load_segmenter(folders["sam3"])
    image = picture(112, 112)
    tokens = segmenter.tokenizer("nodule", padding="max_length", max_length=32, return_tensors="pt")
    with torch.no_grad():
        values = torch.from_numpy(image.transpose(2, 0, 1)[None] / 255.0).float() * 2 - 1
        out = segmenter.model(
            pixel_values=values, input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        )
    scores = (out.pred_logits[0].sigmoid() * out.presence_logits[0].sigmoid()).numpy()
    threshold = float(np.sort(scores)[2])  # three of five stay below or at it
    masks = torch.nn.functional.interpolate(out.pred_masks.sigmoid(), (112, 112), mode="bilinear", align_corners=False)
    expected = (masks[0][torch.from_numpy(scores > threshold)] > 0.5).any(0).numpy()
    found = segmenter.segment(image, "nodule", threshold)
    assert found.scores == [round(float(s), 4) for s in scores[scores > threshold]]
    assert (found.mask == expected).mean() > 0.999


def test_sam_equals_the_librarys_own_processing(folders: dict[str, str]) -> None:
    processor = SamImageProcessorPil(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}, mask_size={"longest_edge": 16}
    )
    segmenter, image, box = load_segmenter(folders["sam"]), picture(), [10.0, 5.0, 30.0, 20.0]
    theirs = processor(image, return_tensors="pt")
    ours, inside = segmenter.prepare(image)
    assert list(inside) == theirs["reshaped_input_sizes"][0].tolist()
    assert torch.allclose(ours, theirs["pixel_values"], atol=1e-5)
    with torch.no_grad():
        corners = torch.tensor([[[10.0, 5.0, 40.0, 25.0]]]) * torch.tensor([64 / 80, 38 / 48] * 2)
        out = segmenter.model(pixel_values=theirs["pixel_values"], input_boxes=corners)
    best = int(out.iou_scores[0, 0].argmax())
    masks = processor.post_process_masks(
        out.pred_masks, theirs["original_sizes"], theirs["reshaped_input_sizes"], pad_size=processor.pad_size
    )
    found = segmenter.segment(image, box, threshold=-1.0)
    assert (found.mask == masks[0][0, best].numpy()).all()
    assert found.scores == [round(float(out.iou_scores[0, 0, best]), 4)]


def test_an_adapter_changes_the_answer(folders: dict[str, str], tmp_path: Path) -> None:
    model = tiny_sam3()
    lora = get_peft_model(model, LoraConfig(r=2, target_modules=["text_projection"], init_lora_weights=False))
    lora.save_pretrained(tmp_path)
    plain, adapted = load_segmenter(folders["sam3"]), load_segmenter(folders["sam3"], adapter=str(tmp_path))
    scores = [one.segment(picture(), "nodule", -1.0).scores for one in (plain, adapted)]
    assert scores[0] != scores[1] and plain.fingerprint != adapted.fingerprint
    assert plain.fingerprint == load_segmenter(folders["sam3"]).fingerprint


def test_the_checkpoints_own_normalisation_is_used(folders: dict[str, str], tmp_path: Path) -> None:
    tiny_sam().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}))
    values, inside = load_segmenter(str(tmp_path)).prepare(np.full((64, 64, 3), 51, np.uint8))
    assert inside == (64, 64) and torch.allclose(values, torch.tensor(0.2))


def test_what_is_no_segmenter_is_refused_in_one_line(folders: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text(json.dumps({"model_type": "sam3"}))
    (tmp_path / "llava").mkdir()
    (tmp_path / "llava" / "config.json").write_text(json.dumps({"model_type": "llava"}))
    for name, says in (
        (str(tmp_path / "empty"), "no segmenter here"),
        (str(tmp_path / "nowhere"), "no segmenter here"),
        (str(tmp_path / "bare"), "no segmenter weights"),
        (str(tmp_path / "llava"), "'llava' is no segmenter"),
        ("facebook/sam3", "no segmenter weights can be loaded"),
    ):
        with pytest.raises(UsageError, match=says) as refused:
            load_segmenter(name)
        assert "\n" not in str(refused.value)
    with pytest.raises(UsageError, match="no adapter here"):
        load_segmenter(folders["sam"], adapter=str(tmp_path))
    with pytest.raises(ValueError, match="asked with a text"):
        load_segmenter(folders["sam3"]).segment(picture(), [0, 0, 1, 1])


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    tiny_sam().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tiny_sam().state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match="no segmenter weights"):
        load_segmenter(str(tmp_path))


def test_half_precision_and_families_are_known() -> None:
    assert Segmenter(tiny_sam().bfloat16(), "sam", "x").prepare(picture())[0].dtype == torch.bfloat16
