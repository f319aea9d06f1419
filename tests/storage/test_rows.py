"""Records on disk: the same as a list, in memory that does not grow with them; the streamed key is the plain one."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from clinalign.records import Example
from clinalign.storage import Mapped, Rows, by_id, key_of, key_with_rows, open_table, write_table


def examples_from(n: int) -> list[Example]:
    return [Example(f"e{n}", [f"{n}.png"], f"Question {n}?", "yes" * 50, row=n)]


def examples(count: int) -> list[Example]:
    return [one for n in range(count) for one in examples_from(n)]


def test_rows_are_a_list_of_equal_records() -> None:
    plain = examples(600)
    rows = Rows(plain)
    assert rows == plain and plain == list(rows) and len(rows) == 600 and bool(rows) and not Rows()
    assert rows[3] == plain[3] and rows[-1] == plain[-1] and rows[2:9:3] == plain[2:9:3]
    rows.append(replace(plain[0], id="more"))
    assert rows[600].id == "more" and rows != plain and rows[:600] == plain
    with pytest.raises(IndexError, match="row 601 of 601"):
        rows[601]


def test_a_row_is_found_by_its_id_and_of_two_the_later() -> None:
    plain = examples(300)
    rows = Rows([*plain, replace(plain[7], question="again")])
    known, expected = by_id(rows), by_id([*plain, replace(plain[7], question="again")])
    assert all(known[name] == expected[name] for name in expected)
    assert known.get("none") is None and "e5" in known and "e300" not in known
    rows.append(replace(plain[8], id="late"))
    assert known["late"].row == 8


def test_ids_of_one_hash_are_told_apart() -> None:
    rows = Rows(examples(3))
    rows._hashes[:] = type(rows._hashes)("q", [hash("e1")] * 3)
    assert by_id(rows)["e1"].row == 1 and by_id(rows).get("e2") is None


def test_mapped_items_are_made_when_asked_for() -> None:
    made: list[int] = []
    rows = Mapped(Rows(examples(5)), lambda one: made.append(one.row) or one.id)
    assert rows[2] == "e2" and made == [2]
    assert rows == ["e0", "e1", "e2", "e3", "e4"] and len(rows) == 5


def test_a_row_costs_its_place_and_a_hash() -> None:
    """16 bytes a row, and what an array keeps spare (an eighth); a list of them would cost more than 400 each."""
    held = []
    for count in (1_000, 4_000):
        tracemalloc.start()
        rows = Rows(one for n in range(count) for one in examples_from(n))
        rows[0]
        held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert len(rows) == count
    assert held[1] - held[0] < 30 * 3_000


def test_a_table_is_opened_whole_or_in_part(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", examples(5), Example)
    assert open_table(tmp_path / "t.parquet", Example) == examples(5)
    assert open_table(tmp_path / "t.parquet", Example, lambda one: one.row > 2) == examples(5)[3:]


@pytest.mark.parametrize("name", ["a", "m", "z"])
@pytest.mark.parametrize("rows", [[], [{"b": [1, "é"], "a": None}], [1, 2, 3]])
def test_a_key_of_streamed_rows_is_the_key_of_the_list(name: str, rows: list[object]) -> None:
    for rest in ({}, {"k": 1}, {"b": [2], "x": {"y": "ü"}}):
        assert key_with_rows(rest, name, iter(rows)) == key_of(rest | {name: rows})
