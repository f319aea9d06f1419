"""A model behind the house's few operations, against Hugging Face's own code."""

from __future__ import annotations

import json
import math
from pathlib import Path

import naive
import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from clinalign.errors import RowError, UsageError
from clinalign.language.offsets import token_offsets
from clinalign.models import VLM, geometry, load_vlm
from clinalign.models.features import Features
from clinalign.records import PLACE

PICTURES = [tiny.image(0, 40, 32), tiny.image(1, 32, 64)]
SHAPES = [(32, 32), (64, 32), (24, 56), (200, 120)]


@pytest.fixture(scope="module", params=tiny.EVERY_FAMILY)
def vlm(request: pytest.FixtureRequest) -> VLM:
    return tiny.tiny(request.param)


@pytest.fixture(scope="module")
def llava() -> VLM:
    return tiny.tiny_llava()


# Prompts


@pytest.mark.parametrize("count", [0, 1, 2])
def test_prompt_ids_equal_the_processors(llava: VLM, count: int) -> None:
    text = llava.prompt_text("Where is the nodule?", count)
    images = PICTURES[:count] or None
    expected = llava.processor(text=text, images=images, return_tensors="pt")["input_ids"][0].tolist()
    assert llava.prompt_ids("Where is the nodule?", PICTURES[:count]) == expected


def test_each_image_has_as_many_tokens_as_features(vlm: VLM) -> None:
    features = vlm.image_features(PICTURES)
    ids = vlm.prompt_ids("Where?", PICTURES)
    assert ids.count(vlm.image_token_id) == sum(map(len, features))
    assert [len(f) for f in features] == [len(vlm.image_token_rects(p)) for p in PICTURES]
    assert not any(f.requires_grad for f in features)


def test_an_image_placeholder_in_the_question_is_refused(vlm: VLM) -> None:
    with pytest.raises(RowError, match="image_token_in_prompt"):
        vlm.prompt_ids(f"What is {vlm.processor.image_token}?", PICTURES[:1])


# Geometry


@pytest.mark.parametrize("shape", SHAPES)
def test_input_image_is_what_the_processor_makes_and_goes_through_it_unchanged(
    vlm: VLM, shape: tuple[int, int]
) -> None:
    native = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    small = vlm.input_image(native)
    assert small.dtype == np.uint8 and np.array_equal(vlm.input_image(small), small)
    process = vlm.processor.image_processor
    a, b = (process(images=[image], return_tensors="np")["pixel_values"] for image in (native, small))
    assert np.array_equal(a, b)


def test_grey_images_are_taken(vlm: VLM) -> None:
    grey = PICTURES[0][..., 0]
    assert np.array_equal(vlm.input_image(grey), vlm.input_image(np.stack([grey] * 3, axis=-1)))


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_follow_the_image(vlm: VLM, shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, bool)
    mask[shape[0] // 4 : shape[0] // 2, shape[1] // 4 : shape[1] // 2] = True
    small, image = vlm.input_mask(mask), vlm.input_image((mask * 255).astype(np.uint8))
    assert small.dtype == bool and small.shape == image.shape[:2]
    assert np.array_equal(vlm.input_mask(small), small)
    sure = (image[..., 0] == 0) | (image[..., 0] == 255)
    assert sure.mean() > 0.5 and np.mean(small[sure] == (image[..., 0] > 127)[sure]) > 0.97


@pytest.mark.parametrize("shape", SHAPES)
def test_token_rects_find_a_bright_spot(vlm: VLM, shape: tuple[int, int]) -> None:
    """The cell of the input image that a bright square lands in is the cell whose rectangle holds the square."""
    height, width = shape
    rects = vlm.image_token_rects(np.zeros((*shape, 3), np.uint8))
    rows, columns = vlm.image_grid(np.zeros((*shape, 3), np.uint8))
    cell = len(rects) // 2 + columns // 2
    x, y, w, h = rects[cell]
    image = np.zeros((*shape, 3), np.uint8)
    image[int(np.ceil(y)) : int(y + h), int(np.ceil(x)) : int(x + w)] = 255
    small = vlm.input_image(image)[..., 0].astype(float)
    cells = small.reshape(rows, small.shape[0] // rows, columns, -1).mean(axis=(1, 3)).reshape(-1)
    assert cells.argmax() == cell
    assert (rects[:, 0] >= 0).all() and (rects[:, 0] + rects[:, 2] <= width + 1e-9).all()
    assert (rects[:, 1] + rects[:, 3] <= height + 1e-9).all()


def test_token_rects_by_hand(llava: VLM) -> None:
    """64 x 32 px: the short side stays 32, the crop takes rows 16 to 48, cells of 8 px: the first is [0, 16, 8, 8]."""
    rects = llava.image_token_rects(np.zeros((64, 32, 3), np.uint8))
    assert rects.shape == (16, 4)
    assert rects[0].tolist() == [0, 16, 8, 8] and rects[-1].tolist() == [24, 40, 8, 8]


def test_padding_to_a_square_first() -> None:
    """64 x 32 px padded to 64 x 64 by 16 px left and right: cells of 16 px, the outer columns lie in the padding."""
    from transformers import LlavaImageProcessorPil

    process = LlavaImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_pad=True)
    native = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    small = geometry.input_image(process, native)
    a, b = (process(images=[image], return_tensors="np")["pixel_values"] for image in (native, small))
    assert np.array_equal(a, b)
    rects = geometry.token_rects(process, native, (4, 4))
    assert rects[1].tolist() == [0, 0, 16, 16] and rects[6].tolist() == [16, 16, 16, 16]
    assert rects[:, 2].reshape(4, 4)[0].tolist() == [0, 16, 16, 0]


# Forward


def test_hidden_and_logits_equal_the_whole_model(vlm: VLM) -> None:
    prompt, answer = vlm.prompt_ids("Where?", PICTURES), [20, 21, 22, 23]
    expected = naive.answer_logits(vlm, prompt, answer, PICTURES)
    ids = torch.tensor([prompt + answer])
    mask = torch.ones(1, 1, ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    grids = [vlm.image_grid(p) for p in PICTURES]
    positions = vlm.positions(prompt + answer, grids)[:, None]
    hidden = vlm.hidden_states(ids, [vlm.image_features(PICTURES)], mask, positions)
    assert torch.allclose(vlm.logits(hidden[0, len(prompt) - 1 : -1]), expected, atol=1e-5)


def test_features_that_do_not_fit_the_tokens_are_refused(llava: VLM) -> None:
    ids = torch.tensor([llava.prompt_ids("Where?", PICTURES[:1])])
    with pytest.raises(ValueError, match="16 image tokens for 32 features"):
        llava.embed(ids, [llava.image_features(PICTURES)])


# Generation


def test_greedy_equals_generate(vlm: VLM) -> None:
    prompts = [("Where is the nodule?", PICTURES[:1]), ("Is there an effusion?", PICTURES), ("Describe.", [])]
    ours = vlm.generate(prompts, max_new_tokens=12, batch_size=3)
    for (text, images), answer in zip(prompts, ours, strict=True):
        inputs = naive.inputs(vlm, vlm.prompt_ids(text, images), [], images)
        out = vlm.model.generate(
            **inputs, max_new_tokens=12, do_sample=False, suppress_tokens=vlm.banned_ids
        )  # fmt: skip
        assert answer.token_ids == out[0, inputs["input_ids"].shape[1] :].tolist()
    assert vlm.generate(prompts, max_new_tokens=12, batch_size=1) == ours


def test_the_end_of_an_answer_is_kept_and_named() -> None:
    vlm = tiny.tiny_llava(3)
    (answer,) = vlm.generate([("Where?", PICTURES[:1])], max_new_tokens=6)
    assert answer.finish_reason == "length" and len(answer.token_ids) == 6
    vlm.model.generation_config.eos_token_id = [answer.token_ids[2], 2]
    (stopped,) = vlm.generate([("Where?", PICTURES[:1])], max_new_tokens=6)
    first = answer.token_ids.index(answer.token_ids[2])
    assert stopped.finish_reason == "stop" and stopped.token_ids == answer.token_ids[: first + 1]


def test_image_and_padding_ids_are_never_sampled() -> None:
    """trl#3847: an image token in an answer breaks training on it."""
    vlm = tiny.tiny_llava()
    with torch.no_grad():
        hidden = vlm.head.weight.mean(0)
        for i in vlm.banned_ids:  # make them win everywhere
            vlm.head.weight[i] = 100 * hidden.sign()
    for answer in vlm.generate([("Where?", PICTURES[:1]), ("Describe.", [])], max_new_tokens=8):
        assert not set(answer.token_ids) & {vlm.image_token_id, vlm.tokenizer.pad_token_id}


def test_nothing_to_generate(llava: VLM) -> None:
    assert llava.generate([]) == []


# Adapter


def test_lora_reaches_the_language_model_only() -> None:
    """lmms-finetune#11, LLaVA#1647: adapters in the vision tower make cached features wrong."""
    for family in tiny.EVERY_FAMILY:
        vlm = tiny.tiny(family)
        vlm.attach_lora(r=2, alpha=4)
        layers = len(vlm.language_model.layers)
        assert len(vlm.trainable()) == layers * 7 * 2
        decoder = f"{vlm.family.language}.layers."
        assert all(decoder in name and "lora_" in name for name in vlm.trainable())
        lines = vlm.trainable_table().splitlines()
        trains = {line.rsplit(None, 2)[0].strip(): int(line.split()[-1].replace(",", "")) for line in lines[1:]}
        assert trains["vision tower"] == trains["projector"] == trains["language model"] == 0
        assert trains.get("head", 0) == 0  # tied heads are not listed
        assert trains["language model, adapter"] == trains["all"] == sum(p.numel() for p in vlm.trainable().values())


def test_rank_stabilised_scaling() -> None:
    scaling = {}
    for rslora in (True, False):
        vlm = tiny.tiny_llava()
        vlm.attach_lora(r=16, alpha=32, rslora=rslora)
        scaling[rslora] = vlm.language_model.layers[0].self_attn.q_proj.scaling["default"]
    assert scaling == {True: pytest.approx(32 / 4), False: pytest.approx(2)}


def test_the_adapters_first_weights_follow_the_seed_and_nothing_else() -> None:
    values = []
    for noise, seed in ((1, 5), (2, 5), (2, 6)):
        vlm = tiny.tiny_llava()
        torch.manual_seed(noise)
        vlm.attach_lora(r=2, alpha=4, seed=seed)
        values.append(torch.cat([p.flatten() for p in vlm.trainable().values()]))
    assert torch.equal(values[0], values[1]) and not torch.equal(values[1], values[2])


def test_adapter_off_is_the_frozen_model(vlm: VLM, tmp_path: Path) -> None:
    tuned = tiny.tiny(vlm.family.name)
    tuned.attach_lora(r=2, alpha=4, dropout=0.5)
    tiny.perturb(tuned)
    tuned.model.train()
    prompt, answer = vlm.prompt_ids("Where?", PICTURES[:1]), [20, 21, 22]
    frozen = naive.answer_logits(vlm, prompt, answer, PICTURES[:1])
    with tuned.adapter_off():
        assert torch.equal(naive.answer_logits(tuned, prompt, answer, PICTURES[:1]), frozen)
    assert tuned.model.training
    tuned.model.eval()
    moved = naive.answer_logits(tuned, prompt, answer, PICTURES[:1])
    assert (moved - frozen).abs().max() > 0.01
    tuned.save_adapter(tmp_path)
    again = tiny.tiny(vlm.family.name)
    again.load_adapter(tmp_path)
    assert torch.equal(naive.answer_logits(again, prompt, answer, PICTURES[:1]), moved)
    again.remove_adapter()
    assert torch.equal(naive.answer_logits(again, prompt, answer, PICTURES[:1]), frozen)


def test_a_second_adapter_is_refused() -> None:
    vlm = tiny.tiny_llava()
    vlm.attach_lora(r=2, alpha=4)
    with pytest.raises(UsageError, match="already being trained"):
        vlm.attach_lora(r=2, alpha=4)


def test_an_adapter_of_other_weights_is_refused(tmp_path: Path) -> None:
    """It fits every model of the same form; what it was trained on is told by a sample of the weights beside it."""
    vlm = tiny.tiny_llava()
    vlm.attach_lora(r=2, alpha=4)
    tiny.perturb(vlm)
    vlm.save_adapter(tmp_path / "first")
    vlm.merge_adapter()
    vlm.attach_lora(r=2, alpha=4)
    vlm.save_adapter(tmp_path / "second")

    tiny.tiny_llava().load_adapter(tmp_path / "first")
    rounded = tiny.tiny_llava()
    rounded.model.to(torch.bfloat16)
    rounded.load_adapter(tmp_path / "first")
    rounded.merge_adapter()
    rounded.load_adapter(tmp_path / "second")
    with pytest.raises(UsageError, match="trained on other weights .* warm-up merged, .* without base_weights.json"):
        tiny.tiny_llava().load_adapter(tmp_path / "second")
    (tmp_path / "second" / "base_weights.json").write_text('{"a": 1}')
    with pytest.raises(UsageError, match="base_weights.json: is damaged"):
        tiny.tiny_llava().load_adapter(tmp_path / "second")
    (tmp_path / "second" / "base_weights.json").unlink()
    tiny.tiny_llava().load_adapter(tmp_path / "second")


@pytest.mark.parametrize("moved", [1e-4, 3e-4])
def test_a_short_warm_up_that_is_missing_is_noticed(moved: float, tmp_path: Path) -> None:
    """Ten steps at a rate of 1e-4 move what an adapter begins with by no more than that; rounding stays below it."""
    vlm = load_vlm("embedded")
    vlm.attach_lora(r=16, alpha=32, dropout=0.0)
    stream = torch.Generator().manual_seed(0)
    for name, weight in vlm.trainable().items():
        if "lora_B" in name:
            weight.data.copy_(moved * torch.randn(weight.shape, generator=stream).sign())
    vlm.save_adapter(tmp_path / "warm-up")
    vlm.merge_adapter()
    vlm.attach_lora(r=2, alpha=4)
    vlm.save_adapter(tmp_path / "own")
    with pytest.raises(UsageError, match="trained on other weights"):
        load_vlm("embedded", adapter=tmp_path / "own")
    for dtype in ("bfloat16", "float16", "float32"):
        warmed = load_vlm("embedded", adapter=tmp_path / "warm-up", dtype=dtype)
        warmed.merge_adapter()
        warmed.load_adapter(tmp_path / "own")


def test_samples_of_base_weights_that_say_nothing(tmp_path: Path) -> None:
    """Weights that are not finite are not sampled, what is not finite in the file is no match, and of an adapter that
    says nothing of its base what goes on from it does; an older file goes."""
    vlm = tiny.tiny_llava()
    broken = next(
        name for name in dict(vlm.model.named_modules()) if name.endswith("language_model.layers.0.self_attn.q_proj")
    )
    vlm.model.get_submodule(broken).weight.data[0, 0] = math.nan
    vlm.attach_lora(r=2, alpha=4)
    vlm.save_adapter(tmp_path)
    path = tmp_path / "base_weights.json"
    stored = json.loads(path.read_text())
    assert stored and broken not in stored
    for value in (math.inf, math.nan, 10**400):
        path.write_text(json.dumps({name: [value] * len(values) for name, values in stored.items()}))
        with pytest.raises(UsageError, match="trained on other weights|is damaged"):
            tiny.tiny_llava().load_adapter(tmp_path)
    path.unlink()
    again = tiny.tiny_llava()
    again.load_adapter(tmp_path)
    again.save_adapter(tmp_path / "on")
    assert broken in json.loads((tmp_path / "on" / "base_weights.json").read_text())
    again.peft.base_weights = {}
    again.save_adapter(tmp_path / "on")
    assert not (tmp_path / "on" / "base_weights.json").exists()


def test_an_adapter_of_another_family_is_one_line(tmp_path: Path) -> None:
    vlm = tiny.tiny_llava()
    vlm.attach_lora(r=2, alpha=4)
    vlm.save_adapter(tmp_path)
    with pytest.raises(UsageError, match="trained on other weights"):
        tiny.tiny_qwen2_5().load_adapter(tmp_path)
    (tmp_path / "base_weights.json").unlink()
    path = tmp_path / "adapter_model.safetensors"
    renamed = {name.replace(".layers.1.", ".layers.9."): value for name, value in load_file(path).items()}
    save_file(renamed, path)
    with pytest.raises(UsageError, match="cannot load the adapter|do not fit this model"):
        tiny.tiny_qwen2_5().load_adapter(tmp_path)


def test_what_goes_on_from_a_loaded_adapter_stands_on_the_same_weights(tmp_path: Path) -> None:
    vlm = tiny.tiny_llava()
    vlm.attach_lora(r=2, alpha=4)
    vlm.save_adapter(tmp_path / "first")
    again = tiny.tiny_llava()
    again.load_adapter(tmp_path / "first")
    tiny.perturb(again)
    again.save_adapter(tmp_path / "second")
    files = [tmp_path / name / "base_weights.json" for name in ("first", "second")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_adapter_outside_the_language_model_is_refused(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    get_peft_model(tiny.tiny_llava().model, LoraConfig(r=2, target_modules="all-linear")).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="outside the language model"):
        tiny.tiny_llava().load_adapter(tmp_path)
    with pytest.raises(UsageError, match="adapter_config.json is missing"):
        tiny.tiny_llava().load_adapter(tmp_path / "nothing")


# Features


def test_features_are_encoded_once_and_kept_by_content(llava: VLM, tmp_path: Path) -> None:
    pictures = {"a": PICTURES[0], "b": PICTURES[1], "same": PICTURES[0].copy()}
    cache = Features(llava, pictures.__getitem__, folder=tmp_path)
    first = cache.get(["a", "b", "a"])
    assert cache.encoded == 2 and torch.equal(first[0], first[2])
    assert torch.equal(cache.get(["same"])[0], first[0]) and cache.encoded == 2  # the same pixels
    cache.flush()
    fresh = Features(llava, pictures.__getitem__, folder=tmp_path)
    assert torch.equal(fresh.get(["b"])[0], first[1]) and fresh.encoded == 0
    other = Features(tiny.tiny_llava(9), pictures.__getitem__, folder=tmp_path)
    assert not torch.equal(other.get(["b"])[0], first[1]) and other.encoded == 1


def test_memory_is_bounded(llava: VLM) -> None:
    cache = Features(llava, lambda key: tiny.image(int(key)), memory_mb=0)
    for key in "0123":
        cache.get([key])
    assert len(cache.memory) == 1 and cache.encoded == 4


# Loading


@pytest.fixture(scope="module")
def folder(llava: VLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(llava, tmp_path_factory.mktemp("model"))


def copy(folder: Path, target: Path) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_a_saved_folder_loads_to_the_same_model(vlm: VLM, tmp_path: Path) -> None:
    again = load_vlm(str(tiny.save(vlm, tmp_path)))
    prompts = [("Where?", PICTURES[:1])]
    assert again.family.name == vlm.family.name and again.generate(prompts) == vlm.generate(prompts)
    assert vlm.family.name in again.describe()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: (f / "config.json").unlink(), "no model here"),
        (lambda f: (f / "config.json").write_text("{"), "not a model configuration"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x10" * 64), "cannot load the weights"),
        (lambda f: (f / "model.safetensors").unlink(), "cannot load the weights"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "cannot load tokenizer"),
        (lambda f: edit(f / "config.json", model_type="whisper"), "family 'whisper' is not supported"),
        (lambda f: edit(f / "config.json", vision_config={"model_type": "pixtral"}), "weights"),
        (lambda f: drop_weight(f / "model.safetensors"), "1 weights are missing"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_model_is_one_clear_line(folder: Path, tmp_path: Path, change, message: str) -> None:
    broken = copy(folder, tmp_path / "broken")
    change(broken)
    with pytest.raises(UsageError, match=message) as caught:
        load_vlm(str(broken))
    assert "\n" not in str(caught.value)


def test_unknown_names_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="no such model folder"):
        load_vlm("./nowhere/at/all")
    with pytest.raises(UsageError, match="did you mean 'float32'"):
        load_vlm(str(folder), dtype="float33")


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def drop_weight(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(path)
    weights.pop(next(name for name in weights if "q_proj" in name))
    save_file(weights, path, metadata={"format": "pt"})


def test_ids_without_a_token_are_never_sampled_and_spell_nothing() -> None:
    """A vocabulary padded for the hardware: the head has rows that the tokenizer has no token for."""
    vlm = tiny.tiny("qwen2_5_vl")
    count = len(vlm.tokenizer)
    vlm.model.resize_token_embeddings(count + 64, mean_resizing=False)
    with torch.no_grad():
        vlm.head.weight[count:] = 3 * torch.randn(64, vlm.head.weight.shape[1])
    assert set(range(count, count + 64)) <= set(vlm.banned_ids)
    for said in vlm.generate([("Is it?", [tiny.image(seed)]) for seed in range(4)], max_new_tokens=6):
        assert max(said.token_ids) < count
    word = vlm.tokenizer("yes", add_special_tokens=False)["input_ids"]
    offsets = token_offsets(vlm.tokenizer, [count + 3, *word, count + 9])
    assert offsets[0] == (0, 0) and offsets[-1] == (3, 3) and offsets[1:-1] == token_offsets(vlm.tokenizer, word)


def test_a_picture_that_the_processor_refuses_is_the_rows_fault() -> None:
    vlm = tiny.tiny("qwen2_5_vl")
    with pytest.raises(RowError, match="1093 x 5 pixels, one side 218.6 times the other") as caught:
        vlm.prompt_ids("Is there an effusion?", [np.zeros((5, 1093, 3), np.uint8)])
    assert caught.value.reason == "picture_refused" and caught.value.field == "images"


def test_a_question_longer_than_the_models_positions() -> None:
    vlm = tiny.tiny("llava")
    longest = "nodule " * vlm.max_positions
    with pytest.raises(RowError, match=f"the model has {vlm.max_positions}") as caught:
        vlm.prompt_ids(longest, [])
    assert caught.value.reason == "too_long" and caught.value.field == "question"


def test_images_stand_where_a_prompt_has_their_places(vlm: VLM) -> None:
    """Captions of slices: each behind its image, the question last; without images the words alone are left."""
    prompt = f"A CT.{PLACE}SLICE 1{PLACE}SLICE 2\n\nWhere?"
    ids = vlm.prompt_ids(prompt, PICTURES)
    words = vlm.tokenizer.decode([i for i in ids if i != vlm.image_token_id], skip_special_tokens=True)
    assert all(
        words.index(a) < words.index(b) for a, b in zip(["A CT.", "SLICE 1"], ["SLICE 1", "SLICE 2"], strict=True)
    )
    marks = [i for i, token in enumerate(ids) if token == vlm.image_token_id]
    between = vlm.tokenizer.decode(ids[marks[0] : marks[-1]], skip_special_tokens=True)
    assert "SLICE 1" in between and "SLICE 2" not in between and "A CT." not in between
    assert len(marks) == sum(len(vlm.image_token_rects(image)) for image in PICTURES)
    assert vlm.prompt_text(prompt, 0) == vlm.prompt_text(prompt.replace(PLACE, ""), 0)
    with pytest.raises(RowError) as error:
        vlm.prompt_text(prompt, 3)
    assert error.value.reason == "image_places"
    assert vlm.prompt_ids(prompt.replace(PLACE, ""), PICTURES) != ids
