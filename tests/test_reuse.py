"""What a run takes over from an earlier one, and what it makes anew: in one process, stage by stage."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import resuming
from once import Once
from PIL import Image

from clinalign.errors import UsageError
from clinalign.folder import Run
from clinalign.recipe import load_recipe
from clinalign.run import execute
from clinalign.storage import file_hash, read_manifest

pytestmark = pytest.mark.usefixtures("no_figures")
NOTHING = {f"{stage}: done already" for stage in resuming.STAGES}


@pytest.fixture(scope="module")
def done(once: Once) -> Path:
    """A whole run of the tiny recipe, which several workers may read at once."""

    def fill(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            go(resuming.build(folder / "case"), patch)

    return once("done", fill) / "case"


@pytest.fixture
def case(done: Path, tmp_path: Path) -> Path:
    """A copy of it to be changed. Its data are those of the first, since the times of a copy are others."""
    copy = Path(shutil.copytree(done, tmp_path / "case", ignore=shutil.ignore_patterns("data")))
    (copy / "data").symlink_to(done / "data")
    return copy


def own_data(case: Path) -> Path:
    """Gives the case data of its own."""
    shared = (case / "data").resolve()
    (case / "data").unlink()
    return Path(shutil.copytree(shared, case / "data"))


def go(case: Path, patch: pytest.MonkeyPatch, *overrides: str, only: str | None = None, resume: bool = True) -> None:
    patch.chdir(case)
    patch.setenv("CLINALIGN_CACHE", "cache")
    execute(Run(load_recipe("recipe.yaml", list(overrides)), Path("run"), resume=resume), only=only)


def resumed(case: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *overrides: str) -> set[str]:
    """The stages that a resumed run did again."""
    capsys.readouterr()
    go(case, patch, *overrides)
    said = set(capsys.readouterr().err.split("\n"))
    return {line.partition(": done")[0] for line in NOTHING - said}


def test_nothing_is_done_again_and_every_image_is_listed(
    case: Path, done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resumed(case, monkeypatch, capsys) == set()
    assert resuming.differences(resuming.outcome(case), resuming.outcome(done)) == []
    listed = {name for path in (case / "run" / "manifests").iterdir() for name in read_manifest(path)}
    made = {str(path.relative_to(case / "run")) for path in (case / "run").rglob("*.png")}
    assert {name for name in made if not name.startswith("evaluation/figures")} == listed
    assert not list((case / "run").rglob(".*"))


@pytest.mark.parametrize("damage", ["swapped", "all deleted"])
@pytest.mark.parametrize(
    ("stage", "folder"), [("ingest", "images"), ("corrupt", "corrupted"), ("evaluate", "evaluation/images")]
)
def test_an_image_that_is_not_what_its_stage_left_is_made_anew(
    stage: str, folder: str, damage: str, case: Path, done: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    images = sorted((case / "run" / folder).rglob("*.png"))
    if damage == "swapped":
        shutil.copyfile(images[-1], images[0])
    for path in images if damage == "all deleted" else []:
        path.unlink()
    assert resumed(case, monkeypatch, capsys) == {stage}
    assert resuming.differences(resuming.outcome(case), resuming.outcome(done)) == []


def test_a_stage_command_refuses_a_swapped_image(
    case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = sorted((case / "run" / "images").rglob("*.png"))
    shutil.copyfile(images[1], images[0])
    with pytest.raises(UsageError, match="stage 'ingest' is not done; run `clinalign ingest` first"):
        go(case, monkeypatch, only="evaluate")
    assert f"ingest: {images[0].relative_to(case / 'run')} is not what this stage left" in capsys.readouterr().err


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes() or b"\n")
    content[len(content) // 2] ^= 0x81
    path.write_bytes(bytes(content))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def other_json(path: Path) -> None:
    path.write_text('[{"stages": 3}]\n')


def a_folder(path: Path) -> None:
    path.unlink()
    (path / "inner").mkdir(parents=True)


DAMAGES = [torn, flipped, emptied, other_json, a_folder, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize(
    "name",
    [
        "run.json", "quarantine.jsonl", "metrics.jsonl", "train.json", "evaluation/summary.json", "corpus.json",
        "evaluation/pictures.json", "corrupted/index.jsonl", "adapter/adapter_config.json", "adapter/card.yaml",
        "manifests/ingest.sha256", "outcomes.parquet", "warmup/adapter/adapter_model.safetensors", "ingest.json",
    ],
)  # fmt: skip
@pytest.mark.slow
def test_a_damaged_file_is_made_anew(
    name: str, damage: Callable[[Path], None], case: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(case / "run" / name)
    go(case, monkeypatch)
    assert resuming.differences(resuming.outcome(case), resuming.outcome(done)) == []


@pytest.mark.parametrize("name", ["run.json", "quarantine.jsonl", "metrics.jsonl", "train.json"])
def test_what_is_damaged_is_set_aside_and_said(
    name: str, case: Path, done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = case / "run" / name
    path.write_bytes(b'{"stages": \xff')
    go(case, monkeypatch)
    said = capsys.readouterr().err
    assert f"set aside as {name}.damaged-1" in said and path.with_name(f"{name}.damaged-1").is_file()
    assert resuming.differences(resuming.outcome(case), resuming.outcome(done)) == []


@pytest.mark.parametrize("left", ["no adapter", "half an adapter beside"])
def test_killed_while_an_adapter_takes_its_place(
    left: str, case: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = case / "run" / "adapter"
    part = adapter.with_name(".adapter.x1y2.part")
    adapter.rename(part) if left == "no adapter" else shutil.copytree(adapter, part)
    torn(part / "adapter_model.safetensors")
    (case / "run" / "train.json").unlink()
    go(case, monkeypatch)
    assert resuming.differences(resuming.outcome(case), resuming.outcome(done)) == [] and not part.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "kept"),
    [("weights", {"ingest"}), ("configuration", {"ingest"}), ("image bytes", set()), ("code version", set())],
)
def test_a_stage_is_done_again_when_what_it_depends_on_changed(
    what: str, kept: set[str], case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if what == "image bytes":
        own_data(case)
        resuming.picture(case, 2, 77)
    elif what == "code version":
        monkeypatch.setattr("clinalign.__version__", "9.9.9")
    else:
        resuming.change(case, what, random.Random(0))
    again = resumed(case, monkeypatch, capsys)
    assert set(resuming.STAGES) - again == kept


@pytest.mark.parametrize("what", ["weights", "configuration", "code version"])
def test_what_depends_on_the_model_or_the_code_is_not_done_with_another(
    what: str, case: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked of every stage's key; none is run again, so that what follows from other inputs does not show here."""
    is_done, again = Run._is_done, set()

    def asked(run: Run, name: str, key: str) -> bool:
        if not is_done(run, name, key):
            again.add(name)
        return True

    monkeypatch.setattr(Run, "_is_done", asked)
    go(case, monkeypatch)
    assert again == set()
    if what == "code version":
        monkeypatch.setattr("clinalign.__version__", "9.9.9")
    else:
        resuming.change(case, what, random.Random(0))
    go(case, monkeypatch)
    assert again >= {"warmup", "answer", "align:firempo", "align:sft", "evaluate"}
    assert ("ingest" in again) == (set(resuming.STAGES) == again) == (what == "code version")


@pytest.mark.parametrize("what", ["weights", "configuration", "pixels", "processor", "version", "nothing"])
def test_python_trains_again_when_what_it_depends_on_changed(
    what: str, case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from clinalign.models import load_vlm
    from clinalign.records import Pair
    from clinalign.storage import read_table
    from clinalign.training import train
    from clinalign.training.options import TrainOptions

    options = TrainOptions(method="sft", max_steps=1, batch=2, cache=str(case / "cache"))
    pairs = read_table(case / "run" / "corrupted_pairs.parquet", Pair)[:4]

    def run() -> str:
        capsys.readouterr()
        train(load_vlm(str(case / "model")), pairs, case / "run", options, case / "own", label="own")
        return capsys.readouterr().err

    assert "trained already" not in run()
    if what == "pixels":
        for path in (case / "run" / "images").rglob("*.png"):
            Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    elif what == "processor":
        path = case / "model" / "processor_config.json"
        settings = json.loads(path.read_text())
        settings["image_processor"]["image_mean"] = [0.1, 0.1, 0.1]
        path.write_text(json.dumps(settings))
    elif what == "version":
        monkeypatch.setattr("clinalign.__version__", "9.9.9")
    elif what != "nothing":
        resuming.change(case, what, random.Random(0))
    assert ("trained already" in run()) == (what == "nothing")


def not_evaluated(case: Path) -> None:
    (case / "run" / "outcomes.parquet").unlink()
    (case / "run" / "journals" / "evaluate.journal").unlink()


def test_another_setting_of_one_system_keeps_the_outcomes_of_the_others(
    case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The journal holds base and firempo when the run is killed; only firempo's rows are of another key then."""
    from clinalign.measuring import measure

    not_evaluated(case)
    limited = measure.limited
    calls: list[str] = []

    def dying(examples: list, limit: int) -> list:
        calls.append("limited")
        if len(calls) == 9:  # of the third system's first
            raise KeyboardInterrupt
        return limited(examples, limit)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(measure, "limited", dying)
        go(case, patch)
    capsys.readouterr()
    go(case, monkeypatch, "align.lr=0.004")
    said = capsys.readouterr().err
    kept, stale = 12 + 12 + 12, 12 + 12 + 12  # answers, answers without the image, margins
    assert f"evaluate: {kept} rows kept from before, {stale} of other keys made anew" in said


def test_a_run_folder_in_use_is_refused(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from storage.test_owner import holder

    process = holder(case / "run")
    part = case / "run" / "images" / ".x.png.1.2.part"
    part.write_text("being written")
    with pytest.raises(UsageError, match=f"run: in use by process {process.pid}"):
        go(case, monkeypatch)
    assert part.exists(), "another's partial file"
    process.kill()
    process.wait()
    go(case, monkeypatch)
    assert not part.exists() and not (case / "run" / ".lock").exists()


def test_merge_leaves_anothers_partial_folder_and_a_running_owner_alone(
    case: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from storage.test_owner import holder

    from clinalign.merge import merge

    monkeypatch.chdir(case)
    process = holder(case / "run")
    for part in (case / ".merged.part", case / "run" / ".x.part"):
        part.mkdir()
    merge(Path("run"), Path("merged"))
    assert (case / "merged" / "config.json").is_file()
    assert (case / ".merged.part").is_dir() and (case / "run" / ".x.part").is_dir()
    (case / "run" / "run.json").write_text('{"stages": {')
    with pytest.raises(UsageError, match="not valid JSON"):
        merge(Path("run"), Path("again"))
    process.kill()
    process.wait()


def test_no_verdict_on_any_answer_still_has_a_page(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from clinalign.measuring import measure
    from clinalign.pages import print_table

    judged = measure.judged
    monkeypatch.setattr(
        measure, "judged", lambda *args, **named: replace(judged(*args, **named), correct=None, reason="no_verdict")
    )
    not_evaluated(case)
    go(case, monkeypatch)
    print_table(case / "run")
    summary = json.loads((case / "run" / "evaluation" / "summary.json").read_text())
    assert summary["systems"]["base"]["counts"]["not_judged"] == 12
    assert (case / "run" / "report.html").stat().st_mtime > (case / "run" / "outcomes.parquet").stat().st_mtime


@pytest.mark.parametrize("fault", ["raises", "memory", "not finite"])
def test_a_picture_that_cannot_be_drawn_costs_itself_alone(
    fault: str, case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from clinalign.measuring import pictures

    look, seen = pictures.look, []

    def failing(vlm, example, folder, texts):
        seen.append(example.id)
        if example.id != seen[0]:
            return look(vlm, example, folder, texts)
        if fault == "raises":
            raise ZeroDivisionError("no pixel is shown")
        if fault == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory")
        found = look(vlm, example, folder, texts)
        return found | {"logps": {name: (at, [float("nan")] * len(v)) for name, (at, v) in found["logps"].items()}}

    monkeypatch.setattr(pictures, "look", failing)
    (case / "run" / "evaluation" / "pictures.json").unlink()
    go(case, monkeypatch)
    drawn = json.loads((case / "run" / "evaluation" / "pictures.json").read_text())["examples"]
    assert seen[0] not in drawn and len(drawn) == len(set(seen)) - 1 > 0
    assert f"pictures: example '{seen[0]}' is left out" in capsys.readouterr().err


def test_a_file_that_a_setting_names_counts_by_its_content(
    case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stages behind it are not waited for."""

    def stop(run: Run) -> None:
        raise KeyboardInterrupt

    (own_data(case) / "key").write_bytes(b"another key")
    before = file_hash(case / "run" / "examples.parquet")
    capsys.readouterr()
    monkeypatch.setattr("clinalign.run.warmup", stop)
    with pytest.raises(KeyboardInterrupt):
        go(case, monkeypatch)
    assert "ingest: done already" not in capsys.readouterr().err
    assert file_hash(case / "run" / "examples.parquet") != before, "other pseudonyms"
