"""The fuzz sees what it is there to see, and a small share of it finds nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzzing.worker import Case, Worker

ROOT = Path(__file__).parents[2]


def wait() -> None:
    time.sleep(60)


def swell() -> None:
    held = []
    while True:
        held.append(bytearray(1 << 28))


def fail() -> None:
    raise ZeroDivisionError("one of ours")


def test_the_worker_sees_time_memory_and_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzzing.worker.SECONDS", 1.0)
    with Worker() as worker:
        assert worker.run(Case("x", 1, work=wait)).slow
        assert worker.run(Case("x", 1, work=swell)).code is None
        outcome = worker.run(Case("x", 1, work=fail))
        assert outcome.code is None and "one of ours" in outcome.words
        assert worker.run(Case("x", 1, ["check", "no-such-recipe.yaml"])).code == 2
        assert worker.run(Case("x", 1, ["--version"])).code == 0


@pytest.mark.slow
def test_a_share_of_the_fuzz_finds_nothing(tmp_path: Path) -> None:
    kinds = ["rows", "recipes", "images", "volumes", "models", "replies", "injections"]
    command = [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), "--out", str(tmp_path / "f.json"), "--seed", "7"]
    subprocess.run([*command, "--share", "0.05", "--only", *kinds], check=True, capture_output=True)
    found = json.loads((tmp_path / "f.json").read_text())
    assert found["rows"] >= 500 and found["pairs_with_injections"] > 0
    assert found["faults"] == [] and found["injections_passed"] == 0
