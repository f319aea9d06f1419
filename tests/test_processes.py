"""A run under a launcher of several processes: the first does the stages, all train, nothing is done twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import resuming

from clinalign.records import Answer, Outcome
from clinalign.storage import read_table
from clinalign.training.metrics import read_metrics

pytestmark = pytest.mark.slow


def launch(case: Path, processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clinalign", "run", "recipe.yaml", "--out", "run", *arguments]
    if processes > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [*launcher, *command[1:]]
    environment = os.environ | {"CLINALIGN_CACHE": str(case / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=case, env=environment, capture_output=True, text=True, timeout=500)


def test_two_processes_make_the_run_of_one(tmp_path: Path) -> None:
    """Tables are equal; losses are the same numbers summed in another order."""
    for name, processes in (("one", 1), ("two", 2)):
        resuming.build(tmp_path / name)
        ended = launch(tmp_path / name, processes)
        assert ended.returncode == 0, ended.stderr
        if processes == 2:
            lines = [line for line in ended.stderr.splitlines() if line.startswith(("ingest:", "audit:"))]
            assert len(lines) == len(set(lines)) and lines
            assert ended.stdout.count("Page:") == 1
    one, two = tmp_path / "one" / "run", tmp_path / "two" / "run"
    answers = [[a.text for a in read_table(run / "answers.parquet", Answer)] for run in (one, two)]
    assert answers[0] == answers[1]
    for part in (".", "compare/sft", "warmup"):
        losses = [[row["loss"] for row in read_metrics(run / part / "metrics.jsonl")] for run in (one, two)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5) and len(losses[0]) > 3
    assert len(read_table(two / "outcomes.parquet", Outcome)) == len(read_table(one / "outcomes.parquet", Outcome))
    assert json.loads((two / "run.json").read_bytes())["stages"].keys() == (
        json.loads((one / "run.json").read_bytes())["stages"].keys()
    )
    assert not (two / ".lock").exists()


def test_a_refusal_of_the_first_process_ends_all_with_one_line(tmp_path: Path) -> None:
    resuming.build(tmp_path)
    ended = launch(tmp_path, 2, "data.path=nowhere.csv")
    assert ended.returncode != 0
    said = [line for line in ended.stderr.splitlines() if line.startswith("clinalign: ")]
    assert len(said) == 1 and "nowhere.csv" in said[0]
    assert not (tmp_path / "run" / "examples.parquet").exists()
