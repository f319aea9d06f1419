"""Two processes train to the losses of one, whole (DDP) or in shares (FSDP2 on gloo), and never wait for each other in
vain: uneven batches, pairs with and without images, every family, fifty random trainings, kills."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from safetensors.torch import load_file
from several import COMPARED, Job, Watched, compared, difference, drawn, twenty, uneven

from clinalign.storage import cache_folder
from clinalign.storage.tensors import TensorStore
from clinalign.training.loop import batch_at
from clinalign.training.options import TrainOptions

pytestmark = pytest.mark.slow

RUNS = 50


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return Watched(tmp_path_factory.mktemp("several"))


def facts(ended: list[dict[str, Any]] | str) -> list[dict[str, Any]]:
    assert not isinstance(ended, str), ended
    return ended


def test_twenty_steps_equal_one_process_and_shares_are_shares(watched: Watched) -> None:
    one, ddp, fsdp = twenty("one"), twenty("ddp"), twenty("fsdp", "fsdp")
    [alone] = watched([one], 1)
    both = watched([ddp, fsdp], 2)
    [single] = facts(alone)
    for job, ended in zip((ddp, fsdp), both, strict=True):
        members = facts(ended)
        assert difference(watched.rows(one), watched.rows(job), COMPARED) < 1e-5
        assert len(watched.rows(job)) == 20
        assert members[0]["answer"] == single["answer"]
        trained = members[0]["trained"]
        assert [m["held"] for m in members] == [0, 0] if job is ddp else sum(m["held"] for m in members) == trained
    assert facts(both[1])[0]["shares"] > 0 and facts(both[0])[0]["shares"] == 0
    adapters = [load_file(watched.folder / job.out / "adapter/adapter_model.safetensors") for job in (one, ddp, fsdp)]
    for other in adapters[1:]:
        assert other.keys() == adapters[0].keys()
        assert all((other[name] - value).abs().max() < 1e-5 for name, value in adapters[0].items())
    assert any(value.abs().max() > 0 for name, value in adapters[2].items() if "lora_B" in name)


def test_every_family_packed_in_two_processes_equals_one(watched: Watched) -> None:
    options = {"batch": 3, "micro_batch": 2, "max_steps": 2}
    jobs = [
        Job(f"{family}-{parallel}", uneven(5, seed), options | {"parallel": parallel}, model=family)
        for seed, family in enumerate(tiny.EVERY_FAMILY)
        for parallel in ("ddp", "fsdp")
    ]
    found = compared(watched, jobs, "families")
    assert len(found) == len(jobs) and all(gap < 1e-5 for gap in found.values()), found


def test_batches_without_an_image_leave_the_projector_alone_as_in_one_process(watched: Watched) -> None:
    """One image in four pairs, shown in the first step or in the second: both processes are without one in the others,
    and one of them where the image is shown."""
    jobs = []
    for train in (["projector"], ["language", "projector"]):
        for shown in (0, 1):
            options = {"batch": 2, "max_steps": 0, "epochs": 2, "train": train}
            place = batch_at(shown, 4, TrainOptions(**options), 0)[0]
            kinds = ["plain" if i == place else "text" for i in range(4)]
            jobs.append(Job(f"imageless-{len(jobs)}", kinds, options))
    found = compared(watched, jobs, "imageless")
    assert len(found) == 4 and all(gap < 1e-5 for gap in found.values()), found


def test_random_trainings_end_and_equal_one_process(watched: Watched) -> None:
    before = watched.deadlocks
    found = compared(watched, [drawn(number, f"random-{number}") for number in range(RUNS)], "random")
    assert watched.deadlocks == before
    assert len(found) == RUNS and all(gap < 1e-5 for gap in found.values()), {k: v for k, v in found.items() if v > 0}


@pytest.mark.parametrize("number", range(4))
def test_killed_at_a_random_step_and_resumed_by_one_or_two(watched: Watched, number: int) -> None:
    draw = random.Random(number)
    before, after = [("ddp", 2), ("fsdp", 2), ("fsdp", 2), ("ddp", 2)][number], [1, 2, 1, 2][number]
    options = {"batch": 4, "micro_batch": 2, "max_steps": 8, "checkpoint_every": 2, "log_every": 1}
    job = Job(f"killed-{number}", uneven(9, number), options | {"parallel": before[0]})
    whole = replace(job, out=f"whole-{number}")
    facts(watched([whole], 1)[0])
    dying = replace(job, kill=draw.randint(0, 1), kill_at=draw.randint(1, 8))
    assert watched([dying], before[1]) == ["SIGKILL"]
    done = len(watched.rows(job)) if (watched.folder / job.out / "metrics.jsonl").is_file() else 0
    assert done < 8
    other = {"ddp": "fsdp", "fsdp": "ddp"}[before[0]] if number == 3 else before[0]
    facts(watched([replace(job, options=job.options | {"parallel": other})], after)[0])
    assert difference(watched.rows(whole), watched.rows(job), COMPARED) < 1e-5
    assert not list((watched.folder / job.out).glob("*.damaged*"))


def test_a_process_that_stops_for_good_is_a_deadlock(tmp_path: Path) -> None:
    """The other waits for its gradients: neither ends, neither computes. What comes behind goes on in new processes."""
    watched = Watched(tmp_path, patience_s=60.0)
    plain = Job("plain", ["plain", "text"], {"batch": 2, "max_steps": 1, "method": "sft"})
    ended = watched([replace(plain, out="stopped", kill=1, kill_at=1, by="SIGSTOP"), plain], 2)
    assert ended[0] == "deadlock" and watched.deadlocks == 1
    assert len(facts(ended[1])) == 2


def test_caches_are_filled_in_shares_and_read_by_all(watched: Watched) -> None:
    """Each record of the reference and of the features is computed by one process, once, and found by the other."""
    kinds = uneven(9, 3)
    job = Job("caches", kinds, {"batch": 4, "max_steps": 3, "cache_features": True})
    members = facts(watched([job], 2)[0])
    assert [m["filled"] for m in members] == [5, 4]
    shown = {
        f"{folder}/{n}.png"
        for i, kind in enumerate(kinds)
        for n in {"text": [], "two": [i, (i + 1) % 10]}.get(kind, [i])
        for folder in (("images", "corrupted") if kind in ("two", "corrupted") else ("images",))
    }
    assert sum(m["encoded"] for m in members) == len(shown)
    assert max(m["encoded"] for m in members) - min(m["encoded"] for m in members) <= 1
    cache = cache_folder(str(watched.folder / job.out / "cache"))
    assert cache is not None
    for what, count in (("reference", len(kinds)), ("features", len(shown))):
        [folder] = [path for path in (cache / what).iterdir() if path.is_dir()]
        written = [path for path in folder.glob("*.safetensors")]
        assert 2 <= len(written) <= 3  # one shard a process; no record twice
        assert len(list(TensorStore(folder, {}, what).keys())) == count
    again = facts(watched([replace(job, out="caches-again", options=job.options | {"cache": str(cache)})], 2)[0])
    assert [m["filled"] for m in again] == [0, 0] and [m["encoded"] for m in again] == [0, 0]


def test_a_process_without_a_pair_takes_part_in_all_sums(watched: Watched) -> None:
    """One pair over two processes: the second has no metrics of its own; RC and KTO sum over both."""
    jobs = [
        Job(f"single-{name}", ["plain", "text", "plain"], {"method": name, "batch": 2, "max_steps": 0, "epochs": 1})
        for name in ("dpo", "rc", "kto")
    ]
    jobs.append(replace(jobs[0], out="single-fsdp", options=jobs[0].options | {"parallel": "fsdp"}))
    jobs.append(replace(jobs[-1], out="single-first", kinds=["plain"]))
    found = compared(watched, jobs, "single")
    assert all(gap < 1e-5 for gap in found.values()), found
