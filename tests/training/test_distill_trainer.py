"""MEDALIGN through the ordinary trainer: what is written, what loads, resume, and with other methods and tunings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from distilling import clip
from safetensors.torch import load_file
from test_trainer import make, settings, stable
from transformers import CLIPImageProcessorPil

from clinalign.errors import UsageError
from clinalign.imaging.images import write_png
from clinalign.models import load_vlm
from clinalign.models.generate import encode_prompts, prefill
from clinalign.records import Example
from clinalign.training import loop as loops
from clinalign.training import train
from clinalign.training.distill import attention_maps
from clinalign.training.metrics import read_metrics
from clinalign.training.options import DistillOptions


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.tiny_llava(), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def teacher_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder, made = tmp_path_factory.mktemp("teacher"), clip()
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("run")
    for i in range(10):
        clean = tiny.image(i)
        write_png(where / f"images/{i}.png", clean)
        write_png(where / f"corrupted/{i}.png", 255 - clean)
    return where


def run(base: Path, folder: Path, out: Path, teacher_model: str, **values: Any) -> Any:
    taught = values.pop("distill", {}) | {"teacher": teacher_model}
    options = settings(out, **({"method": "sft", "distill": taught} | values))
    vlm = load_vlm(str(base))
    pairs = [make(vlm, i, **({"images": [], "corrupted_images": None} if i == 4 else {})) for i in range(10)]
    return vlm, train(vlm, pairs, folder, options, out, label="taught")


@pytest.mark.parametrize("method", ["sft", "dpo", "firempo"])
def test_19_trained_saved_and_loaded_every_tensor_is_there(
    base: Path, folder: Path, teacher_model: str, tmp_path: Path, method: str
) -> None:
    """All LoRA tensors and W are non-zero after training; the files give the same logits on an unwrapped base."""
    vlm, result = run(base, folder, tmp_path, teacher_model, method=method, distill={"beta": 1.0})
    stored = load_file(result.adapter / "adapter_model.safetensors")
    assert len(stored) == 28 and all(value.abs().max() > 0 for value in stored.values())
    assert load_file(result.adapter / "projection.safetensors")["weight:1"].abs().max() > 0
    rows = read_metrics(result.metrics)
    assert all(row["loss/vis"] > 0 and row["loss/att"] > 0 for row in rows)
    given = encode_prompts(vlm, [("Where is the nodule?", [tiny.image(1)])])
    again = load_vlm(str(base), adapter=result.adapter)
    assert torch.allclose(prefill(again, *given).logits, prefill(vlm, *given).logits, atol=1e-5)
    text = (result.adapter / "README.md").read_text()
    assert "distill.variant | sound" in text and f"distill.teacher | {teacher_model}" in text


def test_a_lost_w_makes_the_run_unfinished(base: Path, folder: Path, teacher_model: str, tmp_path: Path) -> None:
    _, result = run(base, folder, tmp_path, teacher_model)
    first = (result.adapter / "projection.safetensors").read_bytes()
    (result.adapter / "projection.safetensors").unlink()
    _, again = run(base, folder, tmp_path, teacher_model)
    assert (again.adapter / "projection.safetensors").read_bytes() == first


def test_interrupted_and_resumed_equals_uninterrupted(
    base: Path, folder: Path, teacher_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W and its moments are in the checkpoint."""
    _, whole = run(base, folder, tmp_path / "whole", teacher_model)
    calls, accumulate = [], loops.accumulate

    def stop(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return accumulate(*args)

    monkeypatch.setattr(loops, "accumulate", stop)
    with pytest.raises(KeyboardInterrupt):
        run(base, folder, tmp_path / "cut", teacher_model)
    monkeypatch.setattr(loops, "accumulate", accumulate)
    _, cut = run(base, folder, tmp_path / "cut", teacher_model)
    assert stable(cut.metrics) == stable(whole.metrics)
    for name in ("adapter_model.safetensors", "projection.safetensors"):
        one, other = load_file(whole.adapter / name), load_file(cut.adapter / name)
        assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_micro_batches_give_the_same_numbers(base: Path, folder: Path, teacher_model: str, tmp_path: Path) -> None:
    options = {"lora": {"r": 4, "alpha": 8, "dropout": 0.0}, "max_steps": 2}
    found = [
        read_metrics(run(base, folder, tmp_path / str(size), teacher_model, micro_batch=size, **options)[1].metrics)
        for size in (1, 4)
    ]
    for one, other in zip(*found, strict=True):
        for name in ("loss", "loss/vis", "loss/att", "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-4)


def test_full_fine_tuning_keeps_w_beside_the_weights(
    base: Path, folder: Path, teacher_model: str, tmp_path: Path
) -> None:
    vlm, result = run(base, folder, tmp_path, teacher_model, tune="full", lr=1e-3, max_steps=2)
    assert not any("projection" in name for name in load_file(result.adapter / "language_model.safetensors"))
    given = encode_prompts(vlm, [("Where is the nodule?", [tiny.image(1)])])
    again = load_vlm(str(base), adapter=result.adapter)
    assert torch.allclose(prefill(again, *given).logits, prefill(vlm, *given).logits, atol=1e-5)


def test_a_loaded_adapter_goes_on_with_its_w_or_says_why_not(
    base: Path, folder: Path, teacher_model: str, tmp_path: Path
) -> None:
    _, result = run(base, folder, tmp_path / "one", teacher_model)
    vlm = load_vlm(str(base), adapter=result.adapter)
    before = vlm.projection.get_parameter("weight:1").detach().clone()
    options = settings(tmp_path, method="firempo", distill={"teacher": teacher_model})
    pairs = [make(vlm, i) for i in range(10)]
    train(vlm, pairs, folder, options, tmp_path / "two", label="two", reference="previous")
    assert not torch.equal(vlm.projection.get_parameter("weight:1"), before)
    vlm = load_vlm(str(base), adapter=result.adapter)
    options = settings(tmp_path, method="sft", distill={"teacher": teacher_model, "layers": [0]})
    with pytest.raises(UsageError, match=r"align.distill.layers: \[0\], but the loaded adapter projects before \[1\]"):
        train(vlm, pairs, folder, options, tmp_path / "three", label="three")


def test_training_on_l_att_brings_the_map_closer_to_the_teachers(
    base: Path, folder: Path, teacher_model: str, tmp_path: Path
) -> None:
    examples = [Example(f"e{i}", [f"images/{i}.png"], "Where is the nodule?", "left") for i in range(6)]
    chosen = DistillOptions(teacher_model=teacher_model)
    vlm, _ = run(base, folder, tmp_path, teacher_model, distill={"beta": 5.0, "alpha": 0.0}, max_steps=12)
    found = [attention_maps(one, examples, folder, chosen, cache="off") for one in (load_vlm(str(base)), vlm)]

    assert set(found[0]) == {e.id for e in examples}
    for one in found[0].values():
        assert one.student.sum() == pytest.approx(1) and one.teacher.sum() == pytest.approx(1) and 0 < one.mass < 1
    kl = [np.mean([(m.teacher * np.log(m.teacher / m.student)).sum() for m in maps.values()]) for maps in found]
    assert kl[1] < 0.97 * kl[0]
