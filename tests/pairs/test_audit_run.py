"""In a run: a corpus that fails its audit is not trained on unless told so; a segmenter gives the regions."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

import clinalign.pairs as pairs_room
from clinalign.errors import UsageError
from clinalign.folder import Run
from clinalign.recipe import load_recipe
from clinalign.records import Example, Pair
from clinalign.run import execute
from clinalign.storage import read_table

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from test_segmenter import tiny_sam3

SMALL = ["align.max_steps=1", "align.batch=2", "compare={}", "evaluate.resamples=100", "evaluate.permutations=100"]
QUESTION = "On which side is the nodule?"


def own_data(folder: Path) -> Path:
    """Six questions to learn from without a region, one to test on."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = []
    for n in range(6):
        Image.fromarray(rng.integers(60, 200, (64, 64), dtype=np.uint8)).save(folder / f"{n}.png")
        rows.append(f"{n}.png,{QUESTION},{'left' if n % 2 else 'right'},p{n},align")
    Image.fromarray(rng.integers(60, 200, (64, 64), dtype=np.uint8)).save(folder / "t.png")
    rows.append(f"t.png,{QUESTION},left,pt,test")
    (folder / "q.csv").write_text("\n".join(["image,question,answer,patient_id,split", *rows]) + "\n")
    return folder / "q.csv"


def run(path: Path, out: Path, *more: str, only: str | None = None, resume: bool = False) -> None:
    data = f"data={{source: table, path: {path}}}"
    settings = [data, *SMALL, f"align.cache={out.parent / 'cache'}", *more]
    execute(Run(load_recipe("phantom", settings), out, resume=resume), only=only)


def until(path: Path, out: Path, last: str, *more: str) -> None:
    for stage in ("ingest", "answer", "pair", "corrupt", "align"):
        run(path, out, *more, only=stage, resume=stage != "ingest")
        if stage == last:
            return


def test_training_refuses_a_corpus_that_fails_unless_told_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ingest refuses leaks by itself, so the test set is given an image of the pairs only as the audit reads it."""
    path, out = own_data(tmp_path / "data"), tmp_path / "out"
    real = pairs_room.audit_pairs

    def with_a_leak(pairs: list[Pair], examples: list[Example], folder: Path) -> dict:
        learnt = next(e for e in examples if e.split == "align")
        return real(pairs, [*examples, replace(learnt, id="leak", split="test")], folder)

    monkeypatch.setattr(pairs_room, "audit_pairs", with_a_leak)
    with pytest.raises(UsageError, match="the audit refuses these pairs .*test_leaks.*audit=go_on") as refused:
        run(path, out)
    assert "\n" not in str(refused.value)
    found = json.loads((out / "corpus.json").read_text())["audit"]
    assert found["verdict"] == "fail" and found["numbers"]["leaked_images"] >= 1
    assert not (out / "adapter").exists()
    run(path, out, "audit=go_on", only="align", resume=True)
    assert (out / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_a_clean_corpus_is_trained_on(tmp_path: Path) -> None:
    path, out = own_data(tmp_path / "data"), tmp_path / "out"
    until(path, out, "align")
    assert (out / "adapter" / "adapter_model.safetensors").is_file()
    found = json.loads((out / "corpus.json").read_text())["audit"]
    assert found["verdict"] == "warn" and found["checks"]["test_leaks"]["verdict"] == "pass"
    assert any("too few" in reason for reason in found["reasons"])


def test_a_segmenter_gives_the_regions_that_the_data_lack(tmp_path: Path) -> None:
    path, out, folder = own_data(tmp_path / "data"), tmp_path / "out", tmp_path / "sam3"
    with pytest.raises(UsageError, match="no segmenter here"):
        until(path, out, "corrupt", f"corrupt.segmenter={folder}")
    tiny_sam3().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    settings = (f"corrupt.segmenter={folder}", "corrupt.segmenter_threshold=0.01")
    run(path, out, *settings, only="corrupt", resume=True)
    index = [json.loads(line) for line in (out / "regions" / "index.jsonl").read_text().splitlines()]
    assert {row["prompt"] for row in index} == {"left nodule", "right nodule"} and len(index) == 6
    pairs = read_table(out / "corrupted_pairs.parquet", Pair)
    masks = {row["mask"] for row in index if row["mask"]}
    assert pairs and masks
    for pair in pairs:
        assert (pair.region_source == "segmenter") == (pair.region is not None and pair.region.mask in masks)
    sources = json.loads((out / "corpus.json").read_text())["region_sources"]
    assert sources["segmenter"] == len(pairs)
