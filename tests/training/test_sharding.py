"""What several processes are refused by name, and the helpers of gradients in shares where there are none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch

from clinalign import processes
from clinalign.errors import UsageError
from clinalign.training.loop import accumulate
from clinalign.training.options import ReinforceOptions, TrainOptions, method_of
from clinalign.training.reinforce import check_reinforce
from clinalign.training.sharding import LAUNCHERS, clip_gradients, groups, refusal, shared_like, sum_gradients, whole


def refused(cached: bool = True, unpacked: bool = False, quantize: bool = False, **values: Any) -> str:
    options = TrainOptions(**values)
    return refusal(options, method_of(options), unpacked=unpacked, quantize=quantize, cached=cached)


@pytest.mark.parametrize("name", LAUNCHERS)
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_accelerates_own_sharing_is_refused_by_name(name: str, parallel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU accelerate's FSDP is plain data parallelism without a word; on a GPU nothing here would ask it."""
    monkeypatch.setenv(name, "true")
    text = refused(parallel=parallel)
    assert name in text and LAUNCHERS[name] in text and "parallel=fsdp" in text
    monkeypatch.setenv(name, "false")
    assert refused(parallel=parallel) == ""


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"unpacked": True}, "packed forward"),
        ({"quantize": True}, "4-bit"),
        ({"method": "kto"}, "method kto"),
        ({"train": ["projector"]}, "train=projector"),
        ({"method": "dpo", "rescale": True}, "align.rescale"),
        ({"cached": False}, "cache"),
    ],
)
def test_what_needs_forwards_of_one_process_is_refused_in_shares(
    values: dict[str, Any], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refused(**values, parallel="fsdp") == ""  # one process: nothing is shared
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert word in refused(**values, parallel="fsdp") and "parallel=ddp" in refused(**values, parallel="fsdp")
    assert refused(**values) == ""
    assert refused(cached=False, method="sft", parallel="fsdp") == ""  # there is no reference to read


def test_reinforcement_refuses_accelerates_fsdp_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's trainer does ask accelerate: on a GPU its FSDP is FSDP."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError, match="ACCELERATE_USE_FSDP"):
        check_reinforce(ReinforceOptions(), "cpu")
    check_reinforce(ReinforceOptions(), "cuda")


def test_clipping_equals_torchs() -> None:
    """Gradients (3, 4) and (12): norm 13; clipped to 6.5 each is half. A limit of 0 leaves them."""
    for limit, factor in ((6.5, 0.5), (0.0, 1.0), (20.0, 1.0)):
        params = [
            torch.nn.Parameter(torch.zeros(2)),
            torch.nn.Parameter(torch.zeros(1)),
            torch.nn.Parameter(torch.ones(1)),
        ]
        params[0].grad, params[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([12.0])
        assert clip_gradients(params, limit).item() == pytest.approx(13.0)
        assert params[0].grad.tolist() == pytest.approx([3 * factor, 4 * factor], rel=1e-5)
        assert params[1].grad.tolist() == pytest.approx([12 * factor], rel=1e-5) and params[2].grad is None


def together(members: list[dict[str, torch.nn.Parameter]], monkeypatch: pytest.MonkeyPatch) -> None:
    """`sum_gradients` of several processes, each a thread here."""
    monkeypatch.setenv("WORLD_SIZE", str(len(members)))
    given: list[torch.Tensor] = []
    barrier = Barrier(len(members), timeout=20)

    def all_reduce(flat: torch.Tensor) -> None:
        given.append(flat.clone())
        barrier.wait()
        flat.copy_(torch.stack(given).sum(0))

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    with ThreadPoolExecutor(len(members)) as pool:
        list(pool.map(sum_gradients, members))


def test_a_gradient_that_no_process_has_stays_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW leaves a weight without gradient alone, and moves one whose gradient is zero by what it saw before: of a
    batch without an image, the projector's. One process has none there, so several must not make zeros of it."""
    members = [{name: torch.nn.Parameter(torch.ones(2)) for name in "abc"} for _ in range(2)]
    members[0]["a"].grad = torch.tensor([1.0, 2.0])
    members[1]["a"].grad = torch.tensor([3.0, 4.0])
    members[1]["b"].grad = torch.tensor([0.0, 0.0])  # there, though it is nothing
    together(members, monkeypatch)
    for params in members:
        grads = {name: value.grad for name, value in params.items()}
        assert grads["a"] is not None and grads["a"].tolist() == [4.0, 6.0]
        assert grads["b"] is not None and grads["b"].tolist() == [0.0, 0.0]
        assert grads["c"] is None


def test_gradients_of_all_parameters_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [{name: torch.nn.Parameter(torch.ones(())) for name in "ab"} for _ in range(3)]
    for number, params in enumerate(members):
        for value in params.values():
            value.grad = torch.tensor(10.0**number)
    together(members, monkeypatch)
    assert [value.grad for params in members for value in params.values()] == [torch.tensor(111.0)] * 6


def test_without_shares_tensors_are_as_they_are() -> None:
    value = torch.ones(3)
    assert whole(value) is value and torch.equal(shared_like(value, torch.zeros(3)), value)
    assert groups([value, value]) == [[value, value]] and groups([]) == []


def test_an_idle_micro_batch_runs_and_weighs_nothing() -> None:
    class Steps:
        sizes, draw = [1, 1, 1], 0

        def __init__(self) -> None:
            self.weight, self.asked = torch.nn.Parameter(torch.ones(())), []

        def loss(self, indexes: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            self.asked.append(list(indexes))
            each = torch.tensor([float(i + 1) for i in indexes])
            return self.weight * each.mean(), {"each": each}

    steps = Steps()
    values, tokens = accumulate(steps, [0, 1], 1, 4, [2, 2])
    assert steps.asked == [[0], [1], [2], [2]]
    assert steps.weight.grad is not None and steps.weight.grad.item() == pytest.approx((1 + 2) / 4)
    assert values["each"].tolist() == [1, 2] and tokens == 2


def test_shares_of_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every item is in one share; the first process has none fewer than any other."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    found = []
    for rank in "012":
        monkeypatch.setenv("RANK", rank)
        found.append(processes.share(range(7)))
    assert found == [[0, 3, 6], [1, 4], [2, 5]]


def test_one_process_sums_and_waits_for_nobody() -> None:
    value = torch.ones(2)
    assert processes.summed(value) is value and processes.first_of("a") == "a"
    processes.wait(cpu=True)
    processes.join(cpu=True)
