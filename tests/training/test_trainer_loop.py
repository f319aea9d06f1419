"""The optimisation loop on a toy problem: order, accumulation, schedule, resume, warnings. No model is loaded."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from clinalign.errors import UsageError
from clinalign.training.loop import batch_at, fit, learning_rate, micro_batches, total_steps
from clinalign.training.metrics import TIMING_FIELDS, Row, check_trackers, early_warnings, read_metrics
from clinalign.training.options import TrainOptions
from clinalign.training.result import seconds_of

PAIRS = 13


class Toy:
    """Logistic regression with dropout: the smallest problem with a margin, per-pair metrics and a use of the RNG."""

    def __init__(self, dropout: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(7)
        self.features = torch.randn(PAIRS, 6, generator=generator)
        self.weight = torch.nn.Parameter(torch.zeros(6))
        self.sizes = [10 + (5 * i) % 7 for i in range(PAIRS)]
        self.dropout = dropout
        self.calls = 0
        self.stop_at = -1

    def loss(self, indexes: Any) -> tuple[Tensor, dict[str, Tensor]]:
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.calls += 1
        x = torch.nn.functional.dropout(self.features[indexes], self.dropout)
        margin = x @ self.weight
        visual = torch.where(torch.tensor(indexes) % 3 == 0, margin.detach(), torch.nan)
        return -torch.nn.functional.logsigmoid(margin).mean(), {"rewards/margins": margin.detach(), "visual": visual}


def options(**values: Any) -> TrainOptions:
    return TrainOptions(**{"lr": 0.05, "batch": 8, "max_steps": 12, "checkpoint_every": 3, "log_every": 2} | values)


def run(toy: Toy, out: Path, settings: TrainOptions, seeds: tuple[int, int] = (1, 2), fingerprint: str = "f") -> Any:
    return fit(toy, {"weight": toy.weight}, settings, out, label="toy", seeds=seeds, fingerprint=fingerprint)


def stable(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in TIMING_FIELDS} for row in rows]


def test_accumulating_8_x_1_equals_1_x_8(tmp_path: Path) -> None:
    one, eight, odd = Toy(), Toy(), Toy()
    rows_one = run(one, tmp_path / "a", options(micro_batch=1))
    rows_eight = run(eight, tmp_path / "b", options(micro_batch=8))
    run(odd, tmp_path / "c", options(micro_batch=3))
    assert torch.allclose(one.weight, eight.weight, atol=1e-6) and torch.allclose(odd.weight, eight.weight, atol=1e-6)
    for a, b in zip(rows_one, rows_eight, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-6)
        assert a["visual"] == pytest.approx(b["visual"], abs=1e-6)
    assert one.weight.abs().max() > 0.1  # it did train


def test_first_step_by_hand(tmp_path: Path) -> None:
    """At weight 0 every margin is 0: loss log 2, gradient -mean(x)/2; AdamW's first step is -lr * sign(gradient)."""
    toy = Toy()
    rows = run(toy, tmp_path, options(max_steps=1, lr=0.01, max_grad_norm=0))
    mean = toy.features[batch_at(0, PAIRS, options(), 2)].mean(0)
    assert rows[0]["loss"] == pytest.approx(0.693147, abs=1e-6)
    assert rows[0]["grad_norm"] == pytest.approx(float(mean.norm()) / 2, rel=1e-5)
    assert torch.allclose(toy.weight, 0.01 * mean.sign(), atol=1e-5)


def test_clipping_leaves_the_norm_that_was_measured(tmp_path: Path) -> None:
    free, clipped = Toy(), Toy()
    a = run(free, tmp_path / "a", options(max_steps=1, max_grad_norm=0))
    b = run(clipped, tmp_path / "b", options(max_steps=1, max_grad_norm=1e-9))
    assert a[0]["grad_norm"] == b[0]["grad_norm"]
    assert not torch.allclose(free.weight, clipped.weight)  # AdamW's epsilon shows when gradients are tiny


def test_order_is_a_permutation_each_epoch_and_depends_on_the_data_seed_alone() -> None:
    settings = options(batch=4, max_steps=0, epochs=2.0)
    steps = [batch_at(step, PAIRS, settings, 5) for step in range(total_steps(PAIRS, settings))]
    flat = sum(steps, [])
    assert sorted(flat[:PAIRS]) == sorted(flat[PAIRS:]) == list(range(PAIRS))
    assert flat[:PAIRS] != flat[PAIRS:]
    assert flat != sum((batch_at(step, PAIRS, settings, 6) for step in range(len(steps))), [])
    assert [len(step) for step in steps] == [4, 4, 4, 4, 4, 4, 2]


def test_seeds_of_model_and_data_are_apart(tmp_path: Path) -> None:
    base = stable(run(Toy(0.5), tmp_path / "a", options()))
    assert stable(run(Toy(0.5), tmp_path / "b", options())) == base
    assert stable(run(Toy(0.5), tmp_path / "c", options(), seeds=(9, 2))) != base
    other_data = stable(run(Toy(0.0), tmp_path / "d", options(), seeds=(1, 9)))
    assert other_data == stable(run(Toy(0.0), tmp_path / "e", options(), seeds=(3, 9)))
    assert other_data != stable(run(Toy(0.0), tmp_path / "f", options(), seeds=(1, 2)))


def test_schedule() -> None:
    """Ten steps, two of warm-up: 0.5, 1.0 of the rate, then half a cosine from 1 over the other eight."""
    settings = options(lr=2.0, warmup_ratio=0.2)
    rates = [learning_rate(step, 10, settings) for step in range(10)]
    assert rates[:3] == pytest.approx([1.0, 2.0, 2.0])
    assert rates[6] == pytest.approx(1.0)
    assert rates[9] == pytest.approx(2.0 * 0.5 * (1 - 0.9238795325))
    assert learning_rate(9, 10, options(lr=2.0, schedule="constant")) == 2.0


def test_micro_batches_hold_every_pair_once_and_like_sizes_together() -> None:
    sizes = [5, 50, 6, 49, 7]
    assert list(micro_batches([0, 1, 2, 3, 4], sizes, 2)) == [[1, 3], [4, 2], [0]]


@pytest.mark.parametrize("stop", [1, 5, 8])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, stop: int) -> None:
    whole = Toy(0.3)
    expected = stable(run(whole, tmp_path / "whole", options()))
    stopped = Toy(0.3)
    stopped.stop_at = stop
    with pytest.raises(KeyboardInterrupt):
        run(stopped, tmp_path / "cut", options())
    again = Toy(0.3)
    assert stable(run(again, tmp_path / "cut", options())) == expected
    assert stable(read_metrics(tmp_path / "cut" / "metrics.jsonl")) == expected
    assert torch.equal(again.weight, whole.weight)
    assert again.calls < len(expected) or stop < 3  # it did not simply start over


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_trainer_loop as t
toy = t.Toy(0.3)
loss = toy.loss
def dying(indexes):
    if toy.calls == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(indexes)
toy.loss = dying
t.run(toy, Path({out!r}), t.options())
"""


@pytest.mark.parametrize("how", ["interrupted", pytest.param("killed", marks=pytest.mark.slow)])
def test_killed_and_resumed_equals_uninterrupted(how: str, tmp_path: Path) -> None:
    if how == "killed":
        code = KILLED.format(tests=str(Path(__file__).parent), out=str(tmp_path / "cut"), at=7)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert done.returncode == -signal.SIGKILL, done.stderr
    else:
        stopped(tmp_path / "cut", dropout=0.3)
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "lo')  # a line that the kill cut short
    expected = stable(run(Toy(0.3), tmp_path / "whole", options()))
    assert stable(run(Toy(0.3), tmp_path / "cut", options())) == expected


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Each process takes half of every batch and gradients are summed; nothing else waits (LlamaFactory#8151)."""
    code = KILLED.format(tests=str(Path(__file__).parent), out=str(tmp_path / "two"), at=10**9).replace("0.3", "0.0")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | world | {"RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    two = stable(read_metrics(tmp_path / "two" / "metrics.jsonl"))
    one = stable(run(Toy(), tmp_path / "one", options()))
    assert len(two) == len(one)
    for a, b in zip(two, one, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def stopped(folder: Path, at: int = 7, dropout: float = 0.0) -> Path:
    """A training that was interrupted after its checkpoint at step 6."""
    toy = Toy(dropout)
    toy.stop_at = at
    with pytest.raises(KeyboardInterrupt):
        run(toy, folder, options())
    return folder


def test_a_checkpoint_of_other_settings_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = stable(run(Toy(), tmp_path / "whole", options(), fingerprint="g"))
    again = Toy()
    assert stable(run(again, stopped(tmp_path / "cut"), options(), fingerprint="g")) == expected
    assert again.calls == 12 and "trained anew" in capsys.readouterr().err


def test_one_that_goes_back_to_the_first_settings_gets_its_own_rows(tmp_path: Path) -> None:
    """The rows of metrics.jsonl belong to the training in between; those of the checkpoint count."""
    expected = stable(run(Toy(), tmp_path / "whole", options()))
    out = stopped(tmp_path / "cut")
    between = Toy(0.5)
    between.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        run(between, out, options(checkpoint_every=0, log_every=1), fingerprint="g")
    again = Toy()
    assert stable(run(again, out, options())) == expected and again.calls == 6
    assert stable(read_metrics(out / "metrics.jsonl")) == expected


@pytest.mark.parametrize("damage", [b"", b"torn", "half", "other names"])
def test_a_damaged_checkpoint_is_set_aside(
    damage: bytes | str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = stable(run(Toy(), tmp_path / "whole", options()))
    path = stopped(tmp_path / "cut") / "checkpoint.safetensors"
    if damage == "other names":
        save_file({"x": torch.zeros(2)}, path, metadata={"clinalign": '{"step": 6, "fingerprint": "f"}'})
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if damage == "half" else bytes(damage))
    assert stable(run(Toy(), tmp_path / "cut", options())) == expected
    assert "set aside as checkpoint.safetensors.damaged-1" in capsys.readouterr().err
    assert path.with_name(path.name + ".damaged-1").is_file()


def test_damaged_metrics_come_back_out_of_the_checkpoint(tmp_path: Path) -> None:
    expected = stable(run(Toy(), tmp_path / "whole", options()))
    out = stopped(tmp_path / "cut")
    (out / "metrics.jsonl").write_bytes(b"\x00{torn")
    again = Toy()
    assert stable(run(again, out, options())) == expected and again.calls == 6
    assert stable(read_metrics(out / "metrics.jsonl")) == expected


def test_a_loss_that_is_not_finite_names_the_step(tmp_path: Path) -> None:
    toy = Toy()
    toy.features[batch_at(1, PAIRS, options(), 2)[0]] = torch.inf
    with pytest.raises(UsageError, match=r"step [12]: loss"):
        run(toy, tmp_path, options())


def test_metric_that_does_not_apply_is_null_not_zero(tmp_path: Path) -> None:
    rows = run(Toy(), tmp_path, options(batch=1, max_steps=PAIRS))
    by_pair = {batch_at(step, PAIRS, options(batch=1), 2)[0]: row["visual"] for step, row in enumerate(rows)}
    assert all((by_pair[i] is None) == (i % 3 != 0) for i in range(PAIRS))
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def curve(accuracy: list[float], norm: list[float], chosen: list[float]) -> list[dict]:
    return [
        {"step": i + 1, "rewards/accuracies": a, "grad_norm": n, "rewards/chosen": c}
        for i, (a, n, c) in enumerate(zip(accuracy, norm, chosen, strict=True))
    ]


def test_early_warnings_fire_when_they_should_and_only_then() -> None:
    flat = [0.0] * 15
    hacked = curve([0.9] * 5 + [1.0] * 10, [1.75] * 5 + [0.5] * 5 + [0.01] * 5, flat)
    assert set(early_warnings(hacked)) == {"saturated"}
    assert not early_warnings(curve([0.9] * 5 + [1.0] * 10, [1.75] * 5 + [0.5] * 10, flat))  # gradient still alive
    assert not early_warnings(curve([0.8] * 15, [1.75] * 5 + [0.01] * 10, flat))  # not saturated
    falling = [0.0] * 5 + [-0.1] * 5 + [-0.4] * 5
    assert set(early_warnings(curve([0.8] * 15, [1.0] * 15, falling))) == {"chosen_falling"}
    assert not early_warnings(curve([0.8] * 15, [1.0] * 15, [-x for x in falling]))


def test_missing_tracker_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"pip install 'clinalign\[log\]'"):
        check_trackers(["wandb"])


def test_what_no_gradient_reaches_stops_the_run_after_step_one(tmp_path: Path) -> None:
    toy, unused = Toy(), torch.nn.Parameter(torch.zeros(2))
    params = {"weight": toy.weight, "visual.merger": unused}
    with pytest.raises(UsageError, match="step 1: no gradient reached 'visual.merger'"):
        fit(toy, params, options(), tmp_path, label="toy", seeds=(1, 2), fingerprint="f")
    assert not toy.weight.any()  # nothing was changed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("call", [0, 4, 7])
def test_a_signal_within_a_step_keeps_that_step_and_says_where(
    number: signal.Signals, call: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The step is finished, a checkpoint of it written, and then the program's own handler is called."""

    class Signalled(Toy):
        def loss(self, indexes: Any) -> tuple[Tensor, dict[str, Tensor]]:
            if self.calls == call:
                signal.raise_signal(number)
            return super().loss(indexes)

    def handler(*_: Any) -> None:
        raise SystemExit(128 + number)

    settings = options(checkpoint_every=0)
    whole = stable(run(Toy(), tmp_path / "whole", settings))
    before = signal.signal(number, handler)
    try:
        with pytest.raises(SystemExit):
            run(Signalled(), tmp_path / "cut", settings)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    assert f"stopped after step {call + 1} of 12, which {tmp_path / 'cut' / 'checkpoint.safetensors'} holds" in (
        capsys.readouterr().err
    )
    assert stable(run(Toy(), tmp_path / "cut", settings)) == whole
    assert f"resumed at step {call + 1}" in capsys.readouterr().err


def test_a_step_that_does_not_fit_is_done_again_in_smaller_parts_with_the_same_numbers(tmp_path: Path) -> None:
    """Out of memory after half of the backward passes: what they left in the gradients must not count."""

    class Full(Toy):
        def loss(self, indexes: Any) -> tuple[Tensor, dict[str, Tensor]]:
            self.calls += 1
            if len(indexes) > 2 and self.calls > 5:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().loss(indexes)

    whole = run(Toy(dropout=0.0), tmp_path / "whole", options(micro_batch=4))
    again = run(Full(dropout=0.0), tmp_path / "again", options(micro_batch=4))
    assert [row["loss"] for row in again] == pytest.approx([row["loss"] for row in whole], rel=1e-6)
    assert [row["grad_norm"] for row in again] == pytest.approx([row["grad_norm"] for row in whole], rel=1e-6)


def test_what_a_resumed_training_took_counts_the_steps_of_the_attempts_before() -> None:
    rows: list[Row] = [{"step": 1, "seconds": 40.0}, {"step": 2, "seconds": None}, {"step": 3, "seconds": 2.5}]
    now = time.perf_counter()
    assert seconds_of(now - 3, rows) == 42.5
    assert seconds_of(now - 60, rows) == pytest.approx(60, abs=1)
