"""Exports: TRL's own trainer takes a step on one; the others have the shape that their readers check."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from datasets import load_dataset
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor
from trl import DPOConfig, DPOTrainer

from clinalign.data.preferences import read_corpus
from clinalign.errors import UsageError
from clinalign.pairs.audit import audit_file
from clinalign.pairs.export import EXPORTS, export
from clinalign.records import Pair, Region
from clinalign.storage import write_table

SIDES = [("It is on the left.", "It is on the right."), ("There is no nodule.", "There is a nodule.")]
SPANS = [([[13, 17]], [[13, 18]]), ([[9, 11]], [[9, 10]])]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of three pairs: one with a corrupted image, one plain, one of two images."""
    folder = tmp_path / "run"
    (folder / "images").mkdir(parents=True)
    for n in range(3):
        Image.fromarray(tiny.image(n)).save(folder / "images" / f"{n}.png")
    pairs = [
        Pair(f"p{n}", f"e{n}", 0, [f"images/{n}.png"], "Where?", *sides, *spans, "chosen", [1], [2], True, "x", "rule")
        for n, (sides, spans) in enumerate(zip(SIDES, SPANS, strict=True))
    ]  # fmt: skip
    pairs[0] = replace(pairs[0], corrupted_images=["images/2.png"], region=Region("nodule", [1.0, 2.0, 3.0, 4.0]))
    pairs.append(replace(pairs[1], id="p2", images=["images/1.png", "images/2.png"]))
    write_table(folder / "corrupted_pairs.parquet", pairs, Pair)
    return folder


def test_trl_takes_a_step_on_the_export(run: Path, tmp_path: Path) -> None:
    path = export(run, "trl")
    data = load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(data[0]["images"][0], Image.Image) and len(data[2]["images"]) == 2
    assert data[0]["chosen_spans"] == [[13, 17]] and data[0]["corrupted_images"] == [str(run / "images" / "2.png")]
    model = tiny.save(tiny.tiny_llava(), tmp_path / "model")
    settings = DPOConfig(
        output_dir=str(tmp_path / "trl"), per_device_train_batch_size=3, max_steps=1, max_length=None, report_to=[],
        learning_rate=0.1, use_cpu=True, bf16=False, gradient_checkpointing=False, save_strategy="no",
        disable_tqdm=True,
    )  # fmt: skip
    trainer = DPOTrainer(
        LlavaForConditionalGeneration.from_pretrained(model),
        ref_model=LlavaForConditionalGeneration.from_pretrained(model),
        args=settings,
        train_dataset=data,
        processing_class=LlavaProcessor.from_pretrained(model),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["pixel_values"].shape[0] == 2 * 4  # four images, once for chosen and once for rejected
    before = [p.detach().clone() for p in trainer.model.parameters()]
    assert trainer.train().training_loss == pytest.approx(0.6931, abs=1e-3)  # policy = reference: log 2
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))


def test_llama_factory_finds_its_columns_and_images(run: Path) -> None:
    path = export(run, "llama_factory")
    info = json.loads((path.parent / "dataset_info.json").read_text())["clinalign"]
    assert info["ranking"] is True and info["formatting"] == "sharegpt" and info["file_name"] == path.name
    for row in json.loads(path.read_text()):
        assert {info["columns"][name] for name in ("messages", "chosen", "rejected", "images")} <= row.keys()
        (question,) = row["conversations"]  # an odd number of turns, the last by the human
        assert question["from"] == "human" and question["value"].count("<image>") == len(row["images"])
        assert row["chosen"]["from"] == row["rejected"]["from"] == "gpt"
        assert all(Path(image).is_absolute() and Path(image).is_file() for image in row["images"])


def test_ms_swift_rows_are_standard_messages(run: Path) -> None:
    for line in export(run, "ms_swift").read_text().splitlines():
        row = json.loads(line)
        assert [m["role"] for m in row["messages"]] == ["user", "assistant"]
        assert row["rejected_response"] != row["messages"][-1]["content"]
        assert row["messages"][0]["content"].count("<image>") == len(row["images"])
        assert all(Path(image).is_absolute() and Path(image).is_file() for image in row["images"])


def test_ms_swift_gets_the_image_of_the_rejected_answer(run: Path) -> None:
    """The corrupted one where a pair has it, otherwise the pair's own, so that the column fits every row; the file
    beside it trains on text alone."""
    path = export(run, "ms_swift")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["rejected_images"] for row in rows] == [
        [str(run / "images/2.png")],
        rows[1]["images"],
        rows[2]["images"],
    ]
    assert rows[0]["images"] == [str(run / "images/0.png")]
    text = [json.loads(line) for line in (path.parent / "text.jsonl").read_text().splitlines()]
    assert text == [{name: value for name, value in row.items() if name != "rejected_images"} for row in rows]


@pytest.mark.parametrize("to", EXPORTS)
def test_an_export_read_back_holds_the_same_pairs_and_spans(run: Path, to: str) -> None:
    path = export(run, to, run.parent / "elsewhere")
    assert path.parent == run.parent / "elsewhere"
    ours, theirs = read_corpus(run / "corrupted_pairs.parquet").rows, read_corpus(path).rows
    for a, b in zip(ours, theirs, strict=True):
        assert (a.prompt, a.chosen, a.rejected, a.spans) == (b.prompt, b.chosen, b.rejected, b.spans)
        assert [str(run / image) for image in a.images] == list(b.images)
    same = [audit_file(p)["checks"]["length_only"] for p in (run / "corrupted_pairs.parquet", path)]
    assert same[0] == same[1]


def test_what_cannot_be_exported_is_refused_in_one_line(run: Path) -> None:
    with pytest.raises(UsageError, match="choose one of trl, llama_factory, ms_swift"):
        export(run, "axolotl")
    (run / "images" / "1.png").unlink()
    with pytest.raises(UsageError, match="row 2, column 'images': no file"):
        export(run, "trl")
    bad = Pair("p", "e", 0, [], "See <image>?", "a", "b", [], [], "chosen", [1], [2], True, "x", "rule")
    write_table(run / "bad.jsonl", [bad], Pair)
    with pytest.raises(UsageError, match="row 1, column 'prompt': holds '<image>'"):
        export(run / "bad.jsonl", "trl")
