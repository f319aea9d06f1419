"""A tiny run of every stage that is killed, changed and resumed; `test_resume.py` and `benchmarks/faults.py` use it.

A case is a folder with a model, a table of questions with images, a recipe and the run: the command runs inside it, so
that all paths are relative and two cases can be compared byte by byte. Commands are started as processes of their own
by a fork server that has the libraries loaded; a kill is a SIGKILL.
"""

from __future__ import annotations

import contextlib
import csv
import json
import multiprocessing
import os
import random
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clinalign.records import Answer, Example, Measurement, Outcome, Pair
from clinalign.storage import file_hash, read_table
from clinalign.training.metrics import TIMING_FIELDS, read_metrics

STAGES = ("ingest", "warmup", "answer", "pair", "corrupt", "align:firempo", "align:sft", "evaluate")
CHANGES = ("settings", "data", "image bytes", "weights", "configuration", "code version")
SETTINGS = (
    "align.lr=0.003", "corrupt.sigma=20", "answer.max_new_tokens=5", "evaluate.max_new_tokens=5", "warmup.lr=0.004"
)  # fmt: skip
TABLES: dict[str, type[Any]] = {
    "examples.parquet": Example, "answers.parquet": Answer, "pairs.parquet": Pair, "corrupted_pairs.parquet": Pair,
    "outcomes.parquet": Outcome, "measurements.parquet": Measurement,
}  # fmt: skip
BYTES = (
    *TABLES, "quarantine.jsonl", "corpus.json", "ingest.json", "evaluation/summary.json", "evaluation/pictures.json",
    "adapter/adapter_model.safetensors", "compare/sft/adapter/adapter_model.safetensors",
    "warmup/adapter/adapter_model.safetensors", "manifests/ingest.sha256", "manifests/corrupt.sha256",
    "manifests/evaluate.sha256", "adapter/README.md",
)  # fmt: skip
"""What has to be the same, byte by byte; metrics but for their times, and the stages' keys besides."""

RECIPE = """\
model: model
data: {source: table, path: data/questions.csv, key_file: data/key}
warmup:
  {method: sft, max_steps: 60, batch: 8, lr: 0.005, checkpoint_every: 4, log_every: 2, lora: {r: 8, alpha: 16}}
answer: {max_new_tokens: 6, batch_size: 4}
audit: go_on
align:
  {method: firempo, max_steps: 8, batch: 4, lr: 0.002, checkpoint_every: 2, log_every: 1, lora: {r: 4, alpha: 8},
   cache_features: true}
compare: {sft: {method: sft}}
evaluate: {max_new_tokens: 6, batch_size: 4, resamples: 100, permutations: 100, ablations: [shuffled]}
"""
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["clinalign.cli", "clinalign.run", "clinalign.training.trainer", "clinalign.measuring.measure",
     "clinalign.measuring.pictures", "clinalign.lesions.pairs", "clinalign.pairs.build", "clinalign.measuring.asking",
     "clinalign.pages.report", "transformers.models.llava.modeling_llava", "peft", "matplotlib.figure"]
)  # fmt: skip


def build(case: Path) -> Path:
    """Model, data and recipe, without the run."""
    import tiny

    rng = np.random.default_rng(3)
    tiny.save(tiny.tiny_llava(), case / "model")
    (case / "data").mkdir()
    (case / "data" / "key").write_bytes(b"a key of the tests")
    with (case / "data" / "questions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "question", "answer", "box", "patient_id", "split"])
        for number in range(30):
            picture(case, number, 100 + number)
            side = ("left", "right")[int(rng.integers(2))]
            x = 36 if side == "left" else 8
            row = [f"{number}.png", "On which side is the nodule?", side, json.dumps([x, 12, 16, 16])]
            table.writerow([*row, f"p{number}", "align" if number < 18 else "test"])
    (case / "recipe.yaml").write_text(RECIPE)
    return case


def picture(case: Path, number: int, seed: int) -> None:
    """One image of the table."""
    coarse = np.random.default_rng(seed).integers(30, 226, (8, 8), dtype=np.uint8)
    Image.fromarray(coarse.repeat(8, 0).repeat(8, 1)).save(case / "data" / f"{number}.png")


def change(case: Path, what: str, draw: random.Random) -> tuple[str, tuple[str, ...], str]:
    """Changes one thing; gives what it was (cases of one name end alike), overrides, and the version to run under."""
    if what == "settings":
        setting = draw.choice(SETTINGS)
        return setting, (setting,), ""
    if what == "data":
        table = case / "data" / "questions.csv"
        rows = table.read_text().split("\n")
        for number in (3, 25):  # one to learn from, one to test on
            rows[number] = rows[number].replace("left", "?").replace("right", "left").replace("?", "right")
        table.write_text("\n".join(rows))
    if what == "image bytes":
        images = sorted((case / "run" / "images").rglob("*.png"))
        if images and draw.random() < 0.5:  # in the run folder: it is made anew, and nothing else changes
            one, other = draw.sample(images, 2) if len(images) > 1 else images * 2
            shutil.copyfile(other, one) if draw.random() < 0.5 else one.unlink()
            return "nothing", (), ""
        picture(case, 2, 77)
        picture(case, 24, 78)
    if what == "weights":
        import tiny

        tiny.tiny_llava(seed=5).model.save_pretrained(case / "model")
    if what == "configuration":
        path = case / "model" / "config.json"
        path.write_text(path.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 0.05'))
    return what, (), "9.9.9" if what == "code version" else ""


def command(case: str, version: str, arguments: list[str]) -> None:
    """The command line inside a case, its output in `log`."""
    os.chdir(case)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= {"CLINALIGN_CACHE": "cache", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    import torch

    import clinalign
    from clinalign.cli import main

    torch.set_num_threads(1)
    clinalign.__version__ = version or clinalign.__version__
    sys.argv = ["clinalign", "run", "recipe.yaml", *arguments, "--out", "run"]
    main()


def start(case: Path, *arguments: str, version: str = "") -> Any:
    """The command as a process."""
    process = SERVER.Process(target=command, args=(str(case), version, list(arguments)))
    process.start()
    return process


def finish(case: Path, *arguments: str, version: str = "") -> int:
    """Runs the command to its end and gives the exit code."""
    process = start(case, *arguments, version=version)
    process.join()
    return int(process.exitcode or 0)


def kill_in(case: Path, stage: str, share: float, seconds: float) -> bool:
    """Starts the run and kills it in a stage, after a share of the time that the stage takes; whether it was alive."""
    process = start(case)
    before = STAGES[: STAGES.index(stage)]
    while process.is_alive() and not set(before) <= stages(case).keys():
        time.sleep(0.002)
    if not before:
        while process.is_alive() and not (case / "run").exists():
            time.sleep(0.002)
    time.sleep(share * seconds)
    alive = process.is_alive()
    process.kill()
    process.join()
    return bool(alive)


def stages(case: Path) -> dict[str, dict[str, Any]]:
    """The stages that a run has done."""
    with contextlib.suppress(FileNotFoundError):
        return dict(json.loads((case / "run" / "run.json").read_bytes())["stages"])
    return {}


def outcome(case: Path) -> dict[str, Any]:
    """All of a run that has to be the same."""
    run = case / "run"
    found: dict[str, Any] = {name: file_hash(run / name) for name in BYTES}
    for folder in ("", "warmup", "compare/sft"):
        rows = read_metrics(run / folder / "metrics.jsonl")
        found[f"{folder}/metrics"] = [{k: v for k, v in row.items() if k not in TIMING_FIELDS} for row in rows]
    # the ingest's key holds the times of the data's files, which no two cases share
    return found | {name: stage["key"] for name, stage in stages(case).items() if name != "ingest"}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of what differs between two runs."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def miscounted(case: Path, whole: Path) -> tuple[int, int]:
    """Rows of the whole run's tables that a run lost, and rows that it has twice."""
    lost = doubled = 0
    for name, kind in TABLES.items():
        mine, all_ = (identities(read_table(folder / "run" / name, kind)) for folder in (case, whole))
        lost += len(set(all_) - set(mine))
        doubled += len(mine) - len(set(mine))
    return lost, doubled


def identities(rows: list[Any]) -> list[tuple[Any, ...]]:
    """What tells the rows of a table apart."""
    fields = ("id", "example_id", "round", "system", "condition", "seed", "name", "level")
    return [tuple(getattr(row, field, None) for field in fields) for row in rows]


class Cases:
    """Cases below a folder, and the runs from nothing that they are compared with, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.world = build(folder / "world")
        self.whole: dict[str, Path] = {}
        self.making = threading.Lock()
        self.seconds = {name: stage["seconds"] for name, stage in stages(self.from_nothing("nothing")).items()}

    def new(self, name: str) -> Path:
        """A fresh case."""
        return Path(shutil.copytree(self.world, self.folder / name))

    def from_nothing(
        self, name: str, like: Path | None = None, overrides: tuple[str, ...] = (), version: str = ""
    ) -> Path:
        """The whole run in the world as it is, or with the model and data of the case `like`."""
        with self.making:
            if name not in self.whole:
                case = self.new(f"whole-{len(self.whole)}")
                if like is not None:
                    for part in ("model", "data"):
                        shutil.rmtree(case / part)
                        shutil.copytree(like / part, case / part)
                if finish(case, *overrides, version=version):
                    raise RuntimeError((case / "log").read_text())
                self.whole[name] = case
            return self.whole[name]

    def tried(self, name: str, stage: str, what: str, draw: random.Random) -> dict[str, Any]:
        """One case: killed in a stage, changed (`what`; "": not), resumed, compared with the run from nothing."""
        case = self.new(name)
        killed = kill_in(case, stage, draw.random(), self.seconds[stage])
        became, overrides, version = change(case, what, draw) if what else ("nothing", (), "")
        code = finish(case, "--resume", *overrides, version=version)
        whole = self.from_nothing(became, case, overrides, version)
        differs = ["exit code"] if code else differences(outcome(case), outcome(whole))
        lost, doubled = (0, 0) if code else miscounted(case, whole)
        log = (case / "log").read_text() if differs else ""
        if not differs:
            shutil.rmtree(case)
        return {
            "stage": stage, "changed": became, "killed": killed, "differs": differs, "lost": lost, "doubled": doubled,
            "log": log[-3000:],
        }  # fmt: skip
