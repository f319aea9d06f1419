"""`evaluate.suites` of a recipe, with the embedded model: asked once, in tables and page; refused beforehand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clinalign.errors import UsageError
from clinalign.evaluation import compare_runs
from clinalign.evaluation.suites import BELOW, SUITES, modality, own_outcomes, suite_outcomes
from clinalign.evaluation.suites.eh import LETTERS
from clinalign.folder import Run
from clinalign.measuring import asking, suites
from clinalign.measuring.evidence import likelihoods
from clinalign.measuring.options import EvaluationOptions
from clinalign.models import load_vlm
from clinalign.preflight.data import sample, suite_findings
from clinalign.recipe import Recipe, load_recipe
from clinalign.records import Example, Outcome
from clinalign.run import execute
from clinalign.stages.suites import suite_items
from clinalign.storage import read_table

SMALL = [
    "data.splits={align: 16, test: 6}", "align.max_steps=1", "align.batch=4", "compare={}", "evaluate.resamples=100",
    "evaluate.permutations=100", "evaluate.flips=[]", "evaluate.calibration=false", "evaluate.pictures=false",
    "evaluate.suite_limit=12", "evaluate.suite_samples=2",
]  # fmt: skip
CHOSEN = ["hallucinogen", "modality", "causal", "stages", "uncertainty", "eh"]


def recipe(*more: str) -> Recipe:
    return load_recipe("phantom", [*SMALL, *more])


def executed(out: Path, *more: str, resume: bool = False) -> Path:
    execute(Run(recipe(f"align.cache={out.parent / 'cache'}", *more), out, resume=resume))
    return out


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return executed(tmp_path_factory.mktemp("suites") / "run", f"evaluate.suites=[{', '.join(CHOSEN)}]")


@pytest.mark.slow
def test_every_system_is_asked_every_question_of_every_suite(ran: Path) -> None:
    outcomes = read_table(ran / "outcomes.parquet", Outcome)
    for suite in CHOSEN:
        items = {e.id for e in read_table(ran / BELOW / f"{suite}.parquet", Example)}
        found = suite_outcomes(outcomes, suite)
        assert list(found) == ["base", "firempo"] and 4 <= len(items) <= 16
        for of in found.values():
            assert {o.example_id for o in of if o.condition == "clean"} == items
    assert {o.condition for o in suite_outcomes(outcomes, "stages")["base"]} == {
        "clean", "given_recognition", "given_knowledge", "given_both",
    }  # fmt: skip
    drawn = [o for o in suite_outcomes(outcomes, "uncertainty")["base"] if o.condition == "sampled"]
    assert {o.seed for o in drawn} == {1, 2}


@pytest.mark.slow
def test_the_numbers_and_the_page_have_a_section(ran: Path) -> None:
    summary = json.loads((ran / "evaluation" / "summary.json").read_text())
    assert list(summary["suites"]) == CHOSEN
    for one in summary["suites"].values():
        assert set(one["systems"]) == set(one["details"]) == {"base", "firempo"}
        assert "p_adjusted" in one["systems"]["firempo"]["difference"] and one["n"] > 0
    page = (ran / "report.html").read_text(encoding="utf-8")
    assert 'id="suites"' in page and "Attacks (HALLUCINOGEN)" in page and "visual context, not there" in page
    for metric in ("accuracy", "precision", "recall", "F1", "unanswered"):
        assert f"Eyes (EH-Benchmark): {metric}" in page
    for label in ("glaucoma category", "always A", "letter", "prior", "letter, fixed order", "base, fixed order"):
        assert f">{label}</th>" in page
    eyes = summary["suites"]["eh"]["details"]["base"]
    for row in eyes["groups"].values():
        assert {"accuracy", "precision", "recall", "f1", "unanswered"} < set(row)
        assert row["f1"]["patients"] and "low" in row["f1"]
    assert eyes["fixed_order"]["all"]["accuracy"]["n"] < eyes["groups"]["all"]["accuracy"]["n"]


@pytest.mark.slow
def test_a_run_s_own_numbers_do_not_count_the_suites(ran: Path) -> None:
    summary = json.loads((ran / "evaluation" / "summary.json").read_text())
    own = {e.id for e in read_table(ran / "examples.parquet", Example) if e.split == "test"}
    outcomes = read_table(ran / "outcomes.parquet", Outcome)
    assert {o.example_id for o in own_outcomes(outcomes)} <= own and summary["n"] == len(own)
    assert compare_runs([ran])["n"] == len(own)


@pytest.mark.slow
def test_what_was_asked_is_not_asked_again(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (ran / "outcomes.parquet").read_bytes()
    monkeypatch.setattr(asking, "generate", lambda *_: pytest.fail("asked again"))
    executed(ran, f"evaluate.suites=[{', '.join(CHOSEN)}]", "evaluate.level=0.9", resume=True)
    assert (ran / "outcomes.parquet").read_bytes() == before


def test_a_model_that_needs_an_image_is_asked_without_the_text_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vlm = load_vlm("embedded")
    monkeypatch.setattr(vlm, "images_a_question", (1, 1))
    run = Run(recipe("evaluate.suites=[modality]"), tmp_path / "run")
    items = suite_items(run, [])[0]["modality"][:4]
    options = EvaluationOptions(max_new_tokens=4)
    asked = {"modality": list(suites.questions("modality", items, run.out))}
    found = suites.evaluate_suites(vlm, asked, run.out, options, system="m", samples=0)
    said = capsys.readouterr()
    assert "takes no question without an image" in said.err + said.out
    conditions = {o.condition for o in found}
    assert "no_image" not in conditions and {"clean", "no_text", "blank"} <= conditions
    summary: dict[str, Any] = SUITES["modality"](found, items)
    assert "interference" not in summary
    for o in found:
        measured = o.condition in modality.ARMS
        assert set(o.metrics) == ({"p:yes", "p:no"} if measured else set())
        assert not measured or sum(o.metrics.values()) == pytest.approx(1.0)
    assert set(summary["auroc"]) <= {"clean", "no_text"} and summary["micro_f1"].keys() >= {"clean", "no_text"}


@pytest.mark.slow
def test_a_probability_is_the_likelihood_of_the_word_over_that_of_all_choices(ran: Path) -> None:
    """From the likelihood of one word at a time, p = 1 / (1 + exp(log p(No) - log p(Yes)))."""
    vlm = load_vlm("embedded")
    items = read_table(ran / BELOW / "modality.parquet", Example)[:3]
    asked = [q for q in suites.questions("modality", items, ran) if q.condition == "clean"]
    options = EvaluationOptions(max_new_tokens=4)
    found = suites.evaluate_suites(vlm, {"modality": asked}, ran, options, system="m", samples=0)
    for q, o in zip(asked, found, strict=True):
        words = [list(vlm.tokenizer(w, add_special_tokens=False)["input_ids"]) for w in ("Yes", "No")]
        beside = [vlm.eos_ids[0]]  # what two answers begin with alike is not scored
        yes, no = (likelihoods(vlm, [(q.prompt, q.show(), [w, beside])], batch_size=1)[0][0] for w in words)
        assert o.metrics["p:yes"] == pytest.approx(1 / (1 + math.exp(no - yes)), abs=1e-5)


def test_an_unknown_suite_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="'hallucinogen', 's_chain'.*got 'halucinogen'"):
        recipe("evaluate.suites=[halucinogen]")
    with pytest.raises(UsageError, match="add it to evaluate.suites"):
        recipe("evaluate.suite_data={s_chain: /nowhere}")
    with pytest.raises(UsageError, match="causal: no source"):
        recipe("evaluate.suites=[causal]", "evaluate.suite_data={causal: /nowhere}")
    with pytest.raises(UsageError, match="calibrates on split dev"):
        recipe("evaluate.suites=[uncertainty]", "evaluate.split=dev")


def test_published_eyes_are_asked_in_both_orders(tmp_path: Path) -> None:
    """Two published files: one with a fixed order of options, one without; the suite asks the first of them twice."""
    from clinalign.imaging.images import write_png

    write_png(tmp_path / "eh" / "images" / "a.png", np.zeros((32, 32, 3), np.uint8))
    lines = "Grade?\nA. DR0\nB. DR1\nC. DR2\nD. DR3\nE. DR4"
    for name in ("DR_Grade", "ODIR"):
        rows = [{"id": "images/a.png", "question": lines, "answer": "C"}]
        (tmp_path / "eh" / f"{name}.json").write_text(json.dumps(rows))
    chosen = ["evaluate.suites=[eh]", f"evaluate.suite_data={{eh: {tmp_path / 'eh'}}}"]
    assert [verdict for verdict, _ in verdicts(*chosen)] == ["ready"]
    run = Run(recipe(*chosen), tmp_path / "run")
    items, written = suite_items(run, [])
    asked = list(suites.questions("eh", items["eh"], run.out))
    assert [q.condition for q in asked] == ["clean", "clean", "fixed_order"]
    assert asked[-1].prompt == lines and all(q.show()[0].shape == (32, 32, 3) for q in asked)
    assert all(q.example.options[LETTERS.index(q.example.answer)] == "DR2" for q in asked)
    assert {path.name for path in written} >= {"eh.parquet"}


def verdicts(*more: str) -> Sequence[tuple[str, str]]:
    chosen = recipe(*more)
    return [(found.verdict, found.text) for found in suite_findings(chosen, sample(chosen)[0])]


def test_preflight_refuses_a_suite_whose_data_is_missing(tmp_path: Path) -> None:
    [(verdict, text)] = verdicts(
        "evaluate.suites=[s_chain]", f"evaluate.suite_data={{s_chain: {tmp_path / 'nowhere'}}}"
    )
    assert verdict == "refused" and "not there" in text
    (tmp_path / "empty").mkdir()
    [(verdict, text)] = verdicts("evaluate.suites=[s_chain]", f"evaluate.suite_data={{s_chain: {tmp_path / 'empty'}}}")
    assert verdict == "refused"
    assert [v for v, _ in verdicts("evaluate.suites=[causal, stages]")] == ["ready", "ready"]


@pytest.mark.slow
def test_preflight_refuses_a_suite_that_the_own_data_has_no_question_of(tmp_path: Path, ran: Path) -> None:
    image = next((ran / "images").rglob("*.png"))
    rows = [
        f"{image},Is there a nodule {n}?,yes,{split},p{n}" for n, split in enumerate(["align", "align", "test", "test"])
    ]
    (tmp_path / "own.csv").write_text("\n".join(["image,question,answer,split,patient_id", *rows]))
    source = ["data={source: table, path: " + str(tmp_path / "own.csv") + ", leaks: allow}"]
    [(verdict, text)] = verdicts(*[o for o in source], "evaluate.suites=[stages]")
    assert verdict == "refused" and "stages: 0 of" in text and "evaluate.suite_data.stages" in text
