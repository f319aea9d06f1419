"""The one tensor store: shards, several processes, damage, strangers."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch

from clinalign.errors import UsageError
from clinalign.storage import tensors
from clinalign.storage.tensors import TensorStore, read_tensors, write_tensors

MADE = {"weights": "a", "processor": "b"}


def record(number: int) -> dict[str, torch.Tensor]:
    return {"logps": torch.full((number % 5 + 1,), float(number)), "index": torch.arange(number % 3)}


def same(found: dict[str, torch.Tensor] | None, number: int) -> bool:
    wanted = record(number)
    return found is not None and found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_20_000_records_are_few_files_and_all_come_back(tmp_path: Path) -> None:
    store = TensorStore(tmp_path, MADE, "reference")
    for start in range(0, 20_000, 8):
        store.put({f"key{i}": record(i) for i in range(start, start + 8)})
    store.flush()
    assert len(list(tmp_path.rglob("*"))) < 200
    again = TensorStore(tmp_path, MADE, "reference")
    assert all(same(again.get(f"key{i}"), i) for i in range(0, 20_000, 7)) and again.get("key20000") is None
    assert sum(1 for _ in again.keys()) == 20_000


def test_records_are_readable_before_they_are_written_and_the_later_one_wins(tmp_path: Path) -> None:
    store = TensorStore(tmp_path, MADE, "reference")
    store.put({"a": record(1)})
    assert same(store.get("a"), 1) and shards(tmp_path) == [] and "a" in store
    store.flush()
    store.put({"a": record(2)})
    assert same(store.get("a"), 2)
    store.flush()
    assert same(TensorStore(tmp_path, MADE, "reference").get("a"), 2)


def test_what_is_put_is_a_copy(tmp_path: Path) -> None:
    """Views of one tensor, changed afterwards."""
    store, batch = TensorStore(tmp_path, MADE, "feature"), torch.arange(6.0).reshape(3, 2)
    store.put({f"key{i}": {"features": batch[i]} for i in range(3)})
    batch.zero_()
    store.flush()
    assert store.get("key2")["features"].tolist() == [4.0, 5.0]


def fill(folder: str, first: int, count: int) -> None:
    store = TensorStore(Path(folder), MADE, "reference")
    for i in range(first, first + count):
        store.put({f"key{i}": record(i)})
        if i % 10 == 0:
            store.flush()
    store.flush()


def test_several_processes_fill_one_store(tmp_path: Path) -> None:
    """Overlapping keys, flushed at different times, while a reader that was there before looks on."""
    reader = TensorStore(tmp_path, MADE, "reference")
    assert reader.get("key0") is None
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=fill, args=(str(tmp_path), first, 60)) for first in (0, 40, 80)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert all(same(reader.get(f"key{i}"), i) for i in range(140))


def test_many_small_shards_are_packed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "MANY_SHARDS", 10)
    old = TensorStore(tmp_path, MADE, "reference")
    for i in range(12):
        TensorStore(tmp_path, MADE, "reference") if i == 5 else None
        old.put({f"key{i}": record(i)})
        old.flush()
    assert len(shards(tmp_path)) == 12
    packed = TensorStore(tmp_path, MADE, "reference")
    assert len(shards(tmp_path)) == 1
    assert all(same(store.get(f"key{i}"), i) for i in range(12) for store in (packed, old))


@pytest.mark.parametrize("damage", ["half", "empty", "text", "other model", "foreign"])
def test_a_bad_shard_is_one_line_and_its_records_are_missing(tmp_path: Path, capsys, damage: str) -> None:
    store = TensorStore(tmp_path, MADE, "reference")
    store.put({"a": record(3)})
    store.flush()
    store.put({"b": record(4)})
    store.flush()
    path = shards(tmp_path)[0]
    whole = path.read_bytes()
    if damage in ("half", "empty", "text"):
        path.write_bytes({"half": whole[: len(whole) // 2], "empty": b"", "text": b"no tensors" * 40}[damage])
    else:
        found, _ = read_tensors(path, "a shard", "")
        write_tensors(path, found, {"made_with": MADE | {"weights": "z"}} if damage == "other model" else None)
    capsys.readouterr()
    again = TensorStore(tmp_path, MADE, "reference")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and str(path) in lines[0] and "set aside" in lines[0]
    assert ("other weights" in lines[0]) == (damage == "other model")
    assert again.get("a") is None and same(again.get("b"), 4) and len(shards(tmp_path)) == 1
    again.put({"a": record(3)})
    again.flush()
    assert same(TensorStore(tmp_path, MADE, "reference").get("a"), 3) and capsys.readouterr().err == ""


def test_a_shard_written_in_the_tick_of_the_last_look_is_found(tmp_path: Path) -> None:
    """A folder's time does not move between two changes that are closer than a tick of its clock."""
    store, reader = (TensorStore(tmp_path, MADE, "reference") for _ in range(2))
    store.put({"a": record(1)})
    store.flush()
    assert "a" in reader
    before = tmp_path.stat()
    store.put({"b": record(2)})
    store.flush()
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert same(reader.get("b"), 2)


def test_a_shard_that_vanishes_between_two_looks_is_no_error(tmp_path: Path) -> None:
    store, reader = (TensorStore(tmp_path, MADE, "reference") for _ in range(2))
    store.put({"a": record(1)})
    store.flush()
    time.sleep(0.01)
    assert "a" in reader
    shards(tmp_path)[0].unlink()
    assert reader.get("a") is None


def test_a_file_is_whole_or_absent_and_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tensors(tmp_path / name, {"x": torch.arange(3), "y": torch.ones(2)}, {"rank": 2, "layers": [1]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found, facts = read_tensors(tmp_path / "a", "a thing", "make it again")
    assert facts == {"rank": 2, "layers": [1]} and found["x"].tolist() == [0, 1, 2]
    with pytest.raises(UsageError, match="none: is missing; make it again"):
        read_tensors(tmp_path / "none", "a thing", "make it again")
    (tmp_path / "a").write_bytes(b"123")
    with pytest.raises(UsageError, match="a: damaged, or not a thing .*; make it again"):
        read_tensors(tmp_path / "a", "a thing", "make it again")
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a", "b"]
