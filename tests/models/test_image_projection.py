"""W on image tokens: nowhere else, in any kind of decoding, through save and load. Numbers: those of the test list."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from clinalign.errors import UsageError
from clinalign.models import VLM, load_vlm
from clinalign.models.attention import REQUEST, AttentionRequest, Probe
from clinalign.models.generate import advance, encode_prompts, prefill
from clinalign.models.image_projection import FILE, ImageProjection

FAMILIES = ("llava", "qwen2_5_vl", "qwen3_vl")
PROMPTS = [
    ("Where is the nodule?", [tiny.image(1)]),
    ("No pleural effusion is seen. Where?", [tiny.image(2), tiny.image(3)]),
    ("Describe the image.", []),
]


def projected(family: str, layers: tuple[int, ...] = (1,), rank: int = 0) -> VLM:
    """A tiny model with an adapter and a W that are not zero."""
    vlm = tiny.tiny(family)
    vlm.attach_lora(r=4, alpha=8, dropout=0.0)
    vlm.attach_projection(ImageProjection(vlm.head.weight.shape[1], layers, rank=rank))
    tiny.perturb(vlm)
    return vlm


def whole(vlm: VLM, ids: list[int], features: list, grids: list) -> torch.Tensor:
    """Logits [L, V] of one sequence in one forward without a cache."""
    mask = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()[None, None]
    return vlm.logits(vlm.hidden_states(torch.tensor([ids]), [features], mask, vlm.positions(ids, grids)[:, None])[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_11_zero_w_leaves_the_bits_alone(family: str) -> None:
    vlm = tiny.tiny(family)
    given = encode_prompts(vlm, PROMPTS)
    before = prefill(vlm, *given).logits
    for rank in (0, 2):
        vlm.attach_projection(ImageProjection(32, [0, 1], rank=rank))
        assert torch.equal(prefill(vlm, *given).logits, before)
        vlm.remove_adapter()
    vlm.attach_projection(ImageProjection(32, [1]))
    tiny.perturb(vlm)
    assert not torch.allclose(prefill(vlm, *given).logits, before)
    with vlm.adapter_off():
        assert torch.equal(prefill(vlm, *given).logits, before)


@pytest.mark.parametrize("family", FAMILIES)
def test_12_text_positions_are_the_same_bits(family: str) -> None:
    vlm = projected(family)
    ids, features, grids = encode_prompts(vlm, PROMPTS[:1])
    mask = torch.ones(len(ids[0]), len(ids[0]), dtype=torch.bool).tril()[None, None]
    found = []
    for on in (True, False):
        vlm.projection.on, inputs = on, {}
        with torch.no_grad():
            vlm.hidden_states(
                torch.tensor(ids),
                features,
                mask,
                vlm.positions(ids[0], grids[0])[:, None],
                AttentionRequest(inputs=inputs),
            )
        found.append(inputs[1][0])
    image = torch.tensor(ids[0]) == vlm.image_token_id
    assert torch.equal(found[0][~image], found[1][~image])
    w = vlm.projection.get_parameter("weight:1")
    assert torch.allclose(found[0][image], found[1][image] + found[1][image] @ w.t(), atol=1e-5)
    assert (found[0][image] - found[1][image]).abs().amax(1).min() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_12_cached_decoding_equals_the_whole_forward(family: str) -> None:
    """A left-padded batch with two images, one and none, a few tokens further."""
    vlm = projected(family)
    ids, features, grids = encode_prompts(vlm, PROMPTS)
    state = prefill(vlm, ids, features, grids)
    rows = [list(row) for row in ids]
    with torch.no_grad():
        for token in (20, 31, 45):
            for i, row in enumerate(rows):
                assert torch.allclose(state.logits[i], whole(vlm, row, features[i], grids[i])[-1], atol=2e-4), i
                row.append(token)
            advance(vlm, state, torch.full((len(rows),), token))


def test_12_chunked_prefill_steers_by_position() -> None:
    """The image cut in two by a chunk's border: each chunk knows which of its tokens are image tokens."""
    from transformers import DynamicCache

    vlm = projected("llava")
    ids, features, grids = encode_prompts(vlm, PROMPTS[:1])
    middle = ids[0].index(vlm.image_token_id) + 5
    embeddings, _ = vlm.embed(torch.tensor(ids), features)
    images = torch.tensor(ids) == vlm.image_token_id
    cache, parts = DynamicCache(), []
    with torch.no_grad():
        for chunk in (slice(0, middle), slice(middle, None)):
            asked = {REQUEST: AttentionRequest(images=images[:, chunk])}
            out = vlm.language_model(inputs_embeds=embeddings[:, chunk], past_key_values=cache, use_cache=True, **asked)
            parts.append(vlm.logits(out.last_hidden_state[0]))
        assert torch.allclose(torch.cat(parts), whole(vlm, ids[0], features[0], grids[0]), atol=2e-4)


@pytest.mark.parametrize("beams", [1, 5])
def test_12_hugging_face_generate_is_steered_too(beams: int) -> None:
    """Greedy and five beams of the model's own generate, against a search without a cache."""
    vlm = projected("llava")
    ids = torch.tensor([vlm.prompt_ids("Where is the nodule?", [tiny.image(1)])])
    pixels = vlm.processor.image_processor(images=[vlm.input_image(tiny.image(1))], return_tensors="pt")
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels}
    settings = {"max_new_tokens": 6, "num_beams": beams, "do_sample": False}
    cached, plain = (vlm.model.generate(**given, **settings, use_cache=use) for use in (True, False))
    assert torch.equal(cached, plain)
    ours = prefill(vlm, *encode_prompts(vlm, PROMPTS[:1])).logits
    assert torch.allclose(vlm.model(**given).logits[:, -1].float(), ours, atol=1e-4)
    vlm.projection.on = False
    assert not torch.allclose(vlm.model(**given).logits[:, -1].float(), ours, atol=1e-2)


def test_a_steered_model_that_is_not_told_its_image_tokens_refuses() -> None:
    vlm = projected("llava")
    with pytest.raises(RuntimeError, match="run it through a VLM"):
        vlm.language_model(inputs_embeds=torch.zeros(1, 4, 32))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rank", [0, 2])
def test_19_saved_and_loaded_on_an_unwrapped_base_gives_the_same_logits(tmp_path: Path, family: str, rank: int) -> None:
    vlm = projected(family, (0, 1), rank)
    given = encode_prompts(vlm, PROMPTS)
    expected = prefill(vlm, *given).logits
    vlm.save_adapter(tmp_path / "adapter")
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(stored) == 14 * len(vlm.language_model.layers)
    assert all(value.abs().max() > 0 for value in stored.values())
    assert all(".block." not in name and "projection" not in name for name in stored)
    assert all(value.dtype == torch.float32 for value in load_file(tmp_path / "adapter" / FILE).values())
    again = tiny.tiny(family)
    again.load_adapter(tmp_path / "adapter")
    assert torch.allclose(prefill(again, *given).logits, expected, atol=1e-5)
    assert set(again.trainable()) == set(vlm.trainable())
    again.peft.merge_adapter()  # what can be merged; W stays beside it
    assert torch.allclose(prefill(again, *given).logits, expected, atol=1e-4)


def test_19_load_vlm_reads_w_with_the_adapter(tmp_path: Path) -> None:
    folder = tiny.save(tiny.tiny("llava"), tmp_path / "base")
    vlm = load_vlm(str(folder))
    vlm.attach_lora(r=4, alpha=8, dropout=0.0)
    vlm.attach_projection(ImageProjection(32, [1]))
    tiny.perturb(vlm)
    vlm.save_adapter(tmp_path / "adapter")
    given = encode_prompts(vlm, PROMPTS)
    again = load_vlm(str(folder), adapter=tmp_path / "adapter")
    assert torch.allclose(prefill(again, *given).logits, prefill(vlm, *given).logits, atol=1e-5)


def test_19_keys_are_strict(tmp_path: Path) -> None:
    """The official release wraps its layers after LoRA: 11 of 224 tensors load as zeros, with a warning at most."""
    vlm = projected("llava")
    vlm.save_adapter(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    stored = load_file(path)
    renamed = {name.replace("layers.1.", "layers.1.block."): value for name, value in stored.items()}
    save_file(renamed, path, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"28 tensors do not fit"):
        tiny.tiny("llava").load_adapter(tmp_path)
    save_file(stored, path, metadata={"format": "pt"})
    whole_w = (tmp_path / FILE).read_bytes()
    for damage, message in ((whole_w[:-9], "damaged"), (b"", "damaged")):
        (tmp_path / FILE).write_bytes(damage)
        with pytest.raises(UsageError, match=message):
            tiny.tiny("llava").load_adapter(tmp_path)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    ImageProjection(48, [1]).save(tmp_path)
    vlm.remove_adapter()
    vlm.attach_lora(r=4, alpha=8, dropout=0.0)
    vlm.save_adapter(tmp_path)
    with pytest.raises(UsageError, match="another model"):
        tiny.tiny("llava").load_adapter(tmp_path)


def test_w_stays_in_fp32_in_a_bf16_model() -> None:
    vlm = tiny.tiny("llava")
    vlm.model.to(torch.bfloat16)
    vlm.attach_projection(ImageProjection(32, [1]))
    assert vlm.projection.get_parameter("weight:1").dtype == torch.float32
    tiny.perturb(vlm)
    assert prefill(vlm, *encode_prompts(vlm, PROMPTS)).logits.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_16_log_rows_equal_whole_maps(dtype: torch.dtype) -> None:
    """The probe's logarithms against eager maps, grouped-query attention, a padded batch."""
    vlm = tiny.tiny("llava")
    vlm.model.to(dtype)
    ids, features, grids = encode_prompts(vlm, PROMPTS[:2])
    rows = Probe(torch.tensor([[-1], [-1]]))
    prefill(vlm, ids, features, grids, AttentionRequest(probe=rows))
    for i, row in enumerate(ids):
        vlm.language_model.set_attn_implementation("eager")
        embeddings, _ = vlm.embed(torch.tensor([row]), features[i : i + 1])
        maps = vlm.language_model(inputs_embeds=embeddings, output_attentions=True).attentions
        for layer, found in rows.items():
            expected, tolerance = maps[layer][0, :, -1].float(), 1e-6 if dtype == torch.float32 else 2e-2
            assert torch.allclose(found[i, :, 0, -len(row) :], expected, atol=tolerance)
