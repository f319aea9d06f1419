"""The recipe of the small real model from packages to page, with made-up packages and the embedded model."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_real import packages  # noqa: F401  (a fixture)

from clinalign.folder import Run
from clinalign.imaging.images import read_image, read_mask
from clinalign.models import load_vlm
from clinalign.recipe import load_recipe
from clinalign.records import Example, Outcome, Pair
from clinalign.run import execute
from clinalign.storage import read_table

RECIPE = Path(__file__).parents[2] / "examples" / "real_model.yaml"


@pytest.fixture
def run(packages: Path, tmp_path: Path) -> Path:  # noqa: F811
    small = ["model=embedded", "warmup.max_steps=30", "warmup.lr=0.003", "align.max_steps=2", "evaluate.resamples=200"]
    out = tmp_path / "run"
    execute(Run(load_recipe(RECIPE, [*small, "audit=go_on"]), out))
    return out


@pytest.mark.slow
def test_from_packages_to_page(run: Path) -> None:
    """Noise inside the mask only, every pixel outside bit for bit; the page shows image, outline and twin."""
    examples = {e.id: e for e in read_table(run / "examples.parquet", Example)}
    pairs = read_table(run / "corrupted_pairs.parquet", Pair)
    index = {row["file"]: row for row in map(json.loads, (run / "corrupted" / "index.jsonl").open())}
    vlm = load_vlm("embedded")
    local = 0
    for pair in pairs:
        row = index[pair.corrupted_images[0]]
        before = vlm.input_image(read_image(run / pair.images[0]))
        after = read_image(run / pair.corrupted_images[0])
        if row["area"] != "lesion":
            continue
        local += 1
        inside = read_mask(run / row["mask"])
        assert np.array_equal(after[~inside], before[~inside])
        assert (after[inside] != before[inside]).mean() > 0.4  # noise on white is clipped half of the time
        assert inside.any() and not inside.all()
        assert np.array_equal(inside, vlm.input_mask(read_mask(run / examples[pair.example_id].regions[0].mask)))
    assert local >= 8
    outcomes = [o for o in read_table(run / "outcomes.parquet", Outcome) if o.condition == "clean"]
    assert {o.system for o in outcomes} == {"base", "firempo"}
    # The warm-up taught it to answer; a few steps on a model whose vocabulary lacks "MRI" leave some garbled.
    assert np.mean([o.correct is not None for o in outcomes]) >= 0.6
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page or "data:image/webp;base64," in page
    assert json.loads((run / "run.json").read_text())["stages"]["warmup"]["outputs"]
