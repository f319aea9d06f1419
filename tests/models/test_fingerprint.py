"""A model's fingerprint: weights, adapter, configuration and processor count, the place it was loaded from does not."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from clinalign.models import files_hash, load_vlm
from clinalign.models.features import Features
from clinalign.models.fingerprint import configuration_hash, processor_hash, weights_hash
from clinalign.training.reference import Reference

SETTINGS = {
    "llava": [
        ("vision_feature_layer", -2),
        ("projector_hidden_act", "relu"),
        ("text_config.rms_norm_eps", 0.1),
        ("text_config.rope_parameters", {"rope_theta": 100.0, "rope_type": "default"}),
        ("text_config.hidden_act", "gelu"),
        ("vision_config.layer_norm_eps", 0.1),
        ("vision_config.hidden_act", "gelu"),
    ],
    "qwen2_5_vl": [("vision_config.window_size", 32), ("vision_config.fullatt_block_indexes", [0])],
    "qwen3_vl": [("vision_config.deepstack_visual_indexes", [1, 0])],
    "gemma3": [("text_config.sliding_window", 6), ("text_config.query_pre_attn_scalar", 4)],
}


@pytest.mark.parametrize(
    ("family", "name", "value"), [(family, *change) for family, changes in SETTINGS.items() for change in changes]
)
def test_every_setting_that_a_forward_reads_counts(family: str, name: str, value: object) -> None:
    config = tiny.tiny(family).model.config
    changed = copy.deepcopy(config)
    *path, last = name.split(".")
    inner: Any = changed
    for part in path:
        inner = getattr(inner, part)
    assert getattr(inner, last) != value
    setattr(inner, last, value)
    assert configuration_hash(changed) != configuration_hash(config)


def test_names_and_the_attention_kernel_do_not_count() -> None:
    vlm = tiny.tiny_llava()
    before = configuration_hash(vlm.model.config)
    vlm.model.config._name_or_path = "elsewhere"
    vlm.model.config.transformers_version = "0"
    vlm.model.config.text_config.use_cache = False
    vlm.language_model.set_attn_implementation("eager")
    assert configuration_hash(vlm.model.config) == before


def test_a_model_saved_and_loaded_from_two_places_is_one(tmp_path: Path) -> None:
    folder = tiny.save(tiny.tiny_llava(), tmp_path / "a")
    other = shutil.copytree(folder, tmp_path / "b")
    assert load_vlm(str(folder)).fingerprint() == load_vlm(str(other)).fingerprint()


def test_weights_adapter_scale_and_processor_count() -> None:
    seen = {tiny.tiny_llava().fingerprint(), tiny.tiny_llava(seed=1).fingerprint()}
    for alpha in (8, 16):  # the same weights, another scale
        vlm = tiny.tiny_llava()
        vlm.attach_lora(r=4, alpha=alpha, dropout=0.0, rslora=False, seed=0)
        seen.add(vlm.fingerprint())
    vlm = tiny.tiny_llava()
    vlm.processor.image_processor.image_mean = [0.0, 0.0, 0.0]
    seen.add(vlm.fingerprint())
    vlm = tiny.tiny_llava()
    vlm.processor.num_additional_image_tokens = 0
    seen.add(vlm.fingerprint())
    vlm = tiny.tiny_llava()
    vlm.tokenizer.add_tokens(["nodule"])
    seen.add(processor_hash(vlm))
    seen.add(processor_hash(tiny.tiny_llava()))
    assert len(seen) == 8


def test_buffers_count() -> None:
    """A batch norm's running mean is no parameter."""
    vlm = tiny.tiny_llava()
    vlm.model.register_buffer("mean", torch.zeros(2))
    before = weights_hash(vlm)
    vlm.model.mean += 1
    assert weights_hash(vlm) != before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"])
def test_any_file_of_a_folder_counts_and_reading_it_twice_gives_the_same(name: str, tmp_path: Path) -> None:
    folder = tiny.save(tiny.tiny_llava(), tmp_path / "a")
    before = files_hash(str(folder))
    assert before == files_hash(str(folder)) and files_hash("") == ""
    path = folder / name
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # another weight of the same size
    path.write_bytes(bytes(content))
    assert files_hash(str(folder)) != before


def test_a_changed_configuration_is_another_place_in_the_caches(tmp_path: Path) -> None:
    """In bfloat16 a comparison of a few values lets it pass."""
    folder = tiny.save(tiny.tiny_llava(), tmp_path / "a")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["rms_norm_eps"] = 1e-5
    config["vision_config"]["layer_norm_eps"] = 1e-4
    other = shutil.copytree(folder, tmp_path / "b")
    (other / "config.json").write_text(json.dumps(config))
    one, two = (load_vlm(str(path), dtype="bfloat16") for path in (folder, other))
    features = [Features(vlm, lambda key: tiny.image(), folder=tmp_path / "cache") for vlm in (one, two)]
    assert features[0].fingerprint != features[1].fingerprint
    references = [Reference(f.vlm, f, tmp_path / "cache", bf16=True) for f in features]
    assert references[0].folder != references[1].folder
