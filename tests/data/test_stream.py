"""Ingest as a stream: on-disk bookkeeping equals the naive one in memory, nothing is kept of a run that fails."""

import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sources import ingest, picture, reasons

from clinalign.data import stream
from clinalign.data.index import IngestIndex, assign_splits
from clinalign.data.options import DataOptions
from clinalign.errors import UsageError
from clinalign.records import Example
from clinalign.storage import BATCH_ROWS, Quarantine, read_table, write_table

NAMES = st.text(min_size=1, max_size=4)
SHARES = st.dictionaries(st.sampled_from(["align", "dev", "test"]), st.sampled_from([0.0, 0.1, 1.0, 3.0]), max_size=3)


@given(st.lists(NAMES, max_size=30), st.dictionaries(NAMES, st.sampled_from(["align", "test"]), max_size=5), SHARES)
def test_splits_are_dealt_as_in_memory(waiting: list[str], known: dict[str, str], shares: dict[str, float]) -> None:
    if shares and not any(shares.values()):
        shares = {}
    index = IngestIndex()
    for name in waiting:
        index.wait(name, 3)
    for name, split in known.items():
        assert index.record("patient", name, split, "row 1") is None
    index.assign_splits(shares)
    naive = assign_splits((name for name in waiting if name not in known), shares, 3)
    assert {n: index.assigned_split(n) or index.split_of("patient", n) for n in waiting} == {
        n: known.get(n) or naive[n] for n in waiting
    }
    index.close()


@given(st.lists(st.tuples(NAMES, st.sampled_from(["align", "dev", "test"])), max_size=20))
def test_leaks_are_seen_as_in_memory(rows: list[tuple[str, str]]) -> None:
    index, seen = IngestIndex(), {}
    for number, (name, split) in enumerate(rows):
        others = {place for place in seen.get(name, []) if place[0] != split}
        found = index.record("patient", name, split, f"row {number}")
        assert (found is None and not others) or found in others
        if split not in {place[0] for place in seen.get(name, [])}:
            seen.setdefault(name, []).append((split, f"row {number}"))
    index.close()


def table(folder: Path, rows: list[dict]) -> Path:
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_examples_come_while_the_table_is_read(tmp_path: Path) -> None:
    """With a split in every row the first example is there before the last row is parsed."""
    row = {"image": "", "question": "q", "answer": "yes", "split": "train"}
    path = table(tmp_path, [row | {"patient_id": f"p{n}"} for n in range(5)])
    path.write_text(path.read_text() + '{"image": "", "question"')
    (tmp_path / "key").write_bytes(b"a key")
    quarantine = Quarantine(tmp_path / "out" / "quarantine.jsonl")
    options = DataOptions(source="table", path=str(path), key_file=str(tmp_path / "key"), empty_image="text")
    examples = stream(options, tmp_path / "out", quarantine)
    assert next(examples).id == "row-1" and not quarantine.rows
    assert len(list(examples)) == 4 and quarantine.rows[0]["reason"] == "unparsable_row"


def test_order_and_ids_stay_with_rows_that_wait_for_a_split(tmp_path: Path) -> None:
    row = {"image": "", "question": "q", "answer": "yes"}
    splits = ["train", "", "train", "", "test"]
    rows = [row | {"split": split, "patient_id": f"p{n % 4}", "id": f"r{n}"} for n, split in enumerate(splits)]
    with pytest.raises(UsageError, match=r"one patient is in split 'align' \(row 1\) and in split 'test' \(row 5\)"):
        ingest(tmp_path / "a", "table", table(tmp_path, rows), empty_image="text")
    rows[4]["patient_id"] = "p9"
    examples, _ = ingest(tmp_path / "b", "table", table(tmp_path, rows), empty_image="text")
    assert [e.id for e in examples] == ["r0", "r1", "r2", "r3", "r4"] and all(e.split for e in examples)


def test_a_table_that_fails_late_leaves_nothing_behind(tmp_path: Path) -> None:
    row = {"image": "", "question": "q", "answer": "yes", "patient_id": "p1"}
    rows = [row | {"split": "train", "patient_id": f"q{n}"} for n in range(BATCH_ROWS + 10)]
    path = table(tmp_path, [row | {"split": "train"}, *rows, row | {"split": "test"}])
    (tmp_path / "key").write_bytes(b"a key")
    out = tmp_path / "out"
    options = DataOptions(source="table", path=str(path), key_file=str(tmp_path / "key"), empty_image="text")
    with pytest.raises(UsageError, match="one patient is in split"):
        write_table(out / "examples.parquet", stream(options, out, Quarantine(out / "q.jsonl")), Example)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_more_than_one_batch_of_a_table(tmp_path: Path, suffix: str) -> None:
    examples = [Example(id=str(n), images=[], question="q", answer="a", meta={"n": n}) for n in range(BATCH_ROWS + 7)]
    assert write_table(tmp_path / f"a{suffix}", iter(examples), Example) == len(examples)
    assert read_table(tmp_path / f"a{suffix}", Example) == examples
    assert write_table(tmp_path / f"none{suffix}", iter([]), Example) == 0


def test_leaking_rows_dropped_from_the_split_that_is_held_out_less(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / f"{number}.png", number)
    row = {"question": "q", "answer": "yes"}
    places = [(0, "train"), (1, "train"), (1, "val"), (2, "val"), (2, "test"), (3, ""), (0, "")]
    rows = [row | {"image": f"{image}.png", "split": split} for image, split in places]
    examples, quarantine = ingest(tmp_path / "out", "table", table(tmp_path, rows), leaks="drop", splits={"test": 1})
    assert [(e.row, e.split) for e in examples] == [
        (1, "align"),
        (3, "dev"),
        (5, "test"),
        (6, "test"),
        (7, "align"),
    ]
    assert reasons(quarantine) == [("t.jsonl", 2, "split", "leak"), ("t.jsonl", 4, "split", "leak")]


@pytest.mark.slow
def test_the_benchmark_loses_no_row(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "ingest.py"
    spec = importlib.util.spec_from_file_location("ingest_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.measure((100, 400), 1)
    assert found["lost_rows"] == 0 and found["left_out"] == 8 and found["rows_per_s"] > 0
    assert 0.9 < found["rss_ratio_100k_10k"] < 1.1
