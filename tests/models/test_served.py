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
from clinalign.imaging.images import read_image
from clinalign.models import VLM, load_vlm
from clinalign.models.served import Served, check_served
from clinalign.preflight.settings import setting_findings
from clinalign.recipe import Recipe, load_recipe
from clinalign.records import Answer, Example
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


def served(vlm: VLM, length: int = 0) -> Served:
    from clinalign.models.guard import source_of

    return Served(Path(source_of("embedded")), "float32", 1, 0.5, length)


def test_it_is_asked_what_the_model_is_asked(vlm: VLM, prompts: Prompts, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = StandInVLLM()
    monkeypatch.setitem(sys.modules, "vllm", engine)
    there = pickle.loads(pickle.dumps(served(vlm, 512)))
    assert there(vlm, prompts, Greedy(), 12, 2) == vlm.generate(prompts, max_new_tokens=12)
    assert there(vlm, prompts[:1], Greedy(), 2, 2)[0].finish_reason == "length"
    assert engine.asked == [3, 1], "it makes its own batches"
    wanted = {"enable_prefix_caching": True, "gpu_memory_utilization": 0.5, "max_model_len": 512, "seed": 0}
    assert engine.given == wanted | {"limit_mm_per_prompt": {"image": 1}}
    started = there._model
    there.close()
    assert started is not None and there._model is None and there.name == "vllm 0.0"


@pytest.mark.parametrize(
    ("off", "why"),
    [
        ({"more": 1}, r"vLLM makes \d+ tokens of a prompt that has \d+ here"),
        ({"text": "something else"}, "vLLM reads its tokens as 'something else', the tokenizer here as"),
        ({"without_end": True}, "vLLM left out the token that ended an answer"),
    ],
)
def test_another_prompt_or_other_words_are_refused(
    vlm: VLM, prompts: Prompts, monkeypatch: pytest.MonkeyPatch, off: dict, why: str
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", StandInVLLM(**off))
    with pytest.raises(UsageError, match=why):
        served(vlm)(vlm, prompts, Greedy(), 40, 2)


def test_a_run_answers_with_it_after_a_warm_up_as_without(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warmed-up weights are written to a plain folder, which is gone afterwards; the stage's key is another."""
    engine = StandInVLLM()
    monkeypatch.setitem(sys.modules, "vllm", engine)
    monkeypatch.setattr("clinalign.models.served.check_served", lambda here: None)
    other = small_run(tmp_path / "b", WARM, "answer.engine=vllm", "answer.vllm_memory=0.5")
    assert engine.asked and engine.given["limit_mm_per_prompt"] == {"image": 1}
    tables = [read_table(folder / "answers.parquet", Answer) for folder in (run, other)]
    assert tables[0] == tables[1] and not list(other.glob(".served-*"))
    keys = [json.loads((folder / "run.json").read_text())["stages"]["answer"]["key"] for folder in (run, other)]
    assert keys[0] != keys[1]


def test_what_it_cannot_take_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, why in {
        "quantize=4bit": "answer.engine vllm takes whole weights",
        "processor=other": "answer.engine vllm takes the processor of the model's folder",
        "engine.kind=ray": "answer.engine vllm on workers needs their GPUs; set engine.gpus=1",
    }.items():
        with pytest.raises(UsageError, match=why):
            load_recipe("phantom", ["answer.engine=vllm", given])
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
