"""Runs side by side: who is refused, what is one system, and when one is marked best."""

import json
from dataclasses import replace

import numpy as np
import pytest

from clinalign.cli import app
from clinalign.errors import UsageError
from clinalign.evaluation.compare import as_text, compare_runs
from clinalign.measuring.options import EvaluationOptions
from clinalign.recipe import Recipe
from clinalign.records import Example, Outcome
from clinalign.storage import write_table

OPTIONS = EvaluationOptions(resamples=200, permutations=2000)
N, PATIENTS = 240, 60


def examples(suites=("slake",)):
    return [
        Example(f"e{n}", ["i.png"], f"Is there a nodule {n}?", "yes" if n % 2 else "no", "closed",
                patient_id=f"p{n % PATIENTS}", source=suites[n % len(suites)], split="test")
        for n in range(N)
    ]  # fmt: skip


def run(folder, systems, *, seed=0, asked=None, **recipe):
    """A run folder whose `systems` map a name to the share of right answers (or to the answers themselves)."""
    asked = asked or examples()
    outcomes = []
    for system, share in systems.items():
        rng = np.random.default_rng([seed, len(system)])
        right = share if not isinstance(share, float) else rng.random(len(asked)) < share
        outcomes += [
            Outcome(e.id, e.task, e.source, system, "greedy", seed, "clean",
                    e.answer if good else "maybe not", bool(good), "rules", metrics={"words": 1.0})
            for e, good in zip(asked, right, strict=True)
        ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    settings = Recipe(seed=seed).model_dump(mode="json") | {"compare": {"dpo": {"method": "dpo"}}} | recipe
    (folder / "run.json").write_text(json.dumps({"recipe": settings}))
    write_table(folder / "examples.parquet", asked, Example)
    write_table(folder / "outcomes.parquet", outcomes, Outcome)
    return folder


def test_best_only_where_the_tests_say_so(tmp_path):
    clear = run(tmp_path / "clear", {"base": 0.4, "firempo": 0.95, "dpo": 0.6})
    got = compare_runs([clear], OPTIONS)["suites"]["slake"]
    assert [label for label, cell in got["cells"].items() if cell["best"]] == ["firempo"]
    assert all(t["p_holm"] >= t["p"] for t in got["tests"]) and len(got["tests"]) == 3
    close = run(tmp_path / "close", {"base": 0.4, "firempo": 0.80, "dpo": 0.78})
    result = compare_runs([close], OPTIONS)
    cells = result["suites"]["slake"]["cells"]
    assert not any(cell["best"] for cell in cells.values()) and cells["base"]["behind"]
    text = as_text(result)
    assert "no system is marked best" in text and "*" not in text and "this set would show" in text
    assert "better than every other" in as_text(compare_runs([clear], OPTIONS))


def test_equal_systems_are_hardly_ever_marked(tmp_path):
    """Three systems of equal true accuracy: the highest of them is best by luck alone."""
    marked = 0
    few = OPTIONS.model_copy(update={"resamples": 100, "permutations": 1000})
    for trial in range(12):
        rng = np.random.default_rng([7, trial])
        systems = {name: rng.random(N) < 0.6 for name in ("base", "firempo", "dpo")}
        cells = compare_runs([run(tmp_path / f"r{trial}", systems)], few)["suites"]["slake"]["cells"]
        marked += any(cell["best"] for cell in cells.values())
    assert marked <= 1


def test_seeds_of_one_system_are_one_row(tmp_path):
    runs = [run(tmp_path / f"s{seed}", {"base": np.arange(N) % 2 > 0, "firempo": 0.7}, seed=seed) for seed in range(3)]
    got = compare_runs(runs, OPTIONS)
    assert set(got["systems"]) == {"base", "firempo"} and got["systems"]["firempo"]["seeds"] == [0, 1, 2]
    cells = got["suites"]["slake"]["cells"]
    assert cells["base"]["seeds"]["between_seed_variance"] == 0.0
    assert cells["firempo"]["seeds"]["within_question_variance"] > 0.1
    assert len(cells["firempo"]["seeds"]["seed_means"]) == 3 and "(3 seeds)" in as_text(got)


def test_other_settings_are_other_systems(tmp_path):
    base = np.arange(N) % 2 > 0
    a = run(tmp_path / "a", {"base": base, "firempo": 0.7})
    b = run(tmp_path / "b", {"base": base, "firempo": 0.8}, align=Recipe().align.model_dump() | {"beta": 0.7})
    assert set(compare_runs([a, b], OPTIONS)["systems"]) == {"base", "a/firempo", "b/firempo"}
    named = EvaluationOptions(decoder="greedy").model_dump(mode="json")
    old = run(tmp_path / "old", {"base": base, "firempo": 0.7}, evaluate=named)
    assert set(compare_runs([a, old], OPTIONS)["systems"]) == {"base", "firempo"}
    other = EvaluationOptions(decoder="vcd").model_dump(mode="json")
    vcd = compare_runs([a, run(tmp_path / "vcd", {"base": base}, evaluate=other)], OPTIONS)["systems"]
    assert {label: found["decoder"] for label, found in vcd.items()} == {
        "a/base": "greedy",
        "firempo": "greedy",
        "vcd/base": "vcd",
    }
    both = EvaluationOptions(decoders=["vcd"]).model_dump(mode="json")
    two = compare_runs([run(tmp_path / "two", {"base": base, "base (vcd)": base}, evaluate=both)], OPTIONS)["systems"]
    assert {label: found["decoder"] for label, found in two.items()} == {"base": "greedy", "base (vcd)": "vcd"}
    c = run(tmp_path / "c", {"base": ~base, "firempo": 0.7}, model="other")
    assert {"a/base", "c/base"} <= set(compare_runs([a, c], OPTIONS)["systems"])


def test_the_same_run_with_other_answers_is_not_averaged_away(tmp_path):
    a, b = (run(tmp_path / name, {"base": np.arange(N) % 2 > k}) for name, k in (("a", 0), ("b", -1)))
    assert set(compare_runs([a, b], OPTIONS)["systems"]) == {"a/base", "b/base"}


def test_runs_on_different_questions_are_refused_by_name(tmp_path):
    a = run(tmp_path / "a", {"base": 0.5})
    fewer = run(tmp_path / "fewer", {"base": 0.5}, asked=examples()[:-1])
    with pytest.raises(
        UsageError, match=r"'a' and 'fewer' were asked different questions \(1 only in 'a', the first 'e239'"
    ):
        compare_runs([a, fewer], OPTIONS)
    changed = [replace(e, answer="no") if e.id == "e7" else e for e in examples()]
    with pytest.raises(
        UsageError, match="'a' and 'truth' differ in the question, truth or patient of 1 examples.*'e7'"
    ):
        compare_runs([a, run(tmp_path / "truth", {"base": 0.5}, asked=changed)], OPTIONS)
    judged = run(tmp_path / "j", {"base": 0.5}, evaluate=EvaluationOptions().model_dump(mode="json") | {"judge": "llm"})
    with pytest.raises(UsageError, match="judged by rules and 'j' by llm"):
        compare_runs([a, judged], OPTIONS)
    with pytest.raises(UsageError, match="not a run folder"):
        compare_runs([tmp_path], OPTIONS)
    broken = run(tmp_path / "broken", {"base": 0.5})
    write_table(broken / "examples.parquet", examples()[:5], Example)
    with pytest.raises(UsageError, match="'e5', which is no example"):
        compare_runs([a, broken], OPTIONS)
    (broken / "run.json").write_text("{")
    with pytest.raises(UsageError, match="holds no recipe"):
        compare_runs([broken], OPTIONS)
    with pytest.raises(UsageError, match="named twice"):
        compare_runs([a, a], OPTIONS)


def test_suites_apart_and_corrected_together(tmp_path):
    asked = examples(("slake", "vqa_rad"))
    a = run(tmp_path / "a", {"base": 0.5, "firempo": 0.9}, asked=asked)
    got = compare_runs([a], OPTIONS)
    assert {name: suite["n"] for name, suite in got["suites"].items()} == {"slake": 120, "vqa_rad": 120}
    [test] = got["suites"]["slake"]["tests"]
    assert test["p_holm"] == pytest.approx(2 * test["p"], abs=1e-5) or test["p_holm"] == pytest.approx(
        test["p"], abs=1e-5
    )
    assert got == compare_runs([a], OPTIONS)


def test_the_command(tmp_path):
    from typer.testing import CliRunner

    a = run(tmp_path / "a", {"base": 0.5, "firempo": 0.9})
    got = CliRunner().invoke(app, ["compare", str(a), "--out", str(tmp_path / "t.json")])
    assert got.exit_code == 0 and "240 questions, 60 patients" in got.output and "firempo" in got.output
    assert json.loads((tmp_path / "t.json").read_text())["suites"]["slake"]["n"] == N
