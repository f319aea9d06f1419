"""The shipped folder as a user loads it: offline, deterministic, small, and steered by the image."""

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from examine import is_right
from hypothesis import given
from hypothesis import strategies as st
from judge import said
from measure import Asked, answer, claim_asked
from transformers import AutoProcessor, AutoTokenizer, LlavaForConditionalGeneration

import clinalign
from clinalign.data.phantom.bench import select
from clinalign.data.phantom.cases import Case, Finding, render
from clinalign.data.phantom.scenes import render_scene, sample_scenes

FOLDER = Path(clinalign.__file__).parent / "models" / "embedded"
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def shipped():
    os.environ["HF_HUB_OFFLINE"] = "1"
    model = LlavaForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32).eval()
    return model, AutoProcessor.from_pretrained(FOLDER)


@cache
def shipped_tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


def prompt_of(processor, text: str, images: int = 1) -> str:
    content = [{"type": "image"}] * images + [{"type": "text", "text": text}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def picture(*findings: Finding, patient: int = 7) -> np.ndarray:
    return np.repeat(render(Case(patient, findings)).image[..., None], 3, axis=2)


def generate(shipped, text: str, images: list[np.ndarray]) -> list[int]:
    model, processor = shipped
    inputs = processor(text=prompt_of(processor, text, len(images)), images=images or None, return_tensors="pt")
    return model.generate(**inputs)[0, inputs["input_ids"].shape[1] :].tolist()


def test_size_and_dtype_on_disk():
    assert (FOLDER / "model.safetensors").stat().st_size <= 12 * MEGABYTE
    assert json.loads((FOLDER / "config.json").read_text())["dtype"] == "float16"


def test_loads_as_float32_with_tied_head_and_distinct_pad(shipped):
    model, processor = shipped
    assert model.dtype == torch.float32
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert processor.tokenizer.pad_token_id != processor.tokenizer.eos_token_id
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == processor.tokenizer.pad_token_id


def test_processor_expands_each_image_to_64_tokens(shipped):
    model, processor = shipped
    inputs = processor(text=prompt_of(processor, "Is it?", 2), images=[picture(), picture()], return_tensors="pt")
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 128
    assert inputs["pixel_values"].shape == (2, 3, 64, 64)


def test_chat_template_renders_images_turns_and_text_only(shipped):
    processor = shipped[1]
    assert prompt_of(processor, "Is it?") == "USER: <image>\nIs it? ASSISTANT:"
    assert prompt_of(processor, "Is it?", 2) == "USER: <image>\n<image>\nIs it? ASSISTANT:"
    assert prompt_of(processor, "Is it?", 0) == "USER: Is it? ASSISTANT:"
    image, text = {"type": "image"}, lambda words: {"type": "text", "text": words}
    turns = [
        {"role": "user", "content": [image, text("One?")]},
        {"role": "assistant", "content": [text("Yes.")]},
        {"role": "user", "content": [image, text("Two?")]},
    ]
    want = "USER: <image>\nOne? ASSISTANT:Yes.</s>USER: <image>\nTwo? ASSISTANT:"
    assert processor.apply_chat_template(turns, add_generation_prompt=True) == want


def test_greedy_answers_are_deterministic_and_end(shipped):
    finding = Finding("pleural effusion", "left", "lower", "large")
    first, again = (generate(shipped, "On which side is the pleural effusion?", [picture(finding)]) for _ in range(2))
    assert first == again
    assert first[-1] == shipped[1].tokenizer.eos_token_id


def test_greedy_answers_parse(shipped):
    asked = claim_asked("dev", 8)
    for one in asked[:24]:
        ids = generate(shipped, one.question.prompt, [np.repeat(one.images[0][..., None], 3, axis=2)])
        assert said(one.question, shipped[1].tokenizer.decode(ids, skip_special_tokens=True)) is not None


def test_the_image_changes_the_logits(shipped):
    model, processor = shipped
    text = prompt_of(processor, "Is there a pneumothorax?")
    shown = [picture(), picture(Finding("pneumothorax", "right", "upper", "large"))]
    with torch.no_grad():
        logits = [model(**processor(text=text, images=image, return_tensors="pt")).logits[0, -1] for image in shown]
    assert (logits[0] - logits[1]).abs().max() > 0.1


def test_more_than_a_thousand_positions(shipped):
    model, processor = shipped
    text = prompt_of(processor, "There is a small nodule in the left upper zone. " * 110 + "Is there a nodule?")
    inputs = processor(text=text, images=picture(), return_tensors="pt")
    assert inputs["input_ids"].shape[1] > 1024
    assert model.config.text_config.max_position_embeddings >= 1024
    with torch.no_grad():
        assert torch.isfinite(model(**inputs).logits).all()


def test_save_and_reload_gives_the_same_logits(shipped, tmp_path):
    model, processor = shipped
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, reader = LlavaForConditionalGeneration.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    text = prompt_of(processor, "Is there a nodule?")
    with torch.no_grad():
        first = model(**processor(text=text, images=picture(), return_tensors="pt")).logits
        second = again.eval()(**reader(text=text, images=picture(), return_tensors="pt")).logits
    assert torch.equal(first, second)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_tokenizer_round_trips_any_text(text):
    tokenizer = shipped_tokenizer()
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_digits_are_split(shipped):
    tokenizer = shipped[1].tokenizer
    assert [tokenizer.decode([i]) for i in tokenizer("[12, 5]", add_special_tokens=False)["input_ids"]].count("1") == 1


def test_it_sees_but_speaks_from_a_language_prior():
    """The card's numbers: a linear reader of the image features knows the side, the answers do not."""
    measured = json.loads((FOLDER / "measurements.json").read_text())
    for split in ("dev", "test"):
        assert measured["probe"][split]["side"] >= 0.90
        said_side = measured[f"answers_{split}"]
        assert said_side["slot side"]["accuracy"] <= 0.60
        assert said_side["prior neutral"]["accuracy"] >= 0.80


def test_the_model_of_phantom_2_passed_the_five_checks_and_is_the_one_that_was_measured():
    """On visible rungs a prior has its way where it is wrong, and mostly where it is right; all parts take 16 MB."""
    folder = FOLDER.with_name("embedded2")
    measured = json.loads((folder / "measurements.json").read_text())
    checks = measured["checks"]
    assert checks["hold"] and checks["visible"]
    assert checks["base"] <= 0.65 and checks["ceiling"] >= 0.95
    assert checks["class_shift_recovers"] <= 1 / 3 and checks["text_shift_recovers"] <= 0.5
    assert measured["teacher"]["ratio"] > measured["own_attention"]
    folders = [FOLDER.with_name(name) for name in ("embedded", "embedded_teacher", "embedded2", "embedded2_teacher")]
    assert sum(path.stat().st_size for one in folders for path in one.iterdir()) <= 16 * MEGABYTE
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = list(select(sample_scenes("dev", 40, rungs=tuple(checks["visible"]))))
    drawn = [(question, render_scene(scene, 64).image[None]) for scene, questions in asked for question in questions]
    texts = answer(model, tokenizer, [Asked(*one) for one in drawn], max_new_tokens=40)
    right = {stance: [] for stance in ("conflicting", "aligned", "neutral")}
    for (question, _), text in zip(drawn, texts, strict=True):
        right[question.prior].append(is_right(question, *text))
    assert np.mean(right["conflicting"]) < 0.4 < 0.7 < np.mean(right["aligned"])
