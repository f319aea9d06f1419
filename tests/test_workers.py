"""How groups are given to workers, whoever of them is lost: Ray's calls are played here, no worker starts."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinalign import engine
from clinalign import workers as module
from clinalign.engine import EngineOptions, Result, Worker, held, versions
from clinalign.errors import UsageError
from clinalign.records import Example
from clinalign.workers import AHEAD, DEATHS, MARK, Workers


class Actor:
    """A worker and what it has in hand; it works when Ray is waited for."""

    def __init__(self, ray: PlayedRay, number: int) -> None:
        self.ray, self.number, self.lives, self.queue = ray, number, 0, list[tuple[str, Any]]()
        self.dead = False
        self.ready = SimpleNamespace(options=lambda **more: SimpleNamespace(remote=self._probe))
        self.work = SimpleNamespace(remote=self._work)

    def _work(self, number: int, sent: list[Any], item: Any) -> str:
        reference = self.ray.new()
        if self.dead:
            self.ray.found[reference] = self.ray.lost()
        else:
            self.queue.append((reference, item))
        self.ray.sent[item] += 1
        return reference

    def _probe(self) -> str:
        reference = self.ray.new()
        self.ray.probes[reference] = self
        return reference


class PlayedRay:
    """Ray's calls. `kills`: how often an item ends whoever works on it; `gone`: workers that are not started again, for
    ever or with an error; `draw` chooses who is next."""

    def __init__(
        self, function: Any, kills: dict[Any, int], gone: dict[int, Exception | None], draw: Iterator[int]
    ) -> None:
        self.function, self.kills, self.gone, self.draw = function, Counter(kills), gone, draw
        self.found: dict[str, Any] = {}
        self.probes: dict[str, Actor] = {}
        self.sent: Counter[Any] = Counter()
        self.actors: list[Actor] = []
        self.references = 0

    def new(self) -> str:
        self.references += 1
        return f"r{self.references}"

    def lost(self) -> Exception:
        import ray

        return ray.exceptions.ActorUnavailableError("it died", None)

    def get(self, reference: str) -> Any:
        if isinstance(found := self.found[reference], Exception):
            raise found
        return found

    def wait(self, references: list[str], num_returns: int, timeout: float | None) -> tuple[list[str], list[str]]:
        while not any(reference in self.found for reference in references):
            if not self._step():
                assert timeout is not None, "the loop waits for ever"
                return [], references
        ready = [reference for reference in references if reference in self.found][:num_returns]
        return ready, [reference for reference in references if reference not in ready]

    def _step(self) -> bool:
        able: list[Any] = [actor for actor in self.actors if actor.queue]
        able += [
            name for name, actor in self.probes.items() if not (actor.dead and self.gone.get(actor.number, 1) is None)
        ]
        if not able:
            return False
        chosen = able[next(self.draw) % len(able)]
        if isinstance(chosen, str):
            actor = self.probes.pop(chosen)
            self.found[chosen] = (actor.dead and self.gone.get(actor.number)) or Result(f"n/{actor.lives}")
            actor.dead = False
            return True
        reference, item = chosen.queue.pop(0)
        if not self.kills[item]:
            self.found[reference] = Result(f"n/{chosen.lives}", self.function(item))
            return True
        self.kills[item] -= 1
        chosen.dead, chosen.lives = True, chosen.lives + 1
        for one in [reference, *(name for name, _ in chosen.queue)]:
            self.found[one] = self.lost()
        chosen.queue = []
        return True


def played(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    count: int = 2,
    kills: dict[Any, int] | None = None,
    gone: dict[int, Exception | None] | None = None,
    draw: Iterator[int] | None = None,
    function: Any = lambda item: item,
) -> tuple[Workers, PlayedRay]:
    import ray

    now = PlayedRay(function, kills or {}, gone or {}, draw or iter(range(10**9)))
    now.actors = [Actor(now, number) for number in range(count)]
    made = Workers(EngineOptions(kind="ray", workers=count), folder)
    made.actors = list(now.actors)
    for name in ("get", "wait"):
        monkeypatch.setattr(ray, name, getattr(now, name))
    monkeypatch.setattr(ray, "put", lambda value: "function")
    return made, now


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_results_are_those_of_map_whoever_dies(data: Any) -> None:
    """Any number of workers, any order in which they come, any groups over which at most `DEATHS` of them die."""
    count, items = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 25))
    kills = data.draw(st.dictionaries(st.integers(0, 24), st.integers(1, DEATHS), max_size=4))
    order = data.draw(st.randoms(use_true_random=False))
    asked = 0

    def handed_out() -> Iterator[int]:
        nonlocal asked
        for asked in range(1, items + 1):  # noqa: B007
            yield asked - 1

    with pytest.MonkeyPatch.context() as patch:
        draw = iter(lambda: order.randrange(10**6), None)
        made, ray = played(patch, Path("none"), count, kills, draw=draw, function=lambda item: -item)
        got: list[int] = []
        for result in made.each(lambda item: item, handed_out()):
            assert asked - len(got) <= AHEAD * count
            got.append(result)
    assert got == [-item for item in range(items)]


def test_a_group_that_no_worker_outlives_is_named_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind it in the same hands another group is lost as often, and is not to blame. The item is what kills."""
    made, ray = played(monkeypatch, tmp_path, kills={3: 99})
    got: list[int] = []
    with pytest.raises(UsageError, match=r"engine: 4 workers died over the same rows \(3\); give each more memory"):
        got.extend(made.each(lambda item: item, range(20)))
    assert got == [0, 1, 2] and ray.sent[3] == DEATHS + 1
    assert capsys.readouterr().err.count("a worker died; what it had in hand is done again") == DEATHS + 1


def test_nobody_waits_for_a_worker_that_does_not_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its node is gone and no other has a place for it: the others do what it had in hand."""
    made, ray = played(monkeypatch, tmp_path, kills={1: 1}, gone={0: None, 1: None})
    assert list(made.each(lambda item: item, range(30))) == list(range(30))
    assert len(made.away) == 1
    assert list(made.each(lambda item: item, range(30))) == list(range(30))  # nor does the next stage


def test_no_worker_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, ray = played(monkeypatch, tmp_path, kills={1: 1, 4: 1}, gone={0: None, 1: None})
    with pytest.raises(UsageError, match=r"no worker came back in 1800 s; the same command goes on from here"):
        list(made.each(lambda item: item, range(30)))


def test_workers_that_cannot_be_started_again_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    error = ray.exceptions.RayActorError(error_msg="It died of its start:\n  File x\nNo module named 'clinalign'")
    made, _ = played(monkeypatch, tmp_path, kills={1: 1}, gone={0: error, 1: error})
    assert list(made.each(lambda item: item, range(30))) == list(range(30))
    assert "cannot be started again (No module named 'clinalign'); 1 are left" in capsys.readouterr().err
    made, _ = played(monkeypatch, tmp_path, kills={1: 1, 4: 1}, gone={0: error, 1: error})
    with pytest.raises(UsageError, match=r"no worker is left \(No module named 'clinalign'\)"):
        list(made.each(lambda item: item, range(30)))


def test_a_worker_that_died_between_two_stages_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made, ray = played(monkeypatch, tmp_path)
    assert list(made.each(lambda item: item, range(6))) == list(range(6))
    ray.actors[1].lives += 1
    assert list(made.each(lambda item: item, range(6))) == list(range(6))
    assert capsys.readouterr().err == "engine: a worker died with nothing in hand and was started again\n"


def test_nothing_to_work_on_starts_nothing(tmp_path: Path) -> None:
    made = Workers(EngineOptions(kind="ray"), tmp_path)
    assert list(made.each(lambda item: item, [])) == [] and made.actors == [] and not list(tmp_path.iterdir())


def test_a_worker_that_does_not_start_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    error = ray.exceptions.RayActorError(error_msg="It died of its start:\n  File x\nNo module named 'clinalign'")
    made, now = played(monkeypatch, tmp_path, gone={0: error})
    now.actors[0].dead, made.actors = True, []
    starting = iter(now.actors)
    kind = SimpleNamespace(options=lambda **more: SimpleNamespace(remote=lambda *more: next(starting)))
    monkeypatch.setattr(ray, "remote", lambda worker: kind)
    monkeypatch.setattr(made, "_start", lambda: None)
    with pytest.raises(UsageError, match=r"^engine: a worker did not start \(No module named 'clinalign'\); install"):
        list(made.each(lambda item: item, range(3)))
    assert (tmp_path / MARK).is_file()
    monkeypatch.setattr(ray, "kill", lambda actor: None)
    made.close()
    assert not list(tmp_path.iterdir())


def test_workers_that_wait_for_their_places_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    made, now = played(monkeypatch, tmp_path, gone={1: None})
    now.actors[1].dead = True
    clock = iter(range(0, 10**6, 600))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0, "memory": 5.0})
    with pytest.raises(UsageError, match=r"engine\.workers: 2 with 0 GPUs each did not start .* has \{'CPU': 1\.0\}"):
        made._placed([actor._probe() for actor in now.actors])
    assert "engine: 1 of 2 workers have started; waiting for the others" in capsys.readouterr().err


def test_a_cluster_that_refuses_says_all_of_it_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refusing(address: str, **more: Any) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.50.0\n    Python: 3.12.1")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refusing)
    made = Workers(EngineOptions(kind="ray", address="head:6379"), tmp_path)
    with pytest.raises(UsageError) as refused:
        list(made.each(lambda item: item, [1]))
    assert str(refused.value) == (
        "engine.address: head:6379: no cluster can be reached: Version mismatch: The cluster was started with: "
        "Ray: 2.50.0 Python: 3.12.1"
    )


def test_what_ray_had_started_when_it_gave_up_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine its node times out; without an end the three tries lie on top of each other."""
    import ray

    ended: list[dict[str, bool]] = []

    class Node:
        def __init__(self) -> None:
            raise RuntimeError("timed out during startup")

        def kill_all_processes(self, **how: bool) -> None:
            ended.append(how)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda address, **more: Node())
    with pytest.raises(UsageError, match="Ray did not start here: timed out during startup"):
        Workers(EngineOptions(kind="ray"), tmp_path)._start()
    assert ended == [{"check_alive": False, "allow_graceful": False}] * module.STARTS


def test_a_signal_while_ray_starts_is_the_commands_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting takes half a minute and more on a busy machine."""
    import ray

    came: list[str] = []

    def starting(address: str, **more: Any) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: came.append("Ray's"))
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", starting)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    before, setting = signal.signal(signal.SIGTERM, lambda number, frame: came.append("ours")), signal.signal
    try:
        Workers(EngineOptions(kind="ray"), tmp_path)._start()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == ["ours"] and signal.signal is setting


def test_shares_of_a_gpu_lie_on_one(tmp_path: Path) -> None:
    """Of 2 GPUs each has a place for one share of 0.6: 2 workers, though 2 / 0.6 is 3."""
    assert [module._enough_for(2, share) for share in (1, 0.6, 0.5, 1 / 3, 0.1)] == [2, 2, 4, 6, 20]
    assert module._enough_for(0, 1) == 0 and module._enough_for(0, 0) > 10**9
    with pytest.raises(ValueError, match="less than or equal to 1"):
        EngineOptions(kind="ray", gpus=2)


def test_a_key_of_its_own_where_ray_is_started_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would write one into the home folder; a cluster has its own."""
    monkeypatch.setattr(os, "environ", {"RAY_AUTH_TOKEN": "the user's"})
    Workers(EngineOptions(kind="ray"), tmp_path)
    assert os.environ["RAY_AUTH_TOKEN"] == "the user's"
    monkeypatch.setattr(os, "environ", {})
    Workers(EngineOptions(kind="ray", address="auto"), tmp_path)
    assert "RAY_AUTH_TOKEN" not in os.environ and "RAY_AUTH_MODE" not in os.environ
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    Workers(EngineOptions(kind="ray"), tmp_path)
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64 and os.environ["RAY_AUTH_MODE"] == "token"


def test_rows_of_a_group_are_named() -> None:
    examples = [Example(f"e{n}", [], "q", "a") for n in range(3)]
    assert module._named(examples) == "e0 to e2, 3 in all" and module._named(examples[1]) == "e1"
    answered = [(SimpleNamespace(example_id=f"a{n}"), None) for n in range(2)]
    assert module._named(answered) == "a0 to a1, 2 in all" and module._named(7) == "7" and module._named([]) == ""


def test_a_worker_that_is_not_where_the_run_is_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the same name on a disk of its own, left by another run, is not the run's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ) | {"RANK": "0", "WORLD_SIZE": "2"})
    monkeypatch.setattr(sys, "path", list(sys.path))
    mark, same = tmp_path / MARK, versions()
    mark.write_text("token")
    worker = Worker(same, str(tmp_path), mark, "token", ["/own"], {"HF_HUB_OFFLINE": "1"})
    assert worker.ready().refused == ""
    assert os.environ["HF_HUB_OFFLINE"] == "1" and "RANK" not in os.environ and sys.path[-1] == "/own"
    unseen = f"does not see {tmp_path} as the run does; put the run folder"
    for worker, text in (
        (Worker(same, str(tmp_path / "elsewhere"), mark, "token", [], {}), unseen),
        (Worker(same, str(tmp_path), tmp_path / "none", "token", [], {}), unseen),
        (Worker(same, str(tmp_path), mark, "another run's", [], {}), unseen),
        (
            Worker(same | {"clinalign": "0.0.9"}, str(tmp_path), mark, "token", [], {}),
            "the run 0.0.9; install the same",
        ),
        (
            Worker(same | {"torch": "1.0"}, str(tmp_path), mark, "token", [], {}),
            f"has torch {same['torch']}, the run 1.0",
        ),
        (
            Worker({**versions(), "vllm": "0.33"}, str(tmp_path), mark, "token", [], {}),
            "has vllm not installed, the run 0.33; install the same on all nodes",
        ),
    ):
        assert text in worker.ready().refused and worker.work(1, [], 3).refused == worker.ready().refused


def test_a_worker_lets_go_of_what_it_held_before_it_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that it began, vLLM's, ends with what held it; one that is at work is not waited for."""
    said: list[str] = []
    actor = SimpleNamespace(forget=SimpleNamespace(remote=lambda: said.append("forget")))
    ray = SimpleNamespace(wait=lambda *given, **more: said.append("wait"), kill=lambda one: said.append("kill"))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    workers = Workers(EngineOptions(kind="ray"), tmp_path)
    monkeypatch.setitem(sys.modules, "ray", ray)
    for more, wanted in (({}, ["forget", "wait", "kill"]), ({"idle": False}, ["kill"])):
        said.clear()
        workers.actors = [actor]
        workers.release(**more)
        assert said == wanted and not workers.actors

    worker = Worker({}, str(tmp_path), tmp_path / "none", "", [], {})
    worker.number, worker.function = 3, held("a key", lambda: len)
    worker.forget()
    assert (worker.number, worker.function, engine._HELD) == (0, None, {})
