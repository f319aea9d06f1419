"""Killed hard in any stage, a run resumes to the same bytes."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from clinalign.storage import sha256

SMALL = [
    "data.splits={align: 40, test: 20}",
    "align.max_steps=6",
    "align.batch=4",
    "align.checkpoint_every=2",
    "compare={sft: {method: sft}}",
    "evaluate.resamples=200",
    "evaluate.permutations=200",
]
SAME = (
    "examples.parquet", "answers.parquet", "pairs.parquet", "corrupted_pairs.parquet", "outcomes.parquet",
    "corpus.json", "measurements.parquet", "evaluation/summary.json", "quarantine.jsonl",
    "adapter/adapter_model.safetensors",
)  # fmt: skip


def begun(journal: Path) -> bool:
    return journal.exists() and journal.stat().st_size > 0


SIGNS = {
    "ingest": lambda out: any((out / "images").rglob("*.png")),
    "answer": lambda out: begun(out / "journals" / "answer.journal"),
    "corrupt": lambda out: any((out / "corrupted").rglob("*.png")),
    "align": lambda out: (out / "checkpoint.safetensors").exists(),
    "compare": lambda out: (out / "compare" / "sft" / "checkpoint.safetensors").exists(),
    "evaluate": lambda out: begun(out / "journals" / "evaluate.journal"),
}
"""What shows that a stage is under way."""


def command(out: Path, *more: str) -> list[str]:
    cache = f"align.cache={out.parent / (out.name + '-cache')}"
    return [sys.executable, "-m", "clinalign.cli", "run", "phantom", *SMALL, cache, "--out", str(out), *more]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(out), check=True, capture_output=True)
    return {name: sha256(out / name) for name in SAME}


@pytest.mark.slow
@pytest.mark.parametrize("stage", SIGNS)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=["kill", "ctrl-c", "term"])
def test_a_killed_run_resumes_to_the_same_bytes(
    stage: str, how: signal.Signals, whole: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a suite in the background of a shell ignores it
    process = subprocess.Popen(
        command(out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    )
    deadline = time.monotonic() + 300
    while not SIGNS[stage](out) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, "the run ended before it could be killed"
    os.kill(process.pid, how)
    _, errors = process.communicate()
    assert process.returncode == {signal.SIGKILL: -how, signal.SIGINT: 130, signal.SIGTERM: 143}[how]
    assert how == signal.SIGKILL or "--resume goes on from here" in errors
    subprocess.run(command(out, "--resume"), check=True, capture_output=True)
    assert {name: sha256(out / name) for name in SAME} == whole
