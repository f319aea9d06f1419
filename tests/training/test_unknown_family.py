"""A family nobody wrote functions for: packed by what transformers tells of it, or trained by separate passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import packing
import pytest
import tiny
import torch

from clinalign.errors import UsageError
from clinalign.imaging.images import write_png
from clinalign.models import VLM, load_vlm
from clinalign.models.families import FAMILIES, llava
from clinalign.models.features import Features
from clinalign.objectives import METHODS, LossCoefficients
from clinalign.records import Pair
from clinalign.training import train
from clinalign.training.metrics import read_metrics
from clinalign.training.options import TrainOptions
from clinalign.training.step import PackedSteps

WEIGHTS = LossCoefficients(beta=0.5, alpha=0.3, gamma=0.7, lam=0.4)
PROMPT = "Where is the nodule?"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.tiny_llava(), tmp_path_factory.mktemp("unknown"))


@pytest.fixture
def unknown(base: Path, monkeypatch: pytest.MonkeyPatch) -> VLM:
    """LLaVA, with all that is known of it forgotten."""
    monkeypatch.delitem(FAMILIES, "llava")
    return load_vlm(str(base), unpacked=True)


def test_packed_without_a_word_of_its_family(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What transformers tells of a model is enough: the same numbers, packed, as with its family written down."""
    known = load_vlm(str(base))
    monkeypatch.delitem(FAMILIES, "llava")
    forgotten = load_vlm(str(base))
    assert not forgotten.unpacked and forgotten.family.known and not forgotten.family.geometry
    found = []
    for vlm in (known, forgotten):
        vlm.attach_lora(r=4, alpha=8, dropout=0.0)
        tiny.perturb(vlm)
        rng = np.random.default_rng(0)
        samples = [packing.sample(vlm, i, rng, images=count, prompt=PROMPT) for i, count in enumerate((1, 2, 0))]
        loss, _ = PackedSteps(vlm, samples, METHODS["firempo"], WEIGHTS, Features(vlm, packing.read(vlm))).loss(
            range(3)
        )
        found.append(
            (loss.item(), torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(vlm.trainable().values()))]))
        )
    (loss, gradient), (other, other_gradient) = found
    assert loss == pytest.approx(other, abs=1e-5) and gradient.norm() > 0
    assert (gradient - other_gradient).norm() <= 1e-4 * gradient.norm()


def test_what_needs_the_familys_insides_is_refused(unknown: VLM) -> None:
    with pytest.raises(UsageError, match="write them in models/families"):
        unknown.image_features([tiny.image(0)])


@pytest.mark.parametrize("name", ["firempo", "dpo", "rrpo_authors", "sft"])
def test_separate_passes_equal_the_packed_step(base: Path, unknown: VLM, name: str, tmp_path: Path) -> None:
    """The same model packed, with its family known but unpacked, and unknown: one, two and no images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "llava", llava.FAMILY)
        known, plain = load_vlm(str(base)), load_vlm(str(base), unpacked=True)
    for vlm in (known, plain, unknown):
        vlm.attach_lora(r=4, alpha=8, dropout=0.0)
        tiny.perturb(vlm)
    rng = np.random.default_rng(0)
    samples = [packing.sample(known, i, rng, images=count, prompt=PROMPT) for i, count in enumerate((1, 2, 0))]
    for sample in samples:
        sample.text = PROMPT
    found = []
    for vlm in (known, plain, unknown):
        steps = PackedSteps(vlm, samples, METHODS[name], WEIGHTS, Features(vlm, packing.read(known)))
        loss, _ = steps.loss(range(3))
        params = list(vlm.trainable().values())
        found.append((loss.item(), torch.cat([g.flatten() for g in torch.autograd.grad(loss, params)])))
    (loss, gradient), *separate = found
    assert gradient.norm() > 0
    for slow, slow_gradient in separate:
        assert abs(loss - slow) <= 1e-5
        assert (gradient - slow_gradient).norm() <= 1e-4 * slow_gradient.norm()


def test_dropout_of_separate_passes_belongs_to_the_pair(unknown: VLM) -> None:
    unknown.attach_lora(r=4, alpha=8, dropout=0.4)
    tiny.perturb(unknown)
    rng = np.random.default_rng(0)
    samples = [packing.sample(unknown, i, rng, images=0, prompt=PROMPT) for i in range(3)]
    for sample in samples:
        sample.text = PROMPT
    unknown.model.train()
    unknown.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    steps = PackedSteps(unknown, samples, METHODS["dpo"], WEIGHTS, Features(unknown, packing.read(unknown)), draw=5)
    params, found = list(unknown.trainable().values()), []
    for cuts in ([[0, 1, 2]], [[2], [0], [1]]):
        parts = [torch.autograd.grad(steps.loss(cut)[0] * len(cut), params) for cut in cuts]
        found.append(torch.cat([sum(g).flatten() for g in zip(*parts, strict=True)]))
    assert (found[0] - found[1]).norm() <= 1e-4 * found[0].norm() and found[0].norm() > 0


def test_trains_from_pairs(unknown: VLM, tmp_path: Path) -> None:
    pairs = []
    for i in range(3):
        for folder in ("images", "corrupted"):
            write_png(tmp_path / f"{folder}/{i}.png", tiny.image(i if folder == "images" else i + 7))
        texts = ["A nodule on the left.", "A nodule on the right."]
        ids = [unknown.tokenizer(t, add_special_tokens=False)["input_ids"] + unknown.eos_ids[:1] for t in texts]
        pairs.append(
            Pair(
                id=f"p{i}",
                example_id=f"e{i}",
                round=0,
                images=[f"images/{i}.png"],
                prompt=PROMPT,
                chosen=texts[0],
                rejected=texts[1],
                chosen_spans=[[16, 20]],
                rejected_spans=[[16, 21]],
                own="rejected",
                chosen_token_ids=ids[0],
                rejected_token_ids=ids[1],
                was_correct=False,
                edit_kind="side",
                editor="rule",
                corrupted_images=[f"corrupted/{i}.png"],
            )  # fmt: skip
        )
    options = TrainOptions(
        lr=2e-2, batch=3, max_steps=3, cache=str(tmp_path / "cache"), lora={"r": 4, "alpha": 8, "dropout": 0.0}
    )
    result = train(unknown, pairs, tmp_path, options, tmp_path / "out", label="x")
    losses = [row["loss"] for row in read_metrics(result.metrics)]
    assert losses[0] == pytest.approx(1.1 * np.log(2), abs=1e-4) and losses[-1] < losses[0]
    assert (result.adapter / "adapter_model.safetensors").is_file()
