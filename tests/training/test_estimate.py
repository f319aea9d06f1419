"""What is said before the first step, worked by hand, and that trying it changes nothing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from clinalign.training import estimate as module
from clinalign.training.estimate import Estimate, measure
from clinalign.training.options import TrainOptions

FOUND = Estimate(weights=2**30, optimizer=2**29, activations=2**28, seconds=1.0, tokens=20)


class Clock:
    """Eight pairs of ten tokens with an image each; the first micro-batch takes 5 s and encodes 3 images, then 2 s."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.weight = 0.0, torch.nn.Parameter(torch.ones(3))
        self.sizes = [10] * 8
        self.samples = [SimpleNamespace(images=[f"{i}"], corrupted=None, ladder=[]) for i in range(8)]
        self.features = SimpleNamespace(encoded=0)
        self.asked: list[list[int]] = []
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)

    def loss(self, indexes):
        """One value; draws from the global generator as dropout would."""
        self.now += 2.0 if self.asked else 5.0
        self.features.encoded += 0 if self.asked else 3
        self.asked.append(list(indexes))
        return (self.weight * torch.rand(3)).sum(), {}


def test_time_is_scaled_from_the_largest_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 steps of 40 tokens at 2 s for 20 tokens are 8 s; 8 images at (5 - 2) / 3 s are 8 s: 16 s in all."""
    clock = Clock(monkeypatch)
    options = TrainOptions(batch=4, micro_batch=2)
    state = torch.random.get_rng_state()
    found = measure(FOUND, clock, {"w": clock.weight}, options, seed=0)
    assert found.seconds == pytest.approx(16.0) and found.micro_seconds == 2.0 and found.peak_mb > 10
    assert [len(micro) for micro in clock.asked] == [2, 2] and found.parts == pytest.approx({"images": 8, "steps": 8})
    assert clock.weight.grad is None and torch.equal(torch.random.get_rng_state(), state)


def test_a_fixed_part_and_one_by_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs of 10 and 30 tokens one by one: 3 s + 0.1 s a token are 4 s and 6 s. Two epochs of 4 and 4 pairs, batches
    of two: 8 steps, 16 micro-batches of 20 tokens on average are 16 * 3 + 320 * 0.1 = 80 s. No image is encoded: what
    the first time takes longer (1 s more) is nobody's."""
    clock = Clock(monkeypatch)
    clock.sizes = [10, 30] * 4

    def loss(indexes: list[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        clock.now += 3.0 + 0.1 * sum(clock.sizes[i] for i in indexes) + (0 if clock.asked else 1)
        clock.asked.append(list(indexes))
        return clock.weight.sum(), {}

    monkeypatch.setattr(clock, "loss", loss)
    found = measure(FOUND, clock, {"w": clock.weight}, TrainOptions(batch=2, micro_batch=1, epochs=2), seed=0)
    assert found.micro_seconds == pytest.approx(6.0)
    assert found.parts == pytest.approx({"images": 0.0, "steps": 80.0})


def test_what_is_printed() -> None:
    """1 GB of weights, half for the optimiser, a quarter of activations; tried only where it was."""
    assert str(FOUND) == (
        "estimate: 1.8 GB (weights 1.0 GB, optimizer 512 MB, activations 256 MB), about 1 s for the whole run"
    )
    tried = Estimate(2**30, 2**29, 2**28, 600.0, 2048, micro_seconds=0.5, peak_mb=2000.0)
    assert str(tried).endswith("about 10 min for the whole run; tried: 2,048 tokens in 0.50 s, peak 2,000 MB")
