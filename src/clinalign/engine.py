"""Where the groups of a stage are worked on: in this process, one behind the other, or on the workers of Ray.

A stage hands a function and its items to `each` and gets the results in the order of the items, as from `map`, which
is the engine of one process; that of Ray is `workers.Workers`, and what runs in one of its workers is below. Whatever
is written, journal, tables, quarantine, is written by whoever asked; workers make results (and images under names that
are their content). What a function computes must hang on its item alone, so that who computed it, and how often, leaves
no trace.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

import clinalign
from clinalign.errors import UsageError
from clinalign.progress import heard

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
    gpus: float = Field(
        0.0, ge=0, le=1, description="ray: the GPU, or share of one, of each worker; 0: they compute on the CPU"
    )
    address: str = Field(
        "",
        description="ray: a running cluster (HOST:PORT, auto); empty: started on this machine for the run",
    )


MISSING = "engine.kind: Ray is not installed; install it with: pip install 'clinalign[ray]', or set engine.kind=local"


def check_engine(options: EngineOptions) -> None:
    """Raises `UsageError` for an engine that is not installed."""
    if options.kind == "ray" and importlib.util.find_spec("ray") is None:
        raise UsageError(MISSING)


_HELD: dict[str, Any] = {}


def held(key: str, load: Callable[..., T], *given: Any) -> T:
    """What `load(*given)` gives, kept until another key is asked for: how a worker gets its model."""
    if key not in _HELD:
        _HELD.clear()
        gc.collect()
        _HELD[key] = load(*given)
    found: T = _HELD[key]
    return found


SAME = ("clinalign", "torch", "transformers", "tokenizers", "peft", "numpy", "pillow", "vllm")
"""Packages on which numbers hang: all nodes have the same, vLLM where the run has it."""


def versions() -> dict[str, str]:
    """Of the packages in `SAME`, builds for one card or another alike."""
    there = [name for name in SAME if name not in ("clinalign", "vllm") or importlib.util.find_spec(name)]
    named = {name: metadata.version(name).partition("+")[0] for name in there if name != "clinalign"}
    return {"clinalign": clinalign.__version__} | named


class Result(NamedTuple):
    """What a worker made of an item, or why it refuses all of them; `said` is to be said where the run is."""

    process: str
    value: Any = None
    refused: str = ""
    said: tuple[str, ...] = ()


class Worker:
    """One process of Ray's. It works where the run does: in the same folder of a file system that both see. `token`:
    what the run wrote into `mark`. A function is unpickled once for all of its items; a model in it travels as what it
    was loaded from (`held`), and is loaded once."""

    def __init__(
        self,
        same: Mapping[str, str],
        folder: str,
        mark: Path,
        token: str,
        paths: list[str],
        environment: Mapping[str, str],
    ) -> None:
        sys.path += [path for path in paths if path not in sys.path]  # modules of the user's own
        os.environ |= environment
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):  # of the launcher that the run's first process has
            os.environ.pop(name, None)
        self.number, self.function = 0, None
        self.process = f"{platform.node()}/{os.getpid()}"
        self.refused = _differing(same, versions()) or _not_shared(Path(folder), mark, token)

    def ready(self) -> Result:
        """Why nothing can be worked on here, where that is so."""
        return Result(self.process, refused=self.refused)

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

    def forget(self) -> None:
        """Lets go of the last function, and of the model or the vLLM that it held: a process that this one began ends
        with it, while one that is killed first may keep a GPU for a while."""
        self.number, self.function = 0, None
        _HELD.clear()
        gc.collect()

    def _take(self, number: int, reference: Any) -> None:
        import ray
        from ray import cloudpickle

        self.function = None
        gc.collect()
        self.function, self.number = cloudpickle.loads(ray.get(reference)), number


def _differing(run: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Which package is another version here than where the run is; "" where none is."""
    for name, version in run.items():
        if here.get(name) != version:
            other = here.get(name, "not installed")
            return f"engine: {platform.node()} has {name} {other}, the run {version}; install the same on all nodes"
    return ""


def _not_shared(folder: Path, mark: Path, token: str) -> str:
    """Goes to the folder that the run was started in; why that is not possible, "" where it is."""
    try:
        os.chdir(folder)
        if mark.read_text() == token:
            return ""
    except OSError:
        pass
    return (
        f"engine: a worker on {platform.node()} does not see {mark.parent} as the run does; put the run folder, the "
        f"folder it is started in, the model and the data on a file system that all nodes share"
    )
