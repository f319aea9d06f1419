"""KTO's baseline and RC's factor: constants of a step, equal to the naive form, however the batch is cut or resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import naive
import numpy as np
import packing
import pytest
import tiny
import torch
from test_packing import WEIGHTS, gradient, policy, steps
from test_trainer import make, settings, stable, weights

from clinalign.errors import UsageError
from clinalign.imaging.images import write_png
from clinalign.models import VLM, load_vlm
from clinalign.objectives import METHODS, LossCoefficients
from clinalign.objectives.rescale import factor, scaled
from clinalign.training import loop, train
from clinalign.training.constants import RATIO, StepConstants, check_loss
from clinalign.training.encode import Sample, with_mismatched
from clinalign.training.loop import accumulate
from clinalign.training.options import TrainOptions, method_of
from clinalign.training.step import PackedSteps


@pytest.fixture(scope="module")
def llava() -> VLM:
    return policy("llava")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model under `model`, six images, and as many corrupted ones."""
    where = tmp_path_factory.mktemp("run")
    tiny.save(tiny.tiny_llava(), where / "model")
    for i in range(6):
        write_png(where / f"images/{i}.png", tiny.image(i))
        write_png(where / f"corrupted/{i}.png", 255 - tiny.image(i))
    return where


def some(vlm: VLM) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [packing.sample(vlm, i, rng, tails=(3 + i, 4)) for i in range(3)]


def same(value: torch.Tensor) -> torch.Tensor:
    return value


def test_the_baseline_is_the_mean_log_ratio_of_answers_to_other_prompts(llava: VLM) -> None:
    samples = some(llava)
    prepared = steps(llava, samples, "kto")
    ratios = prepared.mismatched(range(3), 2)
    expected = []
    for sample in samples:
        ids, images = sample.answers["mismatched"], [packing.read(llava)(key) for key in sample.images]
        with torch.no_grad():
            mine = naive.token_logps(naive.answer_logits(llava, sample.prompt, ids, images), ids).sum()
            with llava.adapter_off():
                theirs = naive.token_logps(naive.answer_logits(llava, sample.prompt, ids, images), ids).sum()
        expected.append(float(mine - theirs))
    assert ratios.tolist() == pytest.approx(expected, abs=1e-5) and not ratios.requires_grad
    assert prepared.constants is not None
    prepared.constants.baseline(ratios, same)
    assert prepared.constants.z0 == pytest.approx(max(0.0, sum(expected) / 3), abs=1e-5)
    prepared.constants.z0 = 0.7
    moved, _ = prepared.loss(range(3))
    known = [naive.passes(llava, sample, packing.read(llava)) for sample in samples]
    sums = [naive.logps(s, k, METHODS["kto"], WEIGHTS) for s, k in zip(samples, known, strict=True)]
    losses = [METHODS["kto"].loss(replace(one, baseline=torch.tensor([0.7])), WEIGHTS).loss for one in sums]
    plain = torch.cat(losses).mean()
    assert moved.item() == pytest.approx(plain.item(), abs=1e-5)
    ours, theirs_ = gradient(llava, moved), gradient(llava, plain)
    assert (ours - theirs_).norm() <= 1e-4 * theirs_.norm()


def test_each_prompt_gets_an_answer_of_another_example(llava: VLM) -> None:
    """The next sample's of another example, chosen and rejected by turns, cut where the model has no place for more."""
    a, b, c = some(llava)
    b = replace(b, example_id=a.example_id)
    found = with_mismatched([a, b, c], limit=len(a.prompt) + 3)
    assert found[0].answers["mismatched"] == c.answers["chosen"][:3]
    assert found[1].answers["mismatched"] == c.answers["rejected"][:3]
    assert found[2].answers["mismatched"] == a.answers["chosen"][:3]
    with pytest.raises(UsageError, match="all pairs are of one example"):
        with_mismatched([a, b], limit=100)


def measured(vlm: VLM, samples: Sequence[Sample], ratio: float | None, size: int) -> tuple[torch.Tensor, float]:
    """The gradient of a step of DPO under RC, and the ratio behind it."""
    prepared = PackedSteps(
        vlm, samples, METHODS["rc"], WEIGHTS, steps(vlm, list(samples), "rc").features,
        constants=StepConstants(ratio=ratio),
    )  # fmt: skip
    params = vlm.trainable()
    assert prepared.constants is not None
    prepared.constants.start(params)
    for value in params.values():
        value.grad = None
    accumulate(prepared, range(len(samples)), size, len(samples))
    row = prepared.constants.finish(same)
    assert row == {RATIO: prepared.constants.ratio}
    return torch.cat(
        [torch.zeros_like(v).flatten() if v.grad is None else v.grad.flatten() for v in params.values()]
    ), row[RATIO]


def test_rc_equals_the_naive_form_and_does_not_depend_on_the_cut(llava: VLM) -> None:
    """r* = |grad z-| / |grad z+| over the batch's plain passes, r = 1 for DPO; with a = 2 before the step the chosen
    sums have twice their gradient and the rejected ones half."""
    samples = some(llava)
    known = [naive.passes(llava, sample, packing.read(llava)) for sample in samples]
    sums = [naive.logps(s, k, METHODS["rc"], WEIGHTS) for s, k in zip(samples, known, strict=True)]
    chosen, rejected = (torch.cat([getattr(one, side) for one in sums]) for side in ("chosen", "rejected"))
    norms = [gradient(llava, value.sum(), retain=True).norm() for value in (chosen, rejected)]
    expected = float(norms[1] / norms[0])
    a = factor(4.0)
    refs = [torch.cat([getattr(one, f"ref_{side}") for one in sums]) for side in ("chosen", "rejected")]
    gap = WEIGHTS.beta * ((scaled(chosen, a) - scaled(rejected, 1 / a)) - (refs[0] - refs[1]))
    plain = gradient(llava, -torch.nn.functional.logsigmoid(gap).mean())
    for size in (3, 1):
        found, ratio = measured(llava, samples, None, size)
        assert ratio == pytest.approx(expected, rel=1e-4)
        found, ratio = measured(llava, samples, 4.0, size)
        assert ratio == pytest.approx(4.0**0.98 * expected**0.02, rel=1e-4)
        assert (found - plain).norm() <= 1e-4 * plain.norm()


def test_rc_rescales_any_margin_loss_and_refuses_others_by_name() -> None:
    for name, method in METHODS.items():
        given = method_of(TrainOptions(method=name, rescale=True))
        coefficients = method.coefficients(LossCoefficients(**{"gamma": 1.0, "alpha": 0.5}))
        ranks = method.preference_on != "none" and {"chosen", "rejected"} <= set(method.clean) and name != "keep_gated"
        if ranks:
            check_loss(name, given, coefficients)
        else:
            with pytest.raises(UsageError, match=f"method {name} does not raise the chosen answer"):
                check_loss(name, given, coefficients)


@pytest.mark.parametrize("method", ["rc", "kto"])
def test_a_resumed_or_cut_training_is_the_same(
    method: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KTO's baseline is 0 at first and RC's factor 1; both move, and neither an interruption nor the cut moves them."""
    lora = {"r": 4, "alpha": 8, "dropout": 0.0}

    def trained(out: str, **more: Any) -> Any:
        vlm = load_vlm(str(folder / "model"))
        options = settings(tmp_path, method=method, max_steps=4, lora=lora, **more)
        return train(vlm, [make(vlm, i) for i in range(6)], folder, options, tmp_path / out, label=method)

    whole = trained("whole")
    gradients, calls = loop._gradients, []

    def interrupted(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return gradients(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "_gradients", interrupted)
        trained("again")
    again = trained("again")
    assert stable(again.metrics) == stable(whole.metrics)
    mine, theirs = weights(again.adapter), weights(whole.adapter)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    for a, b in zip(stable(trained("cut", micro_batch=1).metrics), stable(whole.metrics), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a.get(RATIO, 0) == pytest.approx(b.get(RATIO, 0), rel=1e-3)
    if method == "rc":
        assert len({row[RATIO] for row in stable(whole.metrics)}) > 1
