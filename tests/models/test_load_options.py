"""Models without a processor, 4-bit weights, the prompt around each family's images, and what `check` says."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import tiny

from clinalign.check import check
from clinalign.errors import UsageError
from clinalign.models import load_tokenizer, load_vlm
from clinalign.recipe import load_recipe


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.tiny_qwen2_5(), tmp_path_factory.mktemp("qwen"))


def without(folder: Path, target: Path, *names: str) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        if file.name not in names:
            (target / file.name).write_bytes(file.read_bytes())
    return target


def test_a_model_without_a_processor_takes_the_one_that_is_named(qwen: Path, tmp_path: Path) -> None:
    """The Qwen2.5-VL release of HuatuoGPT-Vision has weights and a tokenizer, no image processor."""
    bare = without(qwen, tmp_path / "bare", "preprocessor_config.json", "processor_config.json")
    with pytest.raises(UsageError, match="ships no image processor .* processor=Qwen/Qwen2.5-VL-7B-Instruct"):
        load_vlm(str(bare))
    prompts = [("Where?", [tiny.image(1)])]
    assert load_vlm(str(bare), processor=str(qwen)).generate(prompts) == load_vlm(str(qwen)).generate(prompts)


def test_the_tokenizer_comes_from_there_too_where_the_model_has_none(qwen: Path, tmp_path: Path) -> None:
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "preprocessor_config.json")
    bare = without(qwen, tmp_path / "bare", *names, "processor_config.json")
    vlm = load_vlm(str(bare), processor=str(qwen))
    text = "There is a nodule."
    assert load_tokenizer(str(bare), str(qwen))(text)["input_ids"] == vlm.tokenizer(text)["input_ids"]


def test_four_bit_that_cannot_train_is_refused(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"quantize=4bit needs bitsandbytes; .*clinalign\[quantize\]"):
        load_vlm(str(qwen), quantize="4bit")
    with pytest.raises(UsageError, match="quantize '8bit' is unknown"):
        load_vlm(str(qwen), quantize="8bit")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(UsageError, match="quantize=4bit needs a GPU"):
        load_vlm(str(qwen), quantize="4bit")


def test_a_recipe_names_processor_and_quantisation() -> None:
    recipe = load_recipe("phantom", ["processor=Qwen/Qwen2.5-VL-7B-Instruct", "quantize=4bit"])
    assert (recipe.processor, recipe.quantize) == ("Qwen/Qwen2.5-VL-7B-Instruct", "4bit")
    with pytest.raises(UsageError, match="quantize"):
        load_recipe("phantom", ["quantize=8bit"])


FRAMES = {
    "gemma3": "\n\n<start_of_image>" + "<image_soft_token>" * 16 + "<end_of_image>\n\n",
    "internvl": "<img>" + "<IMG_CONTEXT>" * 16 + "</img>",
    "idefics3": "<fake_token_around_image><global-img>" + "<image>" * 16 + "<fake_token_around_image>",
}


@pytest.mark.parametrize("family", FRAMES)
def test_what_stands_around_an_image(family: str) -> None:
    """As the families' own processors write it; their image tokens count as the model's configuration says."""
    vlm = tiny.tiny(family)
    ids = vlm.prompt_ids("Where?", [tiny.image(1)])
    assert FRAMES[family] in vlm.tokenizer.decode(ids)
    assert vlm.prompt_ids("Where?", [tiny.image(1), tiny.image(2)]).count(vlm.image_token_id) == 32


def test_gemma_prompts_equal_its_own_processors() -> None:
    from transformers import Gemma3Processor

    vlm = tiny.tiny("gemma3")
    for name, token in (("boi", "<start_of_image>"), ("eoi", "<end_of_image>")):
        setattr(vlm.tokenizer, f"{name}_token", token)
        setattr(vlm.tokenizer, f"{name}_token_id", vlm.tokenizer.convert_tokens_to_ids(token))
    own = Gemma3Processor(vlm.processor.image_processor, vlm.tokenizer, image_seq_length=16)
    text = vlm.prompt_text("Where is it?", 2)
    pictures = [tiny.image(1), tiny.image(2)]
    expected = own(text=text, images=[pictures], return_tensors="pt")["input_ids"][0].tolist()
    assert vlm.prompt_ids("Where is it?", pictures) == expected


def test_idefics_prompts_equal_its_own_processors() -> None:
    from transformers import Idefics3Processor

    vlm = tiny.tiny("idefics3")
    own = Idefics3Processor(vlm.processor.image_processor, vlm.tokenizer, image_seq_len=16)
    pictures = [tiny.image(1), tiny.image(2)]
    text = vlm.prompt_text("Where is it?", 2)
    expected = own(text=text, images=[pictures], return_tensors="pt")["input_ids"][0].tolist()
    assert vlm.prompt_ids("Where is it?", pictures) == expected


@pytest.mark.parametrize("family, tokens", [("llava", "16 for every image"), ("qwen2_5_vl", "64 for every image")])
def test_check_says_what_a_model_is(family: str, tokens: str, tmp_path: Path) -> None:
    text = check(str(tiny.save(tiny.tiny(family), tmp_path / "m")))
    assert f"a {family} model" in text and f"image tokens: {tokens}" in text
    assert "LoRA rank 128" in text and "memory to train, 8 pairs at once" in text
    told = next(line for line in text.splitlines() if line.startswith("language model, adapter"))
    assert int(told.split()[-1].replace(",", "")) > 0


def test_check_takes_a_hub_name_for_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="configuration"):
        check("nobody/no-such-model")
    assert "valid recipe" in check("phantom")


def test_check_knows_a_shipped_recipe_beside_a_run_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "run.json").write_text("{}")
    assert "valid recipe" in check("phantom")


def test_a_processor_file_alone_does_not_make_a_model(qwen: Path, tmp_path: Path) -> None:
    bare = without(qwen, tmp_path / "bare", "config.json")
    with pytest.raises(UsageError, match="no model here"):
        check(str(bare))
    (bare / "config.json").write_text(json.dumps({"model_type": "qwen2_audio"}))
    with pytest.raises(UsageError, match="family 'qwen2_audio' is not supported"):
        check(str(bare))
