"""A sweep on the embedded model: the same tables whoever worked and whatever was killed; test is read once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest

from clinalign.check import check
from clinalign.errors import UsageError
from clinalign.measuring.options import EvaluationOptions
from clinalign.pages.study import write_study_page
from clinalign.pairs.build import _limited, _turned
from clinalign.pairs.options import PairOptions
from clinalign.recipe import load_recipe
from clinalign.records import Pair
from clinalign.storage import write_json
from clinalign.study.jobs import Job, Questions, SweepFolder
from clinalign.study.options import SweepOptions
from clinalign.study.pool import Pool
from clinalign.study.settings import settings_of
from clinalign.study.sweep import Sweep, _costs, sweep
from clinalign.training.options import TrainOptions
from clinalign.training.trainer import _budgeted

RECIPE = """
model: embedded
device: cpu
data: {source: phantom, splits: {align: 6, dev: 3, test: 3}, per_case: 2}
answer: {max_new_tokens: 40}
audit: go_on
align: {method: firempo, max_steps: 2, batch: 4, lr: 1.0e-3, lora: {r: 4, alpha: 8, dropout: 0.1}}
evaluate: {max_new_tokens: 40, flips: [], calibration: false}
sweep:
  systems:
    keep: {align.method: keep, align.alpha: [1, 16]}
    firempo: {}
  matched: [firempo]
  seeds: [0, 1]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path / "recipe.yaml"


def command(file: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "clinalign.cli", "sweep", str(file), "--out", str(out), *more]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy())


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, text = process.communicate(timeout=1800)
    return process.returncode, text


@pytest.mark.slow
def test_tables_are_the_same_with_two_workers_and_after_a_kill(file: Path, tmp_path: Path) -> None:
    code, text = finished(command(file, tmp_path / "one"))
    assert code == 0, text
    tables = (tmp_path / "one" / "study.json").read_bytes()
    code, text = finished(command(file, tmp_path / "two", "sweep.workers=2"))
    assert code == 0, text
    assert (tmp_path / "two" / "study.json").read_bytes() == tables

    killed = command(file, tmp_path / "killed")
    systems = tmp_path / "killed" / "systems"
    while not list(systems.glob("keep*/train.json")) and killed.poll() is None:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    finished(killed)
    assert not (tmp_path / "killed" / "study.json").exists()
    code, text = finished(command(file, tmp_path / "killed"))
    assert code == 2 and "add --resume" in text
    time.sleep(3)  # a worker ends with the sweep that began it
    code, text = finished(command(file, tmp_path / "killed", "--resume"))
    assert code == 0, text
    assert (tmp_path / "killed" / "study.json").read_bytes() == tables

    study: dict[str, Any] = json.loads(tables)
    assert {row["system"] for row in study["dev"]["rows"]} == {"base", "keep", "firempo"}
    measured = study["test"]["test"]["systems"]
    assert measured.keys() == {"base", "keep", "firempo", "firempo_matched"}
    assert measured["firempo_matched"] == measured["firempo"]  # there is but one setting
    assert all(row["means"]["drift_rest"] > 0 for row in study["dev"]["rows"][1:])
    assert study["dev"]["rows"][0]["means"]["drift_rest"] == 0
    page = (tmp_path / "one" / "study.html").read_text(encoding="utf-8")
    assert study["rule"] in page and "<svg" in page and "Test was read" not in page

    study["readings"] = 2
    write_json(tmp_path / "one" / "study.json", study)
    page = write_study_page(tmp_path / "one").read_text(encoding="utf-8")
    assert "Test was read 2 times" in page


@pytest.mark.slow
def test_dev_may_choose_by_what_happens_without_the_lesion(file: Path, tmp_path: Path) -> None:
    keys = [
        "sweep.systems={keep: {align.method: keep, align.alpha: [1, 16]}}", "sweep.matched=[]", "sweep.seeds=[0]",
        "evaluate.flips=[counterfactual, control_counterfactual, inpainted]", "evaluate.flip_answers=true",
        "sweep.rule.metric=answers_matched_counterfactual",
    ]  # fmt: skip
    code, text = finished(command(file, tmp_path / "out", *keys))
    assert code == 0, text
    study = json.loads((tmp_path / "out" / "study.json").read_text())
    for row in study["dev"]["rows"]:
        assert {"answers_matched_counterfactual", "changed_control_counterfactual"} <= set(row["means"])
        assert "flip_inpainted" not in row["means"], "dev is asked what the rule names"
    assert study["test"]["test"]["systems"]["keep"]["flips"]["flip_inpainted"]["n"]


def test_what_a_system_took_is_its_quickest_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """900 s of one seed were of a machine that did something else; its sums hold what was spent, each job once."""
    took = {"ic_vco-ab-s0": 900.0, "ic_vco-ab-s1": 27.0, "sft-cd-s0": 23.0}

    def seconds(job: Job) -> dict[str, float]:
        return {"steps": 10.0, "trainings": took[job.name], "evaluations": 2.0}

    monkeypatch.setattr("clinalign.study.sweep.seconds_of", seconds)
    first, second, third = (Job(name, tmp_path, {}, 0) for name in took)
    costs = _costs(tmp_path, [first, third], [first, second], 1.5)
    assert costs["training_of"] == {"ic_vco": 27.0, "sft": 23.0}
    assert (costs["runs"], costs["steps"], costs["trainings"], costs["shared"]) == (3, 30, 950, 1.5)


def test_what_is_asked_of_a_system_twice_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NAME_matched may be the very job of NAME; and a corpus that began as a copy brings the stages of the other."""
    monkeypatch.setattr("clinalign.study.sweep.seconds_of", lambda job: {
        "steps": 1.0, "trainings": 1.0, "evaluations": float(len(job.questions)),
    })  # fmt: skip
    asked = Questions("test", {})
    job = Job("sft-ab-s0", tmp_path, {}, 0, None, (asked,))
    made: dict[str, Any] = {"key": "a", "seconds": 2.0, "outputs": {}, "quarantined": 0}
    for name, more in (("pairs", {}), ("other", {"pair": made | {"key": "c", "seconds": 4.0}})):
        stages = {"ingest": made, "pair": made | {"key": "b", "seconds": 3.0}}
        (tmp_path / "corpora" / name).mkdir(parents=True)
        write_json(tmp_path / "corpora" / name / "run.json", {"stages": stages | more})
    costs = _costs(tmp_path, [job], [job, job], 0.0)
    assert (costs["evaluations"], costs["corpus"]) == (1.0, 9.0)


class Told:
    """A pool whose jobs are done at once; those whose name holds a word of `diverging` diverged."""

    def __init__(self, *diverging: str) -> None:
        self.diverging = diverging

    def each(self, work: Any, calls: list[tuple[Job]], label: str) -> list[str]:
        return ["step 3: loss nan" if any(word in job.name for word in self.diverging) else "" for (job,) in calls]


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch, file: Path) -> Any:
    """Chooses by rows of dev that say .5 for everybody that has answers; gives the rows and the choice."""

    def rows(systems: dict[str, Any], *given: Any) -> dict[str, dict[str, float]]:
        return {name: {"right": 0.5, "drift_rest": 0.1} for name in ("base", *systems)}

    monkeypatch.setattr("clinalign.study.sweep.dev_rows", rows)
    monkeypatch.setattr("clinalign.study.sweep.results", lambda job, questions: ([], []))
    monkeypatch.setattr(Sweep, "examples", lambda one, split: [])

    def choose(diverges: Any) -> Any:
        recipe = load_recipe(file)
        assert recipe.sweep is not None
        settings = settings_of(recipe)
        one = Sweep(recipe, SweepFolder(file.parent), recipe.sweep, settings, Told(), {})  # type: ignore[arg-type]
        one.pool = Told(*(one.job(s, 0).name for s in settings if diverges(s)))  # type: ignore[assignment]
        return one.choose()

    return choose


def test_a_setting_that_diverges_is_marked_and_not_chosen(dev: Any) -> None:
    found, chosen, jobs = dev(lambda setting: setting.keys.get("align.alpha") == 1)
    assert {name: setting.name for name, setting in chosen.items()} == {
        "keep": "keep: alpha 16",
        "firempo": "firempo",
        "firempo_matched": "firempo",
    }
    [lost] = [row for row in found if row.get("diverged")]
    assert (lost["name"], lost["means"], lost["chosen"]) == ("keep: alpha 1", {}, False)
    assert len(jobs) == 3, "the base, and two trainings that have an end"


def test_a_system_that_cannot_be_trained_at_all_ends_the_sweep_with_its_name(dev: Any) -> None:
    with pytest.raises(UsageError, match="no setting of 'keep' can be trained; 'keep: alpha 1': step 3: loss nan"):
        dev(lambda setting: setting.system == "keep")


def test_a_worker_that_the_system_ended_is_one_line() -> None:
    with pytest.raises(UsageError, match="ended a worker"), Pool(1, 0) as pool:
        pool.each(os._exit, [(9,)], "dev")


def test_suites_of_a_recipe_are_left_to_its_run(tmp_path: Path) -> None:
    recipe = load_recipe("phantom", ["evaluate={suites: [causal], suite_data: {causal: {source: phantom2}}}"])
    one = Sweep(recipe, SweepFolder(tmp_path), SweepOptions(), [], None, {})  # type: ignore[arg-type]
    for questions in (one.dev, *one.tests()):
        assert EvaluationOptions.model_validate(questions.options).suites == []


def test_a_worker_ends_with_the_sweep_that_began_it_even_if_that_was_gone_before() -> None:
    line = "import os, time; from clinalign.study.pool import start_worker; start_worker(0, PARENT); time.sleep(30)"
    ended = subprocess.run([sys.executable, "-c", line.replace("PARENT", "2 ** 22 + 1")], check=False, timeout=300)
    assert ended.returncode == 1


def test_no_worker_goes_on_once_a_sweep_is_broken_off() -> None:
    with pytest.raises(TypeError), Pool(2, 0) as pool:
        pool.each(time.sleep, [(300,), ("no number",)], "asleep")
    assert not active_children()


def test_a_second_reading_of_test_is_refused_or_noted(tmp_path: Path) -> None:
    state: dict[str, Any] = {"readings": []}
    one = Sweep(load_recipe("phantom"), SweepFolder(tmp_path), SweepOptions(), [], None, state)  # type: ignore[arg-type]
    one._note_reading("a", force=False)
    one._note_reading("a", force=False)  # a sweep that was killed while it read goes on
    assert json.loads((tmp_path / "sweep.json").read_text()) == {"readings": ["a"]}
    with pytest.raises(UsageError, match="read already"):
        one._note_reading("b", force=False)
    one._note_reading("b", force=True)
    assert json.loads((tmp_path / "sweep.json").read_text()) == {"readings": ["a", "b"]}


def test_a_folder_that_holds_a_sweep_is_not_overwritten(file: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "sweep.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match="add --resume"):
        sweep(load_recipe(file), tmp_path / "there")


def test_what_a_setting_would_be_refused_for_is_refused_before_anything_is_made(file: Path, tmp_path: Path) -> None:
    overrides = ["sweep.systems={keep: {align.method: keep}, whole: {align.tune: full}}", "sweep.matched=[]"]
    with pytest.raises(UsageError, match=r"align.tune: .*adapter.*\(sweep: 'whole'\)"):
        sweep(load_recipe(file, overrides), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"sweep.json", ".lock"}
    with pytest.raises(UsageError, match="'whole'"):
        check(str(file), overrides)


class Sized:
    sizes = [100, 300]


@pytest.mark.parametrize(("tokens", "steps"), [(0, 7), (8000, 10), (1, 1)])
def test_a_budget_of_tokens_is_steps_of_the_mean_pair(tokens: int, steps: int) -> None:
    """Pairs of 100 and 300 tokens, four a step: 800 tokens a step."""
    options = TrainOptions(max_tokens=tokens, max_steps=7, batch=4)
    assert _budgeted(options, Sized()).max_steps == steps  # type: ignore[arg-type]


def pair(number: int) -> Pair:
    sides: dict[str, Any] = {"chosen_spans": [[0, 4]], "rejected_spans": [[1, 5]]}
    ids: dict[str, Any] = {"chosen_token_ids": [1], "rejected_token_ids": [2]}
    named: dict[str, Any] = {"own": "chosen", "was_correct": True, "edit_kind": "side", "editor": "rule"}
    return Pair(f"p{number}", f"e{number}", 0, [], "?", "left", "right", **sides, **named, **ids)


def test_pairs_are_limited_and_turned_round_by_a_hash() -> None:
    pairs = [pair(number) for number in range(20)]
    kept = _limited(pairs, PairOptions(limit=5))
    assert len(kept) == 5 and kept == _limited(pairs[::-1], PairOptions(limit=5))[::-1]
    turned = _turned(pairs, PairOptions(wrong_share=0.1))
    wrong = [p for p in turned if p.chosen == "right"]
    assert len(wrong) == 2 and [p.id for p in turned] == [p.id for p in pairs]
    assert {(p.own, *p.chosen_token_ids, *p.rejected_spans[0]) for p in wrong} == {("rejected", 2, 0, 4)}
    assert _turned(pairs, PairOptions()) == pairs
