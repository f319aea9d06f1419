"""Ray's workers give what one process gives: the same bytes in every table, whoever dies and whoever goes on."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import resuming

from clinalign.engine import MISSING, EngineOptions, check_engine, held
from clinalign.errors import RowError, UsageError
from clinalign.folder import Run
from clinalign.preflight.settings import setting_findings
from clinalign.recipe import Recipe, load_recipe
from clinalign.run import execute
from clinalign.storage import file_hash
from clinalign.workers import Workers

RAY = ("engine.kind=ray", "engine.workers=2")
SPREAD = ("answer", "pair", "corrupt", "evaluate")
"""Stages whose groups the engine works on."""
MADE = (
    "answers.parquet", "pairs.parquet", "corrupted_pairs.parquet", "outcomes.parquet", "measurements.parquet",
    "quarantine.jsonl", "corpus.json", "corrupted/index.jsonl", "manifests/corrupt.sha256", "evaluation/summary.json",
)  # fmt: skip


# Without starting Ray


def test_an_engine_that_is_not_installed_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else there(name, *more))
    with pytest.raises(UsageError, match=r"pip install 'clinalign\[ray\]'"):
        check_engine(EngineOptions(kind="ray"))
    check_engine(EngineOptions())
    recipe = Recipe.model_validate({"engine": {"kind": "ray"}})
    assert [one.text for one in setting_findings(recipe) if one.field == "engine.kind"] == [MISSING]


def test_options_of_the_engine(tmp_path: Path) -> None:
    assert Recipe().engine == EngineOptions(kind="local", workers=2, gpus=0, address="")
    (tmp_path / "recipe.yaml").write_text("engine: {kind: vllm}\n")
    with pytest.raises(UsageError, match=r"engine\.kind: Input should be 'local' or 'ray'"):
        load_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(UsageError, match=r"engine\.workers"):
        load_recipe(tmp_path / "recipe.yaml", ["engine.kind=ray", "engine.workers=0"])
    with pytest.raises(UsageError, match=r"workers without GPUs cannot use device cuda; set engine\.gpus=1"):
        load_recipe(tmp_path / "recipe.yaml", ["engine.kind=ray", "device=cuda"])
    with pytest.raises(
        UsageError, match=r"a worker sees its own GPU alone, as number 0, and no cuda:1; set device=auto"
    ):
        load_recipe(tmp_path / "recipe.yaml", ["engine.kind=ray", "engine.gpus=1", "device=cuda:1"])
    for device in ("cuda", "cuda:0"):
        given = ["engine.kind=ray", "engine.gpus=0.5", f"device={device}"]
        assert load_recipe(tmp_path / "recipe.yaml", given).engine.gpus == 0.5


def test_one_process_is_map(tmp_path: Path) -> None:
    assert Run(Recipe(), tmp_path / "run").each is map


def test_a_model_is_kept_until_another_is_asked_for() -> None:
    loads: list[int] = []

    def load(number: int) -> list[int]:
        loads.append(number)
        return [number]

    assert held("a", load, 1) is held("a", load, 1)
    assert held("b", load, 2) == [2] and held("a", load, 3) == [3] and loads == [1, 2, 3]


def test_what_is_wrong_with_a_row_travels() -> None:
    one = pickle.loads(pickle.dumps(RowError("images", "missing_image", "add it", path="x.png")))
    assert (one.field, one.reason, one.detail, one.path) == ("images", "missing_image", "add it", "x.png")
    assert str(one) == "images: missing_image (add it)"


# On Ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine, for all tests: it takes long to start."""
    before = signal.getsignal(signal.SIGTERM)
    starter = Workers(EngineOptions(kind="ray", workers=2), Path("none"))
    import ray

    starter._start()
    assert signal.getsignal(signal.SIGTERM) is before
    yield
    starter.close()
    assert not ray.is_initialized()


@pytest.fixture
def workers(cluster: None, tmp_path: Path) -> Iterator[Workers]:
    found = Workers(EngineOptions(kind="ray", workers=2), tmp_path)
    yield found
    processes = [int(name.partition("/")[2]) for name in found.processes.values()]
    assert processes
    found.close()
    assert not any(Path(f"/proc/{process}").exists() for process in processes)  # what they held is free at once


def dying(mark: Path, at: int, item: int) -> list[int]:
    """An item and its process, which ends hard at one of them where the mark is none yet."""
    if item == at and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return [item, os.getpid()]


@pytest.mark.slow
def test_a_worker_that_dies_loses_nothing(workers: Workers, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = list(workers.each(partial(dying, tmp_path / "mark", 7), iter(range(20))))
    assert [item for item, _ in found] == list(range(20))
    assert (tmp_path / "mark").exists() and capsys.readouterr().err.count("what it had in hand is done again") == 1
    before = {process for _, process in found}
    while workers.away:  # it was started again, in the place of the one that died
        list(workers.each(lambda item: item, range(2)))
    assert len({int(name.partition("/")[2]) for name in workers.processes.values()} | before) == 3


NODES = """
import time
from pathlib import Path
from ray.cluster_utils import Cluster
from clinalign.engine import EngineOptions
from clinalign.workers import Workers
def slow(item):
    time.sleep(0.2)
    return item
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100 << 20})
two = [nodes.add_node(num_cpus=1, object_store_memory=100 << 20) for _ in range(2)]
workers = Workers(EngineOptions(kind="ray", workers=2, address=nodes.address), Path())
got = []
try:
    for result in workers.each(slow, range(20)):
        got.append(result)
        if result == 2:
            nodes.remove_node(two[0], allow_graceful=False)
    print("FOUND", got == list(range(20)), len(workers.away))
finally:
    workers.close()
    nodes.shutdown()
"""


@pytest.mark.slow
def test_a_node_that_does_not_come_back_is_not_waited_for(tmp_path: Path) -> None:
    """A cluster of three nodes, here, that asks for a key; one of the two with a place for a worker is taken away."""
    key = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "k" * 64, "PYTHONPATH": os.pathsep.join(sys.path)}
    call = [sys.executable, "-c", NODES]
    ended = subprocess.run(call, cwd=tmp_path, env=os.environ | key, capture_output=True, text=True, timeout=600)
    assert "FOUND True 1" in ended.stdout, ended.stderr
    assert "a worker died; what it had in hand is done again" in ended.stderr and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_group_that_no_worker_outlives_ends_the_run(workers: Workers, capsys: pytest.CaptureFixture[str]) -> None:
    def deadly(item: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UsageError, match=r"4 workers died over the same rows \(1\); give each more memory"):
        list(workers.each(deadly, [1]))
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_results_come_in_order_and_not_far_ahead(workers: Workers) -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for number in range(40):
            asked.append(number)
            yield number

    def slow_first(item: int) -> Iterator[int]:
        time.sleep(0.5 if item == 0 else 0.0)
        yield from (item, item * item)

    results = workers.each(slow_first, items())
    assert list(next(results)) == [0, 0] and len(asked) <= 9
    assert [list(one) for one in results] == [[n, n * n] for n in range(1, 40)]


@pytest.mark.slow
def test_refusals_errors_and_words_of_workers_arrive(workers: Workers, capsys: pytest.CaptureFixture[str]) -> None:
    from clinalign.progress import say

    def refusing(item: int) -> int:
        say(f"at {item}")
        if item == 3:
            raise UsageError("out of memory; lower it")
        return item

    got: list[int] = []
    with pytest.raises(UsageError, match="^out of memory; lower it$"):
        got.extend(workers.each(refusing, range(3, 5)))
    assert "at 3" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError) as missing:
        list(workers.each(lambda item: Path(item).read_text(), ["nowhere"]))
    assert missing.value.filename == "nowhere" and "Ray" not in type(missing.value).__name__
    with pytest.raises(ZeroDivisionError):
        list(workers.each(lambda item: 1 // item, [1, 0]))
    assert list(workers.each(lambda item: item, [5])) == [5]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of the tiny recipe in one process."""
    case = resuming.build(tmp_path_factory.mktemp("ray") / "case")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clinalign.pages.report.write_figures", lambda *given: [])
        go(case, patch)
    return case


def go(case: Path, patch: pytest.MonkeyPatch, *overrides: str, change: Callable[[Run], None] | None = None) -> None:
    patch.chdir(case)
    patch.setenv("CLINALIGN_CACHE", "cache")
    run = Run(load_recipe("recipe.yaml", ["compare={}", "align.max_steps=1", *overrides]), Path("run"), resume=True)
    if change is not None:
        change(run)
    execute(run)


def undone(case: Path, folder: Path) -> Path:
    """A copy of a run whose `SPREAD` stages are still to be done; what lies between them is not trained again where it
    is given the same."""
    copy = Path(shutil.copytree(case, folder / "case", ignore=shutil.ignore_patterns("data")))
    (copy / "data").symlink_to(case / "data")
    run = copy / "run"
    state = json.loads((run / "run.json").read_text())
    for stage in SPREAD:
        del state["stages"][stage]
    (run / "run.json").write_text(json.dumps(state))
    for name in MADE:
        (run / name).unlink()
    for name in ("corrupted", "journals", "evaluation"):
        shutil.rmtree(run / name)
    return copy


def made(case: Path) -> dict[str, str]:
    found = {name: file_hash(case / "run" / name) for name in MADE}
    assert all(found.values())
    return found


@pytest.mark.slow
def test_every_table_is_the_same_and_a_killed_worker_changes_nothing(
    cluster: None, case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """In each of the four stages a worker is killed hard while groups are in hand, or to be given out."""
    import ray

    killed: list[int] = []
    monkeypatch.setattr("clinalign.pages.report.write_figures", lambda *given: [])

    def deadly(run: Run) -> None:
        assert run.workers is not None
        each, workers = run.workers.each, run.workers

        def killing(function: Any, items: Iterable[Any], /) -> Iterator[Any]:
            [stage] = [name for name in SPREAD if name not in run.state["stages"]][:1]
            for number, result in enumerate(each(function, items)):
                if number == 0 and stage not in seen:
                    seen.add(stage)
                    there = [int(name.partition("/")[2]) for name in workers.processes.values()]
                    killed.append(next(process for process in there if Path(f"/proc/{process}").exists()))
                    os.kill(killed[-1], signal.SIGKILL)
                yield result

        seen: set[str] = set()
        monkeypatch.setattr(run.workers, "each", killing)

    other = undone(case, tmp_path)
    go(other, monkeypatch, *RAY, change=deadly)
    assert len(set(killed)) == len(SPREAD)
    assert made(other) == made(case)
    said = capsys.readouterr().err
    assert "align:firempo: done already" in said and "recipe changed" not in said
    assert ray.is_initialized()


@pytest.mark.slow
@pytest.mark.parametrize("first", ["local", "ray"])
def test_what_one_engine_began_the_other_ends(
    cluster: None, first: str, case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("clinalign.pages.report.write_figures", lambda *given: [])
    other = undone(case, tmp_path)
    calls = 0

    def add(self: Any, records: Any) -> None:
        nonlocal calls
        calls += bool(records)
        if calls == 3:
            raise KeyboardInterrupt
        keep(self, records)

    from clinalign.storage import Journal

    keep = Journal.add
    monkeypatch.setattr(Journal, "add", add)
    engines = {"local": (), "ray": RAY}
    with pytest.raises(KeyboardInterrupt):
        go(other, monkeypatch, *engines[first])
    monkeypatch.setattr(Journal, "add", keep)
    capsys.readouterr()
    go(other, monkeypatch, *engines["ray" if first == "local" else "local"])
    assert "rows kept from before, 0 of other keys made anew" in capsys.readouterr().err
    assert made(other) == made(case)


def descendants(mark: str) -> list[str]:
    """What still runs of a command that has this text in its environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (place / "environ").read_bytes():
                found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["term", "ctrl-c"])
def test_a_command_that_is_broken_off_ends_ray_with_it(how: signal.Signals, case: Path, tmp_path: Path) -> None:
    """The command starts Ray itself, which leaves nothing in the home folder, its key least of all."""
    other, mark = undone(case, tmp_path), f"MARK_{os.getpid()}_{how}"
    call = [sys.executable, "-m", "clinalign.cli", "run", "recipe.yaml", "compare={}", "align.max_steps=1", *RAY]
    (home := tmp_path / "home").mkdir()
    given = {mark: "1", "CLINALIGN_CACHE": "cache", "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(home)}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | given
    process = subprocess.Popen(
        [*call, "--out", "run", "--resume"], cwd=other, env=environment, stdout=PIPE, stderr=PIPE, text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # the background of a shell ignores it
    )  # fmt: skip
    journal = other / "run" / "journals" / "answer.journal"
    while process.poll() is None and not (journal.is_file() and journal.stat().st_size):
        time.sleep(0.01)
    assert any("ray::Worker" in name for name in descendants(mark))
    process.send_signal(how)
    out, errors = process.communicate()
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[how], errors
    assert out == "" and "--resume goes on from here" in errors and "Traceback" not in errors
    deadline = time.monotonic() + 60
    while descendants(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert descendants(mark) == [] and not (home / ".ray").exists()
