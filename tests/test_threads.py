"""OpenMP's variables are chosen before torch is imported, unless the user chose."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clinalign import threads


def limited(folder: Path, text: str) -> Path:
    (folder / "cpu.max").write_text(text)
    return folder


@pytest.mark.parametrize(("text", "cores"), [("max 100000", 8), ("150000 100000", 2), ("20000 100000", 1), ("junk", 8)])
def test_cores_of_the_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, cores: int) -> None:
    monkeypatch.setattr(threads, "affinity", lambda: 8)
    assert threads.allowed_cpus(limited(tmp_path, text)) == cores


def test_cores_of_an_older_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "affinity", lambda: 8)
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("300000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert threads.allowed_cpus(tmp_path) == 3
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert threads.allowed_cpus(tmp_path) == 8 == threads.allowed_cpus(tmp_path / "nowhere")


def test_the_user_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "affinity", lambda: 8)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    group = limited(tmp_path, "200000 100000")
    chosen: dict[str, str] = {}
    threads.settle(chosen, group)
    assert chosen == {"GOMP_SPINCOUNT": threads.SPINS, "OMP_NUM_THREADS": "2"}
    for own in ({"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "5"}, {"GOMP_SPINCOUNT": "7", "OMP_NUM_THREADS": "5"}):
        given = dict(own)
        threads.settle(given, group)
        assert given == own
    monkeypatch.setitem(sys.modules, "torch", object())
    late: dict[str, str] = {}
    threads.settle(late, group)
    assert late == {}


def test_importing_the_package_is_enough() -> None:
    environment = {k: v for k, v in os.environ.items() if k not in threads.CHOSEN_BY_THE_USER}
    code = "import clinalign.records, os, sys; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.split() == [threads.SPINS, "False"]
