"""A question about a whole volume from ingest to the page, on the embedded model: six slices, lesion by slice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clinalign.folder import Run
from clinalign.imaging.images import read_image, read_mask
from clinalign.pages import write_report
from clinalign.recipe import load_recipe
from clinalign.records import Example, Measurement, Outcome, Pair, without_finding
from clinalign.run import execute
from clinalign.storage import read_table

RECIPE = Path(__file__).parents[1] / "examples" / "phantom_volume.yaml"
SMALL = [
    "data.splits={align: 12, test: 8}",
    "align.max_steps=2",
    "align.batch=4",
    "evaluate.resamples=200",
    "evaluate.permutations=200",
    "evaluate.calibration=false",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("volume") / "run"
    execute(Run(load_recipe(str(RECIPE), [*SMALL, f"align.cache={out.parent / 'cache'}"]), out))
    return out


@pytest.mark.slow
def test_a_volume_runs_from_ingest_to_the_page(run: Path) -> None:
    examples = {e.id: e for e in read_table(run / "examples.parquet", Example)}
    assert len(examples) == 20 and all(len(e.images) == 6 for e in examples.values())
    pairs = read_table(run / "corrupted_pairs.parquet", Pair)
    assert pairs and all(pair.images == examples[pair.example_id].images for pair in pairs)
    located = [pair for pair in pairs if pair.corruption == "counterfactual"]
    assert located, "the embedded model answers questions about slices that show a nodule"
    for pair in located:
        example = examples[pair.example_id]
        touched = {region.image: region for region in example.regions}
        assert pair.corrupted_images is not None and len(pair.corrupted_images) == 6
        for number, (name, plain) in enumerate(zip(pair.corrupted_images, pair.images, strict=True)):
            assert (name == plain) == (number not in touched)
            exact = read_image(run / without_finding(example)[number])
            assert (read_image(run / name) == exact).all(), "the slice without the nodule"
        if pair.control_images is not None:
            for number, region in touched.items():
                control, plain = (run / names[number] for names in (pair.control_images, pair.images))
                changed = (read_image(control) != read_image(plain)).any(2)
                mask = read_mask(run / str(region.mask))
                assert changed.any() and not (changed & mask).any()
    measured = read_table(run / "measurements.parquet", Measurement)
    assert {"margin", "lesion_area", "attention_ratio"} <= {m.name for m in measured}
    areas = [m.value for m in measured if m.name == "lesion_area"]
    assert all(value is not None and 0 < value < 0.5 for value in areas), "of the tokens of all six slices"
    outcomes = read_table(run / "outcomes.parquet", Outcome)
    assert {o.system for o in outcomes} >= {"base", "firempo"} and all(o.text for o in outcomes)


@pytest.mark.slow
def test_the_page_shows_the_slices_that_show_the_finding(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert " of 6" in page and "lesion absent" in page
    pictures = json.loads((run / "evaluation" / "pictures.json").read_text())["examples"]
    examples = {e.id: e for e in read_table(run / "examples.parquet", Example)}
    shown = [name for name in pictures if examples[name].regions]
    assert shown
    for name in shown:
        example = examples[name]
        first = example.regions[0].image
        drawn = read_image(run / pictures[name]["images"]["counterfactual"])
        assert (drawn == read_image(run / example.counterfactuals[first])).all()
        assert not (drawn == np.asarray(read_image(run / example.images[first]))).all()
    assert write_report(run, images=False).is_file()
