"""Every method trains end to end on the embedded model when nothing but `align.method` changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clinalign.folder import Run
from clinalign.objectives import METHODS
from clinalign.recipe import load_recipe
from clinalign.run import execute
from clinalign.training.metrics import read_metrics

SMALL = [
    "data.splits={align: 24, test: 4}", "align.max_steps=2", "align.batch=4", "align.checkpoint_every=0", "compare={}",
    "audit=go_on",
]  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has its pairs and their corrupted images."""
    out = tmp_path_factory.mktemp("methods") / "run"
    recipe = load_recipe("phantom", [*SMALL, f"align.cache={out.parent / 'cache'}"])
    for stage in ("ingest", "answer", "pair", "corrupt"):
        execute(Run(recipe, out, resume=True), only=stage)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_by_its_name_alone(name: str, corpus: Path, tmp_path: Path) -> None:
    """Two steps, both with a gradient, and an adapter."""
    out = tmp_path / "run"
    shutil.copytree(corpus, out)
    recipe = load_recipe("phantom", [*SMALL, f"align.cache={corpus.parent / 'cache'}", f"align.method={name}"])
    for stage in ("corrupt", "align"):
        execute(Run(recipe, out, resume=True), only=stage)
    rows = read_metrics(out / "metrics.jsonl")
    assert len(rows) == 2 and all(row["grad_norm"] > 0 for row in rows)
    assert (out / "adapter" / "adapter_model.safetensors").is_file()
