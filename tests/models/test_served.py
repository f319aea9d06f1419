"""vLLM in the place of the model's own forward: the same answers to the same prompts, or a refusal."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from once import Once
from stand_in_vllm import StandInVLLM
from test_run import small_run

from clinalign.decoding.options import Greedy
from clinalign.errors import UsageError
from clinalign.folder import Run
from clinalign.imaging.images import read_image
from clinalign.merge import save_plain
from clinalign.models import VLM, load_vlm
from clinalign.models.served import Served, check_served
from clinalign.preflight.settings import setting_findings
from clinalign.recipe import Recipe, load_recipe
from clinalign.records import Answer, Example
from clinalign.stages import answers
from clinalign.storage import read_table

pytestmark = pytest.mark.usefixtures("no_figures")
WARM = "warmup={method: sft, max_steps: 4, batch: 8, lr: 0.005, lora: {r: 4, alpha: 8, dropout: 0.0}}"
Prompts = list[tuple[str, list]]


@pytest.fixture(scope="module")
def run(once: Once) -> Path:
    return once("served", lambda folder: small_run(folder / "a", WARM)) / "a"


@pytest.fixture(scope="module")
def prompts(run: Path) -> Prompts:
    examples = [e for e in read_table(run / "examples.parquet", Example) if e.split == "test"][:3]
    return [(e.prompt, [read_image(run / name) for name in e.images]) for e in examples]


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return load_vlm("embedded")


def served(images: int = 1, length: int = 0) -> Served:
    from clinalign.models.guard import source_of

    return Served(source_of("embedded"), "float32", images, 0.5, length)


def test_it_is_asked_what_the_model_is_asked(vlm: VLM, prompts: Prompts, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = StandInVLLM()
    monkeypatch.setitem(sys.modules, "vllm", engine)
    there = pickle.loads(pickle.dumps(served(length=512)))
    assert there(vlm, prompts, Greedy(), 12) == vlm.generate(prompts, max_new_tokens=12)
    assert there(vlm, prompts[:1], Greedy(), 2)[0].finish_reason == "length"
    assert engine.asked == [3, 1]
    assert engine.given == {"images": {"image": 1}, "cached": True, "memory": 0.5, "length": 512, "seed": 0}
    assert engine.settings[0].ignore_eos and engine.settings[0].stop_token_ids == vlm.eos_ids
    assert engine.settings[0].logit_bias == dict.fromkeys(vlm.banned_ids, -100.0) != {}
    there.close()
    assert there._engine is None and there.name == "vllm 0.0"


def test_a_question_without_an_image(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = StandInVLLM()
    monkeypatch.setitem(sys.modules, "vllm", engine)
    asked: Prompts = [("Is there a nodule?", [])]
    assert served(images=0)(vlm, asked, Greedy(), 8) == vlm.generate(asked, max_new_tokens=8)
    assert engine.given["images"] == {"image": 0} and engine.given["length"] is None


def test_a_character_cut_off_half_way_is_no_other_word(
    vlm: VLM, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM holds back what the tokenizer here shows as a replacement character; an answer cut off there is one."""
    monkeypatch.setitem(sys.modules, "vllm", StandInVLLM())
    decode = vlm.decode
    monkeypatch.setattr(vlm, "decode", lambda ids: decode(ids) + "\N{REPLACEMENT CHARACTER}")
    assert served()(vlm, prompts[:1], Greedy(), 2)[0].text.endswith("\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize(
    ("off", "why"),
    [
        ({"more": 1}, r"vLLM makes \d+ tokens of a prompt that has \d+ here, images included; set tiles=true"),
        ({"text": "something else"}, "vLLM reads its tokens as 'something else', the tokenizer here as"),
        ({"without_end": True}, "vLLM ended an answer without its end token"),
        ({"without_end": True, "reason": "length"}, r"vLLM ended an answer after \d+ tokens .length.; raise"),
        ({"start": "no room"}, "vLLM does not start .no room.; lower answer.vllm_memory .0.5."),
    ],
)
def test_another_prompt_or_other_words_are_refused(
    vlm: VLM, prompts: Prompts, monkeypatch: pytest.MonkeyPatch, off: dict, why: str
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", StandInVLLM(**off))
    with pytest.raises(UsageError, match=why):
        served()(vlm, prompts, Greedy(), 40)


def test_a_prompt_beyond_the_bound_is_refused(vlm: VLM, prompts: Prompts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", StandInVLLM())
    with pytest.raises(UsageError, match=r"a prompt has \d+ tokens, images included; raise answer.vllm_length .9."):
        served(length=9)(vlm, prompts, Greedy(), 40)


def test_a_run_answers_with_it_after_a_warm_up_as_without(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warmed-up weights are written to a plain folder, which is gone afterwards; the stage's key is another, and what
    memory it may take is no part of it."""
    engine = StandInVLLM()
    monkeypatch.setitem(sys.modules, "vllm", engine)
    monkeypatch.setattr("clinalign.models.served.check_served", lambda here: None)
    small = ["answer.engine=vllm", "answer.batch_size=2"]
    other = small_run(tmp_path / "b", WARM, *small, "answer.vllm_memory=0.5")
    assert max(engine.asked) > 2, "a group at a time"
    tables = [read_table(folder / "answers.parquet", Answer) for folder in (run, other)]
    assert tables[0] == tables[1] and not list(other.glob(".served-*"))
    keys = [json.loads((folder / "run.json").read_text())["stages"]["answer"]["key"] for folder in (run, other)]
    assert keys[0] != keys[1]
    engine.asked.clear()
    small_run(other, WARM, *small, "answer.vllm_memory=0.7", resume=True)
    assert engine.asked == []


def test_a_name_that_only_a_hub_knows_stays_one(tmp_path: Path) -> None:
    run = Run(load_recipe("phantom", ["answer.engine=vllm", "model=someone/some-model"]), tmp_path / "run")
    with answers._served(run, None, None, [Example("a", ["1.png"], "Where?", "left")]) as sampler:
        assert sampler.made_of[:3] == ("someone/some-model", run.recipe.dtype, 1)


def test_a_projection_of_image_tokens_is_not_left_out(
    vlm: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vlm, "projection", object())
    with pytest.raises(UsageError, match="its image projection acts on image tokens"):
        save_plain(vlm, Recipe(), tmp_path / "out")


def test_what_it_cannot_take_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, why in {
        "quantize=4bit": "answer.engine vllm takes whole weights",
        "processor=other": "answer.engine vllm takes the processor of the model's folder",
        "engine.kind=ray": "answer.engine vllm on workers takes answer.vllm_memory of a GPU each; set engine.gpus=1",
        "device=cpu": "answer.engine vllm needs a GPU",
    }.items():
        with pytest.raises(UsageError, match=why):
            load_recipe("phantom", ["answer.engine=vllm", given])
    with pytest.raises(UsageError, match="a later round would ask a model with an image projection"):
        load_recipe("phantom", ["answer.engine=vllm", "rounds=2", "align.method=sft", "align.distill={}"])
    recipe = Recipe.model_validate({"answer": {"engine": "vllm"}})
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert [one.text for one in setting_findings(recipe) if one.field == "answer.engine"] == [
        "vLLM is not installed; pip install vllm, or set answer.engine=local"
    ]
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: SimpleNamespace())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="vLLM needs a GPU; set answer.engine=local"):
        check_served(here=True)
    check_served(here=False)
