"""Supervised warm-up before a run, and a run's adapter as plain weights that transformers loads by itself."""

import json
import re
import shutil
import sys
from pathlib import Path

import naive
import pytest
import tiny
import torch
from once import Once
from stand_in_vllm import StandInVLLM
from test_run import SMALL, small_run
from typer.testing import CliRunner

from clinalign.cli import app
from clinalign.errors import UsageError
from clinalign.folder import Run
from clinalign.imaging.images import read_image
from clinalign.merge import merge, parity
from clinalign.models import load_vlm
from clinalign.recipe import load_recipe
from clinalign.records import Answer, Example
from clinalign.run import execute
from clinalign.storage import read_table

pytestmark = pytest.mark.usefixtures("no_figures")
WARM = [
    "warmup={method: sft, max_steps: 4, batch: 8, lr: 0.005, lora: {r: 4, alpha: 8, dropout: 0.0}}",
    "compare={dpo: {method: dpo}}",
    "align.lr=0.01",
    "evaluate.flips=[]",
]


@pytest.fixture(scope="module")
def run(once: Once) -> Path:
    """A whole run with a warm-up, which several workers may read at once."""
    return once("warm", lambda folder: small_run(folder / "a", *WARM)) / "a"


def warmed(run: Path):
    vlm = load_vlm("embedded")
    vlm.load_adapter(run / "warmup" / "adapter")
    return vlm


def test_the_warm_up_is_a_stage_and_everything_after_it_starts_from_it(run: Path) -> None:
    stages = json.loads((run / "run.json").read_text())["stages"]
    assert list(stages)[:3] == ["ingest", "warmup", "answer"]
    assert "warmup/adapter/adapter_model.safetensors" in stages["answer"]["inputs"]
    answers = read_table(run / "answers.parquet", Answer)
    examples = {e.id: e for e in read_table(run / "examples.parquet", Example)}
    prompts = [(a.prompt, [read_image(run / i) for i in examples[a.example_id].images]) for a in answers]
    base, warm = (vlm.generate(prompts, max_new_tokens=40) for vlm in (load_vlm("embedded"), warmed(run)))
    assert [g.token_ids for g in warm] == [a.token_ids for a in answers] != [g.token_ids for g in base]


def test_another_warm_up_does_what_follows_again(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(run, tmp_path / "a")
    small_run(copy, *WARM, f"align.cache={run.parent / 'cache'}", resume=True)
    assert "warmup: done already" in capsys.readouterr().err
    other = load_recipe("phantom", [*SMALL, *WARM, f"align.cache={run.parent / 'cache'}", "warmup.max_steps=3"])
    execute(Run(other, copy, resume=True), only="warmup")
    assert "warm-up: 3 steps" in capsys.readouterr().err
    with pytest.raises(UsageError, match="stage 'answer' is not done"):
        execute(Run(other, copy, resume=True), only="pair")


def test_only_supervised_adapters_warm_up(tmp_path: Path) -> None:
    execute(Run(load_recipe("phantom", SMALL), tmp_path / "none"), only="ingest")
    with pytest.raises(UsageError, match="the recipe has no warm-up"):
        execute(Run(load_recipe("phantom", SMALL), tmp_path / "none", resume=True), only="warmup")
    with pytest.raises(UsageError, match="warmup"):
        load_recipe("phantom", ["warmup={method: dpo}"])


@pytest.mark.parametrize("system", ["", "dpo"])
def test_merged_weights_give_the_same_logits_in_plain_transformers(run: Path, tmp_path: Path, system: str) -> None:
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    out = merge(run, tmp_path / "merged", system=system)
    plain = LlavaForConditionalGeneration.from_pretrained(out).eval()
    adapted = warmed(run)
    adapted.merge_adapter()
    untrained = naive.answer_logits(adapted, *asked(adapted))
    adapted.load_adapter((run / "compare" / system if system else run) / "adapter")
    expected = naive.answer_logits(adapted, *asked(adapted))
    prompt, answer, images = asked(adapted)
    with torch.no_grad():
        found = plain(**naive.inputs(adapted, prompt, answer, images)).logits[0, len(prompt) - 1 : -1]
    assert torch.allclose(found, expected, atol=1e-4)
    assert (expected - untrained).abs().max() > 1e-2  # the adapter does something
    again = load_vlm(str(out))
    assert again.generate([("Where is the nodule?", images)]) == adapted.generate([("Where is the nodule?", images)])
    text = again.prompt_text("Where?", 1)
    ids = AutoProcessor.from_pretrained(out)(text=text, images=images, return_tensors="pt")["input_ids"][0].tolist()
    assert ids == again.prompt_ids("Where?", images)


def asked(vlm):
    images = [tiny.image(1, 64, 64)]
    return vlm.prompt_ids("Is there a nodule?", images), [20, 21, 22], images


def test_what_cannot_be_merged_is_one_line(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        merge(tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match="is there already"):
        merge(run, run)
    with pytest.raises(UsageError, match="no 'dop'; did you mean 'dpo'"):
        merge(run, tmp_path / "out", system="dop")
    state = json.loads((run / "run.json").read_text())
    state["recipe"]["evaluate"]["from_another_version"] = 1
    (tmp_path / "run.json").write_text(json.dumps(state))
    with pytest.raises(UsageError, match="run.json: recipe: unknown key 'evaluate.from_another_version'"):
        merge(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("way", ["merged", "transformers", "peft"])
def test_the_model_is_the_same_however_it_leaves(run: Path, way: str) -> None:
    found = parity(run, way, limit=4)
    assert found.questions == found.equal == 4 and found.gap < 1e-3 and found.holds
    assert found.line().startswith(f"the same model: with {way} 4 of 4 answers are equal (100.0%)")


@pytest.mark.parametrize(("off", "holds"), [(0.0, True), (0.5, False)])
def test_vllm_is_asked_the_same(run: Path, monkeypatch: pytest.MonkeyPatch, off: float, holds: bool) -> None:
    engine = StandInVLLM(off)
    monkeypatch.setitem(sys.modules, "vllm", engine)
    found = parity(run, "vllm", limit=3)
    assert found.questions == found.equal == 3 and found.gap == pytest.approx(off, abs=1e-3) and found.holds == holds
    assert engine.given["images"] == {"image": 1} and "with vllm 3 of 3 answers" in found.line()


def test_without_vllm_its_parity_is_refused_by_name(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UsageError, match="vLLM is not installed"):
        parity(run, "vllm")


def test_another_adapter_is_told_apart(run: Path, tmp_path: Path) -> None:
    """What leaves is not what was measured here: the verdict says so, and the command fails."""
    copy = shutil.copytree(run, tmp_path / "a")
    with pytest.MonkeyPatch.context() as patch:
        wrong = lambda run, out, **_: merge(run, out, system="dpo")  # noqa: E731
        patch.setattr("clinalign.merge.merge", wrong)
        found = parity(copy, "merged", limit=4)
        assert not found.holds and found.line().startswith("NOT the same model")
        assert CliRunner().invoke(app, ["parity", str(copy), "--with", "merged", "--limit", "2"]).exit_code == 1


def test_what_cannot_be_compared_is_refused_by_name(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--with merge: unknown; .* did you mean 'merged'"):
        parity(run, "merge")
    with pytest.raises(UsageError, match="not a run folder"):
        parity(tmp_path, "merged")


@pytest.mark.parametrize("adapter", ["adapter", "compare/dpo/adapter"])
def test_an_adapter_loaded_as_its_own_card_says_is_the_run_s(
    adapter: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card's own lines, run in the run folder, against the merged model."""
    card = (run / adapter / "README.md").read_text(encoding="utf-8")
    assert "alone on `embedded` it gives other answers" in card and "clinalign merge RUN OUT" in card
    monkeypatch.chdir(run)
    loaded: dict = {}
    exec(re.findall(r"```python\n(.*?)```", card, re.DOTALL)[-1], loaded)
    monkeypatch.chdir(tmp_path)
    merged = load_vlm(str(merge(run, tmp_path / "out", system="" if adapter == "adapter" else "dpo")))
    expected = naive.answer_logits(merged, *asked(merged))
    assert torch.allclose(naive.answer_logits(loaded["vlm"], *asked(loaded["vlm"])), expected, atol=1e-4)
    with pytest.raises(UsageError, match="trained on other weights"):
        load_vlm("embedded", adapter=run / adapter)
