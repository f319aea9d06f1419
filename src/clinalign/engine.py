"""Where the groups of a stage are worked on: in this process, one behind the other, or on the workers of Ray.

A stage hands a function and its items to `each` and gets the results in the order of the items, as from `map`, which
is the engine of one process. Whatever is written, journal, tables, quarantine, is written here, by whoever asked;
workers make results (and images under names that are their content). What a function computes must hang on its item
alone, so that who computed it, and how often, leaves no trace.

On Ray each worker is an actor. It unpickles a function once for all of its items; a model in it travels as what it was
loaded from (`held`), and is loaded once. A worker that dies is started again by Ray, elsewhere if its node is gone, and
what it had in hand is done again.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import platform
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

import clinalign
from clinalign.errors import UsageError, first_line
from clinalign.progress import heard, say

Item = TypeVar("Item")
T = TypeVar("T")


class Each(Protocol):
    """Results of a function by item, in the order of the items; `map` is one. An iterator that the function gives is to
    be run through before the next result is asked for: here it works as it is read, a worker has read it already."""

    def __call__(self, function: Callable[[Item], T], items: Iterable[Item], /) -> Iterator[T]: ...


class EngineOptions(BaseModel):
    """Where questions are asked, answers edited, images corrupted and systems measured. No number rests on it."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    kind: Literal["local", "ray"] = Field("local", description="local: this process; ray: workers of Ray (extra `ray`)")
    workers: int = Field(2, ge=1, description="ray: processes side by side, each with a model of its own")
    gpus: float = Field(0.0, ge=0, description="ray: GPUs, or share of one, of each worker; 0: they compute on the CPU")
    address: str = Field(
        "",
        description="ray: a running cluster (HOST:PORT, auto); empty: started on this machine for the run",
    )


MISSING = "engine.kind: Ray is not installed; install it with: pip install 'clinalign[ray]', or set engine.kind=local"
STORE = 256 << 20
"""Bytes of Ray's object store where it is started here: what lies in it are functions and groups of rows, no tables."""
STARTS, DEATHS = 3, 3
"""Ray's start is tried so often (it gives up on a machine that is busy); a group is given to so many more workers."""
PATIENCE_S = 1800.0
"""How long a worker may take to get its place on a cluster and to start."""
AHEAD = 4
"""Groups a worker that may be finished before an earlier one is."""
OURS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "HF_HUB_OFFLINE", "HF_HOME", "TOKENIZERS_PARALLELISM", "CLINALIGN_CACHE")
"""What of this process's environment workers take over."""


def check_engine(options: EngineOptions) -> None:
    """Raises `UsageError` for an engine that is not installed."""
    if options.kind == "ray" and importlib.util.find_spec("ray") is None:
        raise UsageError(MISSING)


class Workers:
    """Ray's workers, started when the first function is given to them; `seen` is a file that each of them must see."""

    def __init__(self, options: EngineOptions, seen: Path) -> None:
        check_engine(options)
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}  # its words go to stdout else
        self.options, self.seen = options, seen.absolute()
        self.actors: list[Any] = []
        self.processes: dict[Any, str] = {}
        self.started = False
        self.functions = 0

    def each(self, function: Callable[[Item], T], items: Iterable[Item], /) -> Iterator[T]:
        """As `Each`, over the workers. Raises what the function raises, and `UsageError` for a group that no worker
        outlives."""
        import ray
        from ray import cloudpickle

        actors = self._ready()
        self.functions += 1
        number, sent = self.functions, [ray.put(cloudpickle.dumps(function))]
        waiting = iter(items)
        idle = deque(2 * actors)  # the next group is there before one is done
        flying: dict[Any, tuple[int, Any]] = {}
        done: dict[int, T] = {}
        begun = given = 0
        while True:
            while idle and begun - given < AHEAD * len(actors) and (item := next(waiting, self)) is not self:
                actor = idle.popleft()
                flying[actor.work.remote(number, sent, item)] = begun, actor
                begun += 1
            if not flying:
                return
            [first], _ = ray.wait(list(flying), num_returns=1)
            place, actor = flying.pop(first)
            idle.append(actor)
            done[place] = self._result(first, actor)
            while given in done:
                given += 1
                yield done.pop(given - 1)

    def _result(self, reference: Any, actor: Any) -> Any:
        import ray

        try:
            found: Result = ray.get(reference)
        except ray.exceptions.RayActorError as error:
            raise UsageError(
                f"engine: {DEATHS + 1} workers died over the same rows ({first_line(error)}); give each more memory "
                f"(fewer engine.workers, a smaller batch_size)"
            ) from None
        except ray.exceptions.RayTaskError as error:  # what the function raised; a full disk is no error of ours
            raise (error.cause if isinstance(error.cause, OSError) else error) from None
        except ray.exceptions.RayError as error:
            raise UsageError(f"engine: Ray gave up ({first_line(error)}); the same command goes on from here") from None
        if self.processes.setdefault(actor, found.process) != found.process:
            self.processes[actor] = found.process
            say("engine: a worker died and was started again; what it had in hand was done again")
        for line in found.said:
            say(line)
        if found.refused:
            raise UsageError(found.refused)
        return found.value

    def _ready(self) -> list[Any]:
        """The workers, with their place on the cluster and what they need to see."""
        if self.actors:
            return self.actors
        import ray
        import torch

        self._start()
        options = self.options
        environment = {name: os.environ[name] for name in OURS if name in os.environ}
        environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # sums are in the same order then
        environment |= {} if options.gpus else {"CUDA_VISIBLE_DEVICES": ""}
        kind = ray.remote(Worker).options(
            num_cpus=1,
            num_gpus=options.gpus,
            max_restarts=-1,
            max_task_retries=DEATHS,
            scheduling_strategy="SPREAD",
        )
        given = (clinalign.__version__, os.getcwd(), self.seen, sys.path, environment)
        self.actors = [kind.remote(*given) for _ in range(options.workers)]
        try:
            refused = ray.get([actor.ready.remote() for actor in self.actors], timeout=PATIENCE_S)
        except ray.exceptions.GetTimeoutError:
            has = {name: n for name, n in ray.cluster_resources().items() if name in ("CPU", "GPU")}
            raise UsageError(
                f"engine.workers: {options.workers} with {options.gpus:g} GPUs each did not start within "
                f"{PATIENCE_S:.0f} s; the cluster has {has}"
            ) from None
        if text := next(filter(None, refused), ""):
            raise UsageError(text)
        return self.actors

    def _start(self) -> None:
        """Connects to Ray, or starts it on this machine, unless this process has done so already."""
        import ray

        if ray.is_initialized():
            return
        address = self.options.address
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if not address:
            settings |= {"num_cpus": self.options.workers, "include_dashboard": False, "object_store_memory": STORE}
            settings |= {} if self.options.gpus else {"num_gpus": 0}
        for left in reversed(range(1 if address else STARTS)):
            try:
                with _signals_kept():
                    ray.init(address or "local", **settings)
                break
            except Exception as error:  # Ray raises plain ones
                ray.shutdown()
                if not left:
                    where = f"{address}: no cluster can be reached" if address else "Ray did not start here"
                    raise UsageError(f"engine.address: {where}: {first_line(error)}") from error
        self.started = True
        lacking = self.options.workers * self.options.gpus - ray.cluster_resources().get("GPU", 0)
        if not address and lacking > 0:
            raise UsageError(
                f"engine.gpus: {self.options.workers} workers with {self.options.gpus:g} GPUs each, {lacking:g} more "
                f"than there are; lower engine.workers, or give them shares"
            )

    def release(self) -> None:
        """Ends the workers, and gives back the memory and the GPUs that they hold."""
        actors, self.actors = self.actors, []
        if actors:
            import ray

            for actor in actors:
                with suppress(Exception):  # Ray itself may be gone
                    ray.kill(actor)

    def close(self) -> None:
        """Ends the workers and, where it was started here, Ray."""
        self.release()
        if self.started:
            import ray

            self.started = False
            ray.shutdown()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """What signals did before the block they do behind it; Ray takes SIGTERM for itself."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


class Result(NamedTuple):
    """What a worker made of an item, or why it refuses all of them; `said` is to be said where the run is."""

    process: str
    value: Any = None
    refused: str = ""
    said: tuple[str, ...] = ()


class Worker:
    """One process of Ray's. It works where the run does: in the same folder of a file system that both see."""

    def __init__(self, version: str, folder: str, seen: Path, paths: list[str], environment: dict[str, str]) -> None:
        sys.path += [path for path in paths if path not in sys.path]  # modules of the user's own
        os.environ |= environment
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):  # of the launcher that the run's first process has
            os.environ.pop(name, None)
        self.number, self.function = 0, None
        self.process = f"{platform.node()}/{os.getpid()}"
        self.refused = _not_shared(Path(folder), seen)
        if version != clinalign.__version__:
            here = f"{platform.node()} has clinalign {clinalign.__version__}"
            self.refused = f"engine: {here}, the run {version}; install the same on all nodes"

    def ready(self) -> str:
        """Why nothing can be worked on here; "" where it can."""
        return self.refused

    def work(self, number: int, sent: list[Any], item: Any) -> Result:
        """What the function with this number makes of an item; `sent` refers to the function in Ray's store."""
        if self.refused:
            return Result(self.process, refused=self.refused)
        with heard() as said:
            try:
                if number != self.number:
                    self._take(number, sent[0])
                    said.clear()  # of a model's loading: said where the run is, which loads it too
                value: Any = self.function(item)  # type: ignore[misc]
                value = list(value) if isinstance(value, Iterator) else value
                return Result(self.process, value, said=tuple(said))
            except UsageError as error:
                return Result(self.process, refused=str(error), said=tuple(said))

    def _take(self, number: int, reference: Any) -> None:
        import ray
        from ray import cloudpickle

        self.function = None
        gc.collect()
        self.function, self.number = cloudpickle.loads(ray.get(reference)), number


def _not_shared(folder: Path, seen: Path) -> str:
    """Goes to the folder that the run was started in; why that is not possible, "" where it is."""
    try:
        os.chdir(folder)
        if seen.is_file():
            return ""
    except OSError:
        pass
    return (
        f"engine: a worker on {platform.node()} does not see {seen}; put the run folder, the folder it is started in, "
        f"the model and the data on a file system that all nodes share"
    )


_HELD: dict[str, Any] = {}


def held(key: str, load: Callable[..., T], *given: Any) -> T:
    """What `load(*given)` gives, kept until another key is asked for: how a worker gets its model."""
    if key not in _HELD:
        _HELD.clear()
        gc.collect()
        _HELD[key] = load(*given)
    found: T = _HELD[key]
    return found
