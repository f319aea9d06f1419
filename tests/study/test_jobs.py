"""A sweep's results are made again where anything that they depend on is another one, and only there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from clinalign import training
from clinalign.errors import Diverged, RowError, UsageError
from clinalign.recipe import load_recipe
from clinalign.records import Example, Pair
from clinalign.storage import write_json, write_table
from clinalign.study import jobs
from clinalign.study.jobs import ADAPTER, BASE, Job, Questions, reading_key, run_job, seconds_of, used_pairs


def pair(number: int) -> Pair:
    spans: dict[str, Any] = {"chosen_spans": [[0, 4]], "rejected_spans": [[0, 5]]}
    ids: dict[str, Any] = {"chosen_token_ids": [1], "rejected_token_ids": [2]}
    named: dict[str, Any] = {"own": "chosen", "was_correct": True, "edit_kind": "side", "editor": "rule"}
    return Pair(f"p{number}", f"e{number}", 0, [], "?", "left", "right", **spans, **named, **ids)


@pytest.fixture
def trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Labels of what is trained, by a stand-in that can use all pairs but the first."""
    done: list[str] = []

    def train(vlm: Any, pairs: list[Pair], folder: Path, options: Any, out: Path, **given: Any) -> None:
        done.append(given["label"])
        given["quarantine"].add(f"align:{given['label']}", reason="no_counterfactual", id=pairs[0].id)
        (out / ADAPTER).mkdir(parents=True, exist_ok=True)
        (out / ADAPTER / "adapter_model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(jobs, "load_model", lambda *given: None)
    (tmp_path / "pairs").mkdir()
    write_table(tmp_path / "pairs" / "corrupted_pairs.parquet", [pair(i) for i in range(4)], Pair)
    return done


def job(tmp_path: Path, *overrides: str) -> Job:
    recipe = load_recipe("phantom", list(overrides))
    values = recipe.model_copy(update={"compare": {}, "sweep": None}).model_dump(mode="json")
    return Job("a", tmp_path, values, 0, tmp_path / "pairs")


def test_a_training_says_how_many_pairs_it_could_use(tmp_path: Path, trainings: list[str]) -> None:
    run_job(one := job(tmp_path))
    assert used_pairs(one) == {"used": 3, "of": 4}
    run_job(one)
    assert trainings == ["a"] and used_pairs(one) == {"used": 3, "of": 4}


def test_an_own_loss_that_was_edited_is_trained_again(
    tmp_path: Path, trainings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_sweep_loss", raising=False)
    (tmp_path / "my_sweep_loss.py").write_text("def loss(): ...", encoding="utf-8")
    one = job(tmp_path, "align.method=my_sweep_loss:loss")
    for _ in range(2):
        run_job(one)
    assert len(trainings) == 1
    (tmp_path / "my_sweep_loss.py").write_text("def loss(): return 1", encoding="utf-8")
    run_job(one)
    assert len(trainings) == 2


def test_a_teacher_that_was_changed_teaches_again(tmp_path: Path, trainings: list[str]) -> None:
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "config.json").write_text("{}", encoding="utf-8")
    one = job(tmp_path, f"align.distill={{teacher: {tmp_path / 'teacher'}, layers: [2]}}")
    for _ in range(2):
        run_job(one)
    (tmp_path / "teacher" / "config.json").write_text('{"a": 1}', encoding="utf-8")
    run_job(one)
    assert len(trainings) == 2


def test_a_model_that_is_loaded_otherwise_is_another_one(tmp_path: Path, trainings: list[str]) -> None:
    """How it cuts images and writes boxes changes what the base answers, which no training of its own stands for."""
    made = [job(tmp_path), job(tmp_path, "tiles=true"), job(tmp_path, "boxes=unit"), job(tmp_path, "dtype=bfloat16")]
    keys = [str(jobs._model(one, load_recipe("phantom").model_validate(one.recipe))) for one in made]
    assert len(set(keys)) == 4


def test_a_training_that_diverged_is_not_tried_again_with_the_same_settings(
    tmp_path: Path, trainings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*given: Any, **named: Any) -> None:
        trainings.append(named["label"])
        raise Diverged("step 3: loss nan, gradient norm nan; lower lr")

    monkeypatch.setattr(training, "train", breaks)
    assert run_job(job(tmp_path)) == run_job(job(tmp_path)) == "step 3: loss nan, gradient norm nan; lower lr"
    assert trainings == ["a"]
    run_job(job(tmp_path, "align.lr=1e-6"))
    assert trainings == ["a", "a"]


def test_a_training_that_is_there_but_not_noted_keeps_its_seconds(tmp_path: Path, trainings: list[str]) -> None:
    one = job(tmp_path)
    write_json(one.folder / "train.json", {"seconds": 50.0})
    run_job(one)
    assert seconds_of(one)["trainings"] == 50


def test_what_a_training_is_refused_for_names_it(
    tmp_path: Path, trainings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*given: Any, **named: Any) -> None:
        raise UsageError("none of the 4 pairs can be used")

    monkeypatch.setattr(training, "train", refuses)
    with pytest.raises(UsageError, match="^a: none of the 4 pairs"):
        run_job(job(tmp_path))


def reading(tmp_path: Path, *overrides: str, **asked: Any) -> str:
    """The key of a reading of a training and the base."""
    one = job(tmp_path, *overrides)
    base = Job(BASE, tmp_path, one.recipe, 0)
    options = load_recipe("phantom", list(overrides)).evaluate.model_dump(mode="json")
    return reading_key([base, one], [Questions("test", options | asked)])


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """The table of examples and the list of its images, where a sweep has them."""
    folder = tmp_path / "corpora" / "pairs"
    (folder / "manifests").mkdir(parents=True)
    (folder / "manifests" / "ingest.sha256").write_text("a", encoding="utf-8")
    (folder / "examples.parquet").write_bytes(b"rows")
    return folder / "examples.parquet"


def test_a_reading_is_known_by_what_its_numbers_depend_on(
    tmp_path: Path, trainings: list[str], examples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory and how sure the numbers are leave answers alone; a file behind the settings does not."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_read_loss", raising=False)
    (tmp_path / "my_read_loss.py").write_text("def loss(): ...", encoding="utf-8")
    own = "align.method=my_read_loss:loss"
    key = reading(tmp_path, own)
    assert key == reading(tmp_path, own, "align.micro_batch=2", "align.checkpoint_every=3")
    assert key == reading(tmp_path, own, batch_size=1, resamples=100)
    assert key != reading(tmp_path, own, "align.lr=1e-6")
    assert key != reading(tmp_path, own, max_new_tokens=7)
    (tmp_path / "my_read_loss.py").write_text("def loss(): return 1", encoding="utf-8")
    changed = reading(tmp_path, own)
    assert changed != key
    examples.write_bytes(b"other rows")
    assert reading(tmp_path, own) != changed


def test_what_a_model_cannot_be_asked_of_other_tasks_goes_to_the_quarantine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OneImage:
        def prompt_ids(self, prompt: str, images: list[Any]) -> list[int]:
            if "second" in prompt:
                raise RowError("images", "number_of_images", "the model takes one")
            return [1]

    monkeypatch.setattr("clinalign.measuring.asking.own_images", lambda example, folder: [])
    rows = [["clean", "truth_nll", 0.5, None, ""]]
    monkeypatch.setattr("clinalign.measuring.drift.truth_rows", lambda vlm, asked, folder, batch_size: {
        example.id: rows for example in asked
    })  # fmt: skip
    examples = [Example("a", [], "Which side?", "left"), Example("b", [], "And on the second image?", "left")]
    one = Job("a", tmp_path, {}, 0)
    found = jobs._kept(OneImage(), examples, tmp_path, one, "skills-0f")
    assert [(m.example_id, m.value) for m in found] == [("a", 0.5)]
    [line] = (one.folder / "skills-0f.quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert '"number_of_images"' in line and '"b"' in line
