"""The workers of Ray, started, given groups in order, and ended. A worker (`engine.Worker`) is an actor.

One that dies is started again by Ray, elsewhere if its node is gone. What it had in hand is done again by whoever is
free, so that nobody waits for a node that does not come back.
"""

from __future__ import annotations

import math
import os
import platform
import secrets
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from clinalign.engine import EngineOptions, Item, Result, T, Worker, check_engine, versions
from clinalign.errors import UsageError, first_line
from clinalign.progress import say

STORE = 256 << 20
"""Bytes of Ray's object store where it is started here: what lies in it are functions and groups of rows, no tables."""
STARTS, DEATHS = 3, 3
"""Ray's start is tried so often (it gives up on a machine that is busy); a group is given to so many more workers."""
PATIENCE_S = 1800.0
"""How long workers may take to get their places on a cluster and to start, and to come back when all are lost."""
SAY_S, GRACE_S, ENDING_S = 60.0, 10.0, 10.0
"""Seconds after which waiting is said; in which Ray tells what became of all that a lost worker had in hand; in which a
process that was killed is gone."""
AHEAD = 4
"""Groups a worker that may be finished before an earlier one is."""
MARK = ".workers.part"
"""A file of the run folder by which workers know that they see this one; its name is one that a run clears away."""
OURS = (
    "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MKL_CBWR", "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT",
    "TOKENIZERS_PARALLELISM", "TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS", "CLINALIGN_CACHE",
)  # fmt: skip
"""What of this process's environment workers take over; keys are not among it."""


class Lost(NamedTuple):
    """In place of a result: its worker was lost first; why, where Ray knows."""

    why: str


class Workers:
    """Ray's workers for the run in a folder, started when the first item is given to them."""

    def __init__(self, options: EngineOptions, folder: Path) -> None:
        check_engine(options)
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}  # its words go to stdout else
        if not options.address:  # who has no token reaches nobody; without one in its hands Ray writes one to the home
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            if "ray" not in sys.modules:
                os.environ.setdefault("RAY_AUTH_MODE", "token")
        self.options, self.mark, self.token = options, folder.absolute() / MARK, secrets.token_hex(16)
        self.actors: list[Any] = []
        self.away: dict[Any, Any] = {}
        """Lost workers that Ray starts again, by what tells that they are back."""
        self.processes: dict[Any, str] = {}
        self.started = False
        self.functions = 0

    def each(self, function: Callable[[Item], T], items: Iterable[Item], /) -> Iterator[T]:
        """As `Each`, over the workers. Raises what the function raises, and `UsageError` for a group that no worker
        outlives."""
        waiting = iter(items)
        if (first := next(waiting, self)) is self:
            return
        waiting = chain([first], waiting)  # type: ignore[list-item]
        self._ready()
        import ray
        from ray import cloudpickle

        self.functions += 1
        number, sent = self.functions, [ray.put(cloudpickle.dumps(function))]
        in_hand: dict[int, Item] = {}
        again: list[int] = []
        flying: dict[Any, tuple[int, Any]] = {}  # in the order of sending, which is the one they are worked on
        deaths: Counter[int] = Counter()
        done: dict[int, T] = {}
        begun = given = 0
        while True:
            for actor in _free(self.actors, [actor for _, actor in flying.values()], list(self.away.values())):
                if again:
                    place = again.pop(0)
                elif begun - given < AHEAD * len(self.actors) and (item := next(waiting, self)) is not self:
                    place, begun = begun, begun + 1
                    in_hand[place] = item  # type: ignore[assignment]
                else:
                    break
                flying[actor.work.remote(number, sent, in_hand[place])] = place, actor
            if not in_hand:
                return
            lost = self._ended(flying, done)
            again = sorted(again + lost)
            for place in lost[:1]:  # the one that was worked on; those behind it only waited
                deaths[place] += 1
                if deaths[place] > DEATHS:
                    raise UsageError(
                        f"engine: {DEATHS + 1} workers died over the same rows ({_named(in_hand[place])}); give each "
                        f"more memory (fewer engine.workers, a smaller batch_size), or leave the rows out"
                    )
            for place in done.keys() & in_hand.keys():
                del in_hand[place]
            while given in done:
                given += 1
                yield done.pop(given - 1)

    def _ended(self, flying: dict[Any, tuple[int, Any]], done: dict[int, Any]) -> list[int]:
        """Waits for a worker: its results go from `flying` to `done`. Gives the places that it lost, in the order in
        which it had them."""
        import ray

        ready, _ = ray.wait([*self.away, *flying], num_returns=1, timeout=None if flying else PATIENCE_S)
        if not ready:
            raise UsageError(f"engine: no worker came back in {PATIENCE_S:.0f} s; the same command goes on from here")
        if ready[0] in self.away:
            self._back(ready[0])
            return []
        actor = flying[ready[0]][1]
        found = {ready[0]: self._result(ready[0], actor)}
        if isinstance(found[ready[0]], Lost):
            its = [reference for reference, (_, whose) in flying.items() if whose is actor]
            known, _ = ray.wait(its, num_returns=len(its), timeout=GRACE_S)
            found = {reference: self._result(reference, actor) for reference in its if reference in known}
        lost = []
        for reference, result in found.items():
            place, _ = flying.pop(reference)
            if not isinstance(result, Lost):
                done[place] = result
                continue
            lost.append(place)
            if actor not in self.away.values():
                say(f"engine: a worker died{result.why}; what it had in hand is done again")
                self.away[actor.ready.options(max_task_retries=-1).remote()] = actor
        return lost

    def _result(self, reference: Any, actor: Any) -> Any:
        """What came of a group, or `Lost`."""
        import ray

        of = ray.exceptions
        try:
            found: Result = ray.get(reference)
        except (of.RayActorError, of.ObjectLostError, of.OutOfMemoryError, of.NodeDiedError) as error:
            return Lost(" (its node ran out of memory)" if isinstance(error, of.OutOfMemoryError) else "")
        except of.RayTaskError as error:  # what the function raised; a full disk is no error of ours
            raise (error.cause if isinstance(error.cause, OSError) else error) from None
        except of.RayError as error:
            raise UsageError(f"engine: Ray gave up ({first_line(error)}); the same command goes on from here") from None
        if self.processes.setdefault(actor, found.process) != found.process:
            self.processes[actor] = found.process
            say("engine: a worker died with nothing in hand and was started again")
        for line in found.said:
            say(line)
        if found.refused:
            raise UsageError(found.refused)
        return found.value

    def _back(self, reference: Any) -> None:
        """A lost worker that was started again, or cannot be."""
        actor = self.away.pop(reference)
        try:
            self._welcome(actor, reference)
        except Gone as error:
            self.actors.remove(actor)
            if not self.actors:
                raise UsageError(f"engine: no worker is left ({error}); the same command goes on from here") from None
            say(f"engine: a worker cannot be started again ({error}); {len(self.actors)} are left")

    def _welcome(self, actor: Any, reference: Any) -> None:
        """Raises `UsageError` for a worker that nothing can be worked on at, `Gone` for one that did not start."""
        import ray

        try:
            found: Result = ray.get(reference)
        except ray.exceptions.RayError as error:
            raise Gone(str(error).strip().splitlines()[-1][:300]) from None  # the last line of a traceback
        if found.refused:
            raise UsageError(found.refused)
        self.processes[actor] = found.process

    def _ready(self) -> None:
        """Sees to it that there are workers, with their place on the cluster and what they need to see."""
        if self.actors:
            return
        import ray
        import torch

        self._start()
        options = self.options
        self.mark.write_text(self.token)
        if not options.gpus and torch.cuda.is_available():
            say("engine.gpus=0: the workers compute on the CPU, and there is a GPU; engine.gpus=1 gives each its own")
        environment = {name: os.environ[name] for name in OURS if name in os.environ}
        environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # sums are in the same order then
        environment |= {} if options.gpus else {"CUDA_VISIBLE_DEVICES": ""}
        kind = ray.remote(Worker).options(
            num_cpus=1, num_gpus=options.gpus, max_restarts=-1, scheduling_strategy="SPREAD"
        )
        given = (versions(), os.getcwd(), self.mark, self.token, sys.path, environment)
        self.actors = [kind.remote(*given) for _ in range(options.workers)]
        asked = {actor.ready.options(max_task_retries=-1).remote(): actor for actor in self.actors}
        self._placed(list(asked))
        for reference, actor in asked.items():
            try:
                self._welcome(actor, reference)
            except Gone as error:
                raise UsageError(
                    f"engine: a worker did not start ({error}); install the same clinalign on all nodes"
                ) from None

    def _placed(self, waiting: list[Any]) -> None:
        """Waits until all workers have started. Raises `UsageError` where they do not."""
        import ray

        end = time.monotonic() + PATIENCE_S
        while waiting:
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=SAY_S)
            if waiting and time.monotonic() < end:
                count = self.options.workers
                say(f"engine: {count - len(waiting)} of {count} workers have started; waiting for the others")
            elif waiting:
                has = {name: n for name, n in ray.cluster_resources().items() if name in ("CPU", "GPU")}
                raise UsageError(
                    f"engine.workers: {self.options.workers} with {self.options.gpus:g} GPUs each did not start within "
                    f"{PATIENCE_S:.0f} s; the cluster has {has}"
                )

    def _start(self) -> None:
        """Connects to Ray, or starts it on this machine, unless this process has done so already."""
        import ray

        if ray.is_initialized():
            return
        options, address = self.options, self.options.address
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if not address:
            settings |= {"num_cpus": options.workers, "include_dashboard": False, "object_store_memory": STORE}
            settings |= {} if options.gpus else {"num_gpus": 0}
        for left in reversed(range(1 if address else STARTS)):
            try:
                with _signals_kept():
                    ray.init(address or "local", **settings)
                break
            except Exception as error:  # Ray raises plain ones
                ray.shutdown()
                _end_half_started(error)
                if not left:
                    where = f"{address}: no cluster can be reached" if address else "Ray did not start here"
                    raise UsageError(f"engine.address: {where}: {' '.join(str(error).split())[:300]}") from error
        self.started = True
        enough = _enough_for(ray.cluster_resources().get("GPU", 0), options.gpus)
        if not address and enough < options.workers:
            raise UsageError(
                f"engine.gpus: {options.workers} workers with {options.gpus:g} GPUs each, and the GPUs of this machine "
                f"are enough for {enough:g}; lower engine.workers, or give them smaller shares"
            )

    def release(self, *, idle: bool = True) -> None:
        """Ends the workers; when it is back, the memory and the GPUs of this machine that they held are free. Those
        that are `idle` let go of them first themselves."""
        actors, self.actors, self.away = self.actors, [], {}
        if not actors:
            return
        import ray

        if idle:
            with suppress(Exception):
                ray.wait([actor.forget.remote() for actor in actors], num_returns=len(actors), timeout=ENDING_S)
        for actor in actors:
            with suppress(Exception):  # Ray itself may be gone
                ray.kill(actor)
        here = f"{platform.node()}/"
        ending = [int(name.removeprefix(here)) for name in self.processes.values() if name.startswith(here)]
        self.processes, end = {}, time.monotonic() + ENDING_S
        while any(map(_lives, ending)) and time.monotonic() < end:
            time.sleep(0.02)

    def close(self) -> None:
        """Ends the workers, whatever they are at, and, where it was started here, Ray."""
        self.release(idle=False)
        self.mark.unlink(missing_ok=True)
        if self.started:
            import ray

            self.started = False
            ray.shutdown()


class Gone(Exception):
    """A worker that did not start."""


def _free(actors: Sequence[Any], busy: Sequence[Any], away: Sequence[Any]) -> list[Any]:
    """Who takes the next groups, each two at most: the next one is there before one is done."""
    has = Counter(busy)
    return [actor for held in (0, 1) for actor in actors if has[actor] <= held and actor not in away]


def _end_half_started(error: Exception) -> None:
    """Ends what Ray had started when it gave up. It forgets those processes, and they would slow its next try."""
    trace = error.__traceback__
    while trace is not None:
        node: Any = trace.tb_frame.f_locals.get("self")
        if hasattr(node, "kill_all_processes"):
            with suppress(Exception):  # they end with this process at the latest
                node.kill_all_processes(check_alive=False, allow_graceful=False)
            return
        trace = trace.tb_next


def _enough_for(there: float, share: float) -> float:
    """Workers that so many GPUs are enough for; a share lies on one of them."""
    return int(there) * int(1 / share + 1e-9) if share else math.inf


def _named(item: Any) -> str:
    """A group by the ids of its rows."""
    rows = item if isinstance(item, list) else [item]
    rows = [row[0] if isinstance(row, tuple) and row else row for row in rows]
    names = [str(getattr(row, "id", None) or getattr(row, "example_id", None) or row)[:60] for row in rows]
    return f"{names[0]} to {names[-1]}, {len(names)} in all" if len(names) > 1 else "".join(names)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


@contextmanager
def _signals_kept() -> Iterator[None]:
    """SIGTERM stays what it was: Ray takes it for itself, waits a while when it comes, and ends with exit code 1."""
    setting = signal.signal

    def kept(number: int, handler: Any) -> Any:
        return signal.getsignal(number) if number == signal.SIGTERM else setting(number, handler)

    signal.signal = kept  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = setting
        ours = signal.getsignal(signal.SIGTERM)
        if ours is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)  # Ray's own code below Python has taken it, and aborts
