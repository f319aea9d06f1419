"""The distillation benchmark compares equals: the probe's step and the one from whole eager maps have one gradient."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "steps" / "distilled.py"
SHAPE = {
    "family": "llava", "vision": [2, 32], "language": [4, 64], "vocab": 800, "image_size": 56, "patch": 14,
    "prompt": 6, "answer": 10, "fork": 4, "span": 3, "batch": 2, "micro": 2, "batches": 2, "dtype": "float32",
    "device": "cpu", "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "rslora": True},
}  # fmt: skip


def run(variant: str, work: Path, *more: str) -> str:
    command = [sys.executable, str(SCRIPT), variant, str(work), *more]
    return subprocess.run(command, input="step\nend\n", capture_output=True, text=True, check=True, timeout=300).stdout


@pytest.mark.slow
def test_probe_and_whole_maps_have_one_loss_and_gradient(tmp_path: Path) -> None:
    (tmp_path / "shape.json").write_text(json.dumps(SHAPE))
    run("build", tmp_path)
    for variant in ("distill", "eager"):
        assert "loss" in run(variant, tmp_path)
    one, other = (load_file(tmp_path / f"{name}.safetensors") for name in ("distill", "eager"))
    assert one.keys() == other.keys() and any("projection" in name for name in one)
    for name, value in one.items():
        assert value.abs().max() > 0 and torch.allclose(value, other[name], atol=1e-4 * float(value.abs().max()))
    kept = {name: int(run(name, tmp_path, "kept").split()[-1]) for name in ("sft", "vis", "distill")}
    assert kept["sft"] < kept["vis"] < kept["distill"]
