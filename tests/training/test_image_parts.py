"""Projector and vision tower that train: gradients, the reference, what is cached, what is saved."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file
from test_trainer import base, folder, make, settings  # noqa: F401
from tiny_types import build
from torch import Tensor

from clinalign.errors import UsageError
from clinalign.models import VLM, load_vlm, own
from clinalign.models.adapter import IMAGE_WEIGHTS, frozen_tower
from clinalign.models.features import Features, from_arrays
from clinalign.models.tree import Target, fork_of, pack, score, score_tokens, tree_of
from clinalign.training import train, trainer
from clinalign.training.loop import batch_at
from clinalign.training.metrics import read_metrics

PROMPT = "Where is the nodule?"
PROJECTED = "model.multi_modal_projector.linear_2.weight"
ANSWERS = [[20, 21, 22], [20, 30]]
IMAGES = [tiny.image(0, 40, 32), tiny.image(1, 32, 64)]


def naive(vlm: VLM) -> Tensor:
    """The sum of both answers' log-probabilities by two passes of the model's own forward."""
    total = torch.zeros(())
    for answer in ANSWERS:
        rows = own.logits(vlm, own.inputs(vlm, PROMPT, IMAGES, answer), len(answer) + 1)[:-1].log_softmax(-1)
        total = total + rows.gather(1, torch.tensor(answer)[:, None]).sum()
    return total


def packed(vlm: VLM, features: Features, keys: list[str]) -> Tensor:
    """The same by the packed step."""
    tree = tree_of(vlm, PROMPT, IMAGES, keys, [fork_of(ANSWERS)])
    targets = [Target(0, 0, a, n, token) for a, answer in enumerate(ANSWERS) for n, token in enumerate(answer)]
    return score_tokens(vlm, pack(vlm, [tree], targets), features).logps.sum()


@pytest.mark.parametrize("parts", [["projector"], ["projector", "tower"]], ids="+".join)
@pytest.mark.parametrize("family", [*tiny.EVERY_FAMILY, "llava_next", "smolvlm", "glm4v"])
def test_the_packed_gradient_is_the_models_own(family: str, parts: list[str]) -> None:
    """Value, gradient of every weight that trains, and both again after a step: nothing of the tower's is stale."""
    vlm = tiny.tiny(family) if family in tiny.EVERY_FAMILY else build(family)
    vlm.train_images(parts)
    params = vlm.trainable()
    assert params and all("language_model.layers" not in name for name in params)
    features, [keys] = from_arrays(vlm, [IMAGES])
    for _ in range(2):
        with torch.enable_grad():
            fast, slow = packed(vlm, features, keys), naive(vlm)
        grads = [torch.autograd.grad(total, list(params.values()), allow_unused=True) for total in (fast, slow)]
        assert float(fast.detach()) == pytest.approx(float(slow.detach()), abs=1e-4)
        for name, mine, other in zip(params, *grads, strict=True):
            assert mine is not None and other is not None, name
            assert torch.allclose(mine, other, atol=1e-4 * max(1.0, float(other.abs().max()))), name
        with torch.no_grad():
            for value, gradient in zip(params.values(), grads[0], strict=True):
                value += 0.05 * gradient / gradient.norm().clamp(min=1e-6)
    kept = len(features.towers)
    assert kept == (2 if parts == ["projector"] and frozen_tower(vlm.model) is not None else 0)


def test_the_reference_sees_with_the_eyes_it_had() -> None:
    """Under `adapter_off` an image has its first features, whatever was computed before."""
    vlm = tiny.tiny_llava()
    features, [keys] = from_arrays(vlm, [IMAGES])
    tree = tree_of(vlm, PROMPT, IMAGES, keys, [fork_of(ANSWERS)])
    [before] = score(vlm, [tree], features)
    vlm.train_images(["projector"])
    with torch.no_grad():
        for value in vlm.trainable().values():
            value.add_(0.1)
    [after] = score(vlm, [tree], features)
    with vlm.adapter_off():
        [reference] = score(vlm, [tree], features)
    [again] = score(vlm, [tree], features)
    assert torch.equal(before.logps[0][0], reference.logps[0][0]) and torch.equal(after.logps[0][0], again.logps[0][0])
    assert not torch.allclose(before.logps[0][0], after.logps[0][0])
    vlm.remove_adapter()
    assert not vlm.trainable() and torch.equal(score(vlm, [tree], features)[0].logps[0][0], before.logps[0][0])


def run(base: Path, folder: Path, out: Path, **values: Any) -> tuple[Any, VLM]:  # noqa: F811
    vlm = load_vlm(str(base))
    pairs = [make(vlm, i) for i in range(10)]
    return train(vlm, pairs, folder, settings(out, **values), out, label="firempo"), vlm


@pytest.mark.parametrize("parts", [["projector"], ["language", "projector"], ["language", "tower"]], ids="+".join)
def test_a_run_trains_what_is_named_and_nothing_else(
    base: Path,  # noqa: F811
    folder: Path,  # noqa: F811
    tmp_path: Path,
    parts: list[str],
) -> None:
    result, vlm = run(base, folder, tmp_path / "out", train=parts)
    rows = read_metrics(result.metrics)
    assert rows[0]["loss/kl"] == pytest.approx(0, abs=1e-6) and rows[-1]["loss/rank"] < rows[0]["loss/rank"]
    assert (result.adapter / "adapter_model.safetensors").is_file() == ("language" in parts)
    plain = load_vlm(str(base))
    stored = load_file(result.adapter / IMAGE_WEIGHTS)
    before = dict(plain.model.named_parameters())
    part = "multi_modal_projector" if "projector" in parts else "vision_tower"
    assert all(part in name for name in stored) and any(not torch.equal(v, before[n]) for n, v in stored.items())
    loaded = load_vlm(str(base), adapter=result.adapter)
    prompts = [(PROMPT, [IMAGES[0]])]
    assert torch.equal(loaded.image_features(IMAGES)[0], vlm.image_features(IMAGES)[0])
    assert not torch.equal(loaded.image_features(IMAGES)[0], plain.image_features(IMAGES)[0])
    features, [keys] = from_arrays(loaded, [IMAGES])
    with loaded.adapter_off():
        assert torch.equal(features.get(keys)[0], plain.image_features(IMAGES)[0])
    if "language" not in parts:
        loaded.merge_adapter()
        assert loaded.generate(prompts) == vlm.generate(prompts)
    card = (result.adapter / "README.md").read_text()
    assert ("language model are those of the base" in card) == ("language" not in parts)
    finished, _ = run(base, folder, tmp_path / "out", train=parts)
    assert finished.steps == result.steps, "a finished run is returned as it is"


def test_stopped_and_resumed_is_the_same_run(
    base: Path,  # noqa: F811
    folder: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Checkpoints hold the projector too."""
    from clinalign.training import loop

    whole, _ = run(base, folder, tmp_path / "a", train=["language", "projector"])
    saved, steps = loop.checkpoint.save, []

    def stop(*given: Any) -> None:
        saved(*given)
        steps.append(1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.checkpoint, "save", stop)
        run(base, folder, tmp_path / "b", train=["language", "projector"])
    again, _ = run(base, folder, tmp_path / "b", train=["language", "projector"])
    for name in ("adapter_model.safetensors", IMAGE_WEIGHTS):
        one, two = load_file(whole.adapter / name), load_file(again.adapter / name)
        assert steps and all(torch.equal(one[key], two[key]) for key in one), name


def test_nothing_of_trained_features_reaches_the_disk(base: Path, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    """The reference's features may: they are those of the base; a later run reads no others."""
    values = {"train": ["projector"], "cache_features": True, "max_steps": 2}
    result, vlm = run(base, folder, tmp_path / "a", **values)
    plain = load_vlm(str(base))
    reader = lambda key: tiny.image(int(Path(key).stem))  # noqa: E731
    disk = tmp_path / "a" / "cache" / "features"
    stored, keys = Features(plain, reader, folder=disk), [f"images/{i}.png" for i in range(10)]
    got = stored.get(keys)
    assert stored.encoded <= 2, "two steps of four pairs have filled the disk with those of the base"
    for key, features in zip(keys, got, strict=True):
        [own_features], [trained] = (one.image_features([reader(key)]) for one in (plain, vlm))
        assert torch.allclose(features, own_features, atol=1e-5) and not torch.allclose(features, trained, atol=1e-5)
    loaded = load_vlm(str(base), adapter=result.adapter)
    assert Features(loaded, reader, folder=disk).store is None, "it sees with two sets of weights"


def test_what_cannot_train_is_refused_by_name(base: Path, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(ValueError, match="tune=full"):
        settings(tmp_path, train=["projector"], tune="full")
    with pytest.raises(ValueError, match="at least 1"):
        settings(tmp_path, train=[])
    vlm = load_vlm(str(base), dtype="bfloat16")
    with pytest.raises(UsageError, match="float32"):
        train(vlm, [make(vlm, 0)], folder, settings(tmp_path, train=["projector"]), tmp_path / "o", label="firempo")
    vlm = load_vlm(str(base), unpacked=True)
    with pytest.raises(UsageError, match="packed"):
        train(vlm, [make(vlm, 0)], folder, settings(tmp_path, train=["projector"]), tmp_path / "o", label="firempo")


def test_full_fine_tuning_takes_the_projector_along(base: Path, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    result, vlm = run(base, folder, tmp_path / "out", tune="full", train=["language", "projector"], max_steps=2)
    stored = load_file(result.adapter / "language_model.safetensors")
    assert any("multi_modal_projector" in name for name in stored) and not any("vision_tower" in n for n in stored)
    loaded = load_vlm(str(base), adapter=result.adapter)
    assert torch.equal(loaded.image_features(IMAGES)[0], vlm.image_features(IMAGES)[0])
    assert np.isfinite(read_metrics(result.metrics)[-1]["loss"])


def _cut_language(vlm: VLM, patch: pytest.MonkeyPatch) -> None:
    vlm.peft.disable_adapter_layers()
    for name, value in vlm.model.named_parameters():
        value.requires_grad_("lora_" in name or name in vlm.image_base)


def _cut_projector(vlm: VLM, patch: pytest.MonkeyPatch) -> None:
    projector = vlm.model.model.multi_modal_projector

    def detached(*inputs: Any) -> Tensor:
        frozen = {name: value.detach() for name, value in projector.named_parameters()}
        patch.delattr(projector, "forward")
        try:
            out: Tensor = torch.func.functional_call(projector, frozen, inputs)
        finally:
            patch.setattr(projector, "forward", detached, raising=False)
        return out

    patch.setattr(projector, "forward", detached, raising=False)


def _cut_tower(vlm: VLM, patch: pytest.MonkeyPatch) -> None:
    tower = vlm.model.model.vision_tower
    forward = tower.forward

    def without(*given: Any, **named: Any) -> Any:
        with torch.no_grad():
            return forward(*given, **named)

    patch.setattr(tower, "forward", without, raising=False)


@pytest.mark.parametrize(
    ("cut", "name"),
    [
        (_cut_language, r"model\.language_model\.layers\..*proj"),
        (_cut_projector, r"model\.multi_modal_projector\.linear_1"),
        (_cut_tower, r"model\.vision_tower\."),
    ],
    ids=["language", "projector", "tower"],
)
def test_a_group_that_no_gradient_reaches_stops_the_run_with_its_name(
    base: Path,  # noqa: F811
    folder: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cut: Any,
    name: str,
) -> None:
    from clinalign.training import loop

    vlm = load_vlm(str(base))
    check = loop.check_gradients

    def checked(params: Any, step: int) -> None:
        assert any("lora_B" in n for n in params) and any("projector" in n for n in params)
        assert any("vision_tower" in n for n in params)
        check(params, step)

    fit = trainer.fit

    def cut_first(*given: Any, **named: Any) -> Any:
        cut(vlm, monkeypatch)
        return fit(*given, **named)

    monkeypatch.setattr(loop, "check_gradients", checked)
    monkeypatch.setattr(trainer, "fit", cut_first)
    options = settings(tmp_path / "o", train=["language", "projector", "tower"], max_steps=1)
    with pytest.raises(UsageError, match=f"step 1: no gradient reached '{name}"):
        train(vlm, [make(vlm, i) for i in range(4)], folder, options, tmp_path / "o", label="firempo")


def mixed(vlm: VLM, options: Any, shown: int) -> list[Any]:
    """Pairs without an image but for the one that step `shown` takes; three steps of one pair each."""
    place = batch_at(shown, 3, options, 0)[0]
    return [make(vlm, i, **({} if i == place else {"images": [], "corrupted_images": None})) for i in range(3)]


@pytest.mark.parametrize("shown", [0, 1])
@pytest.mark.parametrize(
    ("parts", "method"),
    [(["projector"], "firempo"), (["projector"], "rc"), (["language", "projector"], "firempo")],
    ids=["projector", "rc", "both"],
)
def test_steps_without_an_image_leave_the_projector_alone(
    base: Path,  # noqa: F811
    folder: Path,  # noqa: F811
    tmp_path: Path,
    parts: list[str],
    method: str,
    shown: int,
) -> None:
    """Whichever step shows the image: before it no gradient is missed, behind it no moment moves the projector on."""
    options = settings(tmp_path, train=parts, method=method, batch=1, max_steps=0, epochs=1, schedule="constant")
    vlm = load_vlm(str(base))
    weights: list[Tensor] = []
    step = torch.optim.AdamW.step

    def noted(self: Any, *given: Any) -> None:
        step(self, *given)
        weights.append(vlm.model.get_parameter(PROJECTED).detach().clone())

    pairs = mixed(vlm, options, shown)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", noted)
        patch.setattr(trainer, "measure", lambda found, *_: found)  # it tries AdamW on copies
        train(vlm, pairs, folder, options, tmp_path / "o", label=method)
    first = load_vlm(str(base)).model.get_parameter(PROJECTED)
    moved = [not torch.equal(a, b) for a, b in zip([first, *weights], weights)]
    assert moved == [number == shown for number in range(3)]
    assert all(math.isfinite(row["loss"]) for row in read_metrics(tmp_path / "o" / "metrics.jsonl"))


def test_the_estimate_tries_pairs_without_an_image(base: Path, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    options = settings(tmp_path, train=["projector"], batch=1, max_steps=0, epochs=1)
    vlm = load_vlm(str(base))
    train(vlm, mixed(vlm, options, 2), folder, options, tmp_path / "o", label="firempo")
    assert len(read_metrics(tmp_path / "o" / "metrics.jsonl")) == 3


def test_a_projector_that_no_pair_shows_an_image_is_refused(base: Path, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    vlm = load_vlm(str(base))
    pairs = [make(vlm, i, images=[], corrupted_images=None) for i in range(2)]
    options = settings(tmp_path, train=["language", "projector"], batch=1)
    with pytest.raises(UsageError, match="train=projector: none of the 2 pairs shows an image"):
        train(vlm, pairs, folder, options, tmp_path / "o", label="firempo")
