"""Trainings of tiny models by several processes, watched from outside: do they end, and with the losses of one?

`Watched` does jobs one after another in the same processes, which join once. A process that dies takes the others with
it, as a launcher does; where for `PATIENCE_S` seconds none has ended a job and all have hardly computed, that is a
deadlock: all are killed, and what is left goes on in new ones. A machine that others use as well is slow, not a
deadlock. `test_several.py` and `benchmarks/scales/processes.py` use it.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import socket
import time
import traceback
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import tiny
import torch

from clinalign.imaging.images import write_png
from clinalign.models import VLM
from clinalign.records import Pair
from clinalign.training import loop, step, trainer
from clinalign.training.metrics import TIMING_FIELDS, read_metrics
from clinalign.training.options import TrainOptions

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["clinalign.training.trainer", "transformers", "accelerate.utils"])  # slow to import
PATIENCE_S = 300.0
TEXT = "There is a nodule in the {} lung."
WORDS = [("left", "right"), ("right", "left"), ("upper", "lower"), ("lower", "upper"), ("large", "normal")]
KINDS = ("corrupted", "plain", "text", "two")
"""What a pair is shown: an image and its corrupted copy, an image, nothing, two images and their copies."""


@dataclass
class Job:
    """A training. `kinds`: of each pair, one of `KINDS`; `options` of `TrainOptions`; `out`: where it writes, below the
    folder; `model`: a family; `kill`: the process that signal `by` meets before its `kill_at`-th loss (-1: none)."""

    out: str
    kinds: list[str]
    options: dict[str, Any] = field(default_factory=dict)
    model: str = "llava"
    seed: int = 0
    kill: int = -1
    kill_at: int = 0
    by: str = "SIGKILL"


def uneven(count: int, seed: int = 0) -> list[str]:
    """Kinds of pairs in a random order, each at least once where there are enough."""
    draw = random.Random(seed)
    kinds = [KINDS[i % len(KINDS)] for i in range(count)]
    draw.shuffle(kinds)
    return kinds


def drawn(number: int, out: str) -> Job:
    """A random training: method, way of sharing, sizes, what trains, how often it writes."""
    draw = random.Random(number)
    parallel = draw.choice(["ddp", "fsdp"])
    methods = ["firempo", "dpo", "sft", "simpo", "tdpo2"] + (["kto", "rc"] if parallel == "ddp" else [])
    batch = draw.randint(2, 5)
    options: dict[str, Any] = {
        "method": draw.choice(methods), "parallel": parallel, "batch": batch, "micro_batch": draw.randint(0, batch),
        "max_steps": 0, "epochs": draw.choice([1, 2]), "checkpoint_every": draw.choice([0, 1, 2]),
        "log_every": draw.randint(1, 3), "gradient_checkpointing": draw.random() < 0.3,
        "cache_features": draw.random() < 0.5,
    }  # fmt: skip
    what = draw.random()
    if what < 0.2:
        options["tune"] = "full"
    elif what < 0.4:
        options["train"] = ["language", "projector"]
    kinds = [draw.choice(KINDS) for _ in range(draw.randint(2, 9))]
    if options["method"] == "kto":
        kinds += ["plain", "text"]  # answers to other prompts: of two examples at least
    if "projector" in options.get("train", ()):
        kinds.append("plain")
    return Job(out, kinds, options, seed=number)


# In the processes


def train_job(folder: Path, job: Job) -> dict[str, Any]:
    """Does a job; gives what this process did: records computed, shares of the parameters."""
    torch.manual_seed(0)
    facts: dict[str, Any] = {}
    vlm = tiny.tiny(job.model)
    cache = str(folder / job.out / "cache")
    common = {"lr": 1e-3, "lora": {"r": 2, "alpha": 4, "dropout": 0.1}, "cache": cache, "max_steps": 20}
    options = TrainOptions(**(common | job.options))
    calls, loss, fill, fit = [0], step.PackedSteps.loss, trainer.Reference.fill, trainer.fit

    def dying(self: Any, indexes: Any) -> Any:
        calls[0] += 1
        if job.kill == int(os.environ["RANK"]) and calls[0] == job.kill_at:
            os.kill(os.getpid(), signal.Signals[job.by])
        return loss(self, indexes)

    def filling(self: Any, *given: Any, **named: Any) -> int:
        facts["filled"] = fill(self, *given, **named)
        return int(facts["filled"])

    def fitting(steps: Any, params: Any, *given: Any, **named: Any) -> Any:
        facts["encoded"] = steps.features.encoded
        facts["shares"] = sum(isinstance(p, loop.DTensor) for p in params.values())
        facts["held"] = sum(p.to_local().numel() if isinstance(p, loop.DTensor) else 0 for p in params.values())
        facts["trained"] = sum(p.numel() for p in params.values())
        return fit(steps, params, *given, **named)

    step.PackedSteps.loss, trainer.Reference.fill, trainer.fit = dying, filling, fitting  # type: ignore[method-assign]
    try:
        pairs = [pair(vlm, number, kind) for number, kind in enumerate(job.kinds)]
        trainer.train(vlm, pairs, folder, options, folder / job.out, label="job", seed=job.seed)
    finally:
        step.PackedSteps.loss, trainer.Reference.fill, trainer.fit = loss, fill, fit  # type: ignore[method-assign]
    if int(os.environ["RANK"]) == 0:  # a forward of one process alone: the model is whole again
        facts["answer"] = vlm.generate([("Where is the nodule?", [tiny.image(0)])], max_new_tokens=4)[0].token_ids
    return facts


def pair(vlm: VLM, number: int, kind: str) -> Pair:
    """A pair that differs in one word."""
    good, bad = WORDS[number % len(WORDS)]
    texts = [TEXT.format(word) for word in (good, bad)]
    ids = [vlm.tokenizer(text, add_special_tokens=False)["input_ids"] + vlm.eos_ids[:1] for text in texts]
    names = {"text": [], "two": [number, number + 1]}.get(kind, [number])
    start = TEXT.index("{")
    return Pair(
        id=f"p{number}", example_id=f"e{number}", round=0, images=[f"images/{n % 10}.png" for n in names],
        prompt="Where is the nodule?", chosen=texts[0], rejected=texts[1], chosen_spans=[[start, start + len(good)]],
        rejected_spans=[[start, start + len(bad)]], own="rejected", chosen_token_ids=ids[0], rejected_token_ids=ids[1],
        was_correct=False, edit_kind="side", editor="rule",
        corrupted_images=[f"corrupted/{n % 10}.png" for n in names] if kind in ("corrupted", "two") else None,
    )  # fmt: skip


def work(rank: int, world: int, port: int, folder: str, jobs: list[dict[str, Any]]) -> None:
    """One of the processes: its jobs, a line of `RANK.jsonl` behind each."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    log = os.open(Path(folder) / f"log{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    for job in jobs:
        try:
            found = {"facts": train_job(Path(folder), Job(**job))}
        except BaseException:
            traceback.print_exc()
            found = {"error": traceback.format_exc(limit=-3)}
        with (Path(folder) / f"{rank}.jsonl").open("a") as file:
            file.write(json.dumps(found) + "\n")
        if "error" in found:
            os._exit(1)


# Outside


class Watched:
    """Jobs below a folder, done by so many processes; `deadlocks` so far."""

    def __init__(self, folder: Path, *, patience_s: float = PATIENCE_S) -> None:
        self.folder, self.patience_s, self.deadlocks = folder, patience_s, 0
        world(folder)

    def __call__(self, jobs: list[Job], processes: int) -> list[list[dict[str, Any]] | str]:
        """For each job what each process says of it, or what went wrong: "deadlock", the signal, or the error."""
        ended: list[list[dict[str, Any]] | str] = []
        while len(ended) < len(jobs):
            ended += self._some(jobs[len(ended) :], processes)
        return ended

    def _some(self, jobs: list[Job], processes: int) -> list[list[dict[str, Any]] | str]:
        for rank in range(processes):
            (self.folder / f"{rank}.jsonl").write_text("")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        given = (processes, port, str(self.folder), [asdict(job) for job in jobs])
        members = [SERVER.Process(target=work, args=(rank, *given)) for rank in range(processes)]
        for member in members:
            member.start()
        why, seen, since = "", (-1, 0.0), time.monotonic()
        while any(member.is_alive() for member in members):
            time.sleep(0.02)
            lines, seconds = sum(map(len, self._said(processes))), _computed(members)
            if lines != seen[0] or seconds > seen[1] + 0.3:
                seen, since = (lines, seconds), time.monotonic()
            if any(member.exitcode for member in members):
                why = "exit"
            elif time.monotonic() - since > self.patience_s:
                why = "deadlock"
                self.deadlocks += 1
            if why:
                time.sleep(0.2)  # the others may have a word to say
                why = _death(members) or why
                for member in members:
                    member.kill()
                break
        why = why or _death(members)
        for member in members:
            member.join()
        said = self._said(processes)
        whole = [rows for rows in zip(*said, strict=False) if not any("error" in row for row in rows)]
        if len(whole) == len(jobs):
            return [[row["facts"] for row in rows] for rows in whole]
        errors = [rows[len(whole)]["error"] for rows in said if len(rows) > len(whole) and "error" in rows[len(whole)]]
        told = [why] if why.startswith("SIG") else errors  # what the others say of a dead one's silence does not count
        return [*([row["facts"] for row in rows] for rows in whole), (told or [why or "exit"])[0]]

    def _said(self, processes: int) -> list[list[dict[str, Any]]]:
        texts = [(self.folder / f"{rank}.jsonl").read_text() for rank in range(processes)]
        return [[json.loads(line) for line in text.split("\n")[:-1]] for text in texts]

    def rows(self, job: Job) -> list[dict[str, Any]]:
        """The metrics that a job left, without what differs between two equal runs."""
        rows = read_metrics(self.folder / job.out / "metrics.jsonl")
        return [{name: value for name, value in row.items() if name not in TIMING_FIELDS} for row in rows]


def _death(members: list[Any]) -> str:
    """The signal that a process died of, "" where none did."""
    codes = [member.exitcode for member in members if member.exitcode is not None and member.exitcode < 0]
    return signal.Signals(-codes[0]).name if codes else ""


def _computed(members: list[Any]) -> float:
    """CPU seconds of the processes so far; 0 where no /proc tells."""
    ticks = 0
    for member in members:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{member.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # utime, stime
    return ticks / os.sysconf("SC_CLK_TCK")


def world(folder: Path) -> None:
    """Ten images of several sizes, and their corrupted copies."""
    for number in range(10):
        picture = tiny.image(number, *[(40, 32), (32, 48), (64, 64)][number % 3])
        write_png(folder / f"images/{number}.png", picture)
        picture[8:24, 8:24] = 255 - picture[8:24, 8:24]
        write_png(folder / f"corrupted/{number}.png", picture)


def difference(one: list[dict[str, Any]], other: list[dict[str, Any]], names: tuple[str, ...] = ("loss",)) -> float:
    """The largest difference of these metrics between two runs; infinite where they have other steps or none."""
    if not one or [row["step"] for row in one] != [row["step"] for row in other]:
        return float("inf")
    gaps = [0.0]
    for a, b in zip(one, other, strict=True):
        for name in names:
            x, y = a.get(name), b.get(name)
            gaps.append(abs(x - y) if x is not None and y is not None else 0.0 if x is y else float("inf"))
    return max(gaps)


COMPARED = ("loss", "grad_norm", "rewards/margins", "kl/forward", "rc/ratio")


def twenty(out: str, parallel: str = "ddp") -> Job:
    """Twenty steps of eleven pairs of all kinds in micro-batches of two; the last batch holds one pair alone."""
    options = {"batch": 4, "micro_batch": 2, "max_steps": 0, "epochs": 7, "checkpoint_every": 0, "parallel": parallel}
    return Job(out, uneven(11), options)


def compared(watched: Watched, jobs: list[Job], name: str) -> dict[str, float]:
    """How far each job done by two processes ends from the same done by one; infinite where either did not end."""
    alone = [replace(job, out=f"{name}-alone/{n}") for n, job in enumerate(jobs)]
    together = [replace(job, out=f"{name}-together/{n}") for n, job in enumerate(jobs)]
    ended = [*zip(watched(alone, 1), watched(together, 2), strict=True)]
    found = {}
    for job, one, two, pair_of in zip(jobs, alone, together, ended, strict=True):
        broken = next((what for what in pair_of if isinstance(what, str)), "")
        found[f"{job.out} {broken}".strip()] = (
            float("inf") if broken else difference(watched.rows(one), watched.rows(two), COMPARED)
        )
    return found
