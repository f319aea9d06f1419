"""Cells that are not what their column says: a bad one costs its row, is told of and never quoted."""

import datetime
import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dicoms import make
from sources import ingest, picture

from clinalign.data import example as examples_of
from clinalign.data.cells import guarded
from clinalign.errors import RowError, UsageError
from clinalign.records import Example
from clinalign.storage import read_table, write_table

NAME = "Erika Mustermann"
GOOD = {"image": "a.png", "question": "Is there a nodule?", "answer": "yes", "patient_id": "p1", "split": "train"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(tmp_path / "data" / "a.png", 0)
    return tmp_path / "data"


def lines(path: Path, rows: list) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


DEEP = "[" * 5000 + "]" * 5000
CELLS = [
    ('"frame": NaN', None),
    ('"frame": 1e999', "bad_frame"),
    ('"frame": "nan"', "bad_frame"),
    ('"mask_value": Infinity', "bad_mask_value"),
    ('"mask_value": "inf", "mask": "a.png"', "bad_mask_value"),
    ('"frame": ' + "9" * 5000, "bad_frame"),
    ('"box": [1, 2, 3, ' + "9" * 5000 + "]", "unparsable_box"),
    ('"box": [1, 2, 3, ' + "9" * 250 + "]", "box_outside_image"),
    ('"box": [1, 2, 3, NaN]', "unparsable_box"),
    ('"box": {"bbox_2d": [1, 2, 3, 4]}', "unparsable_box"),
    ('"label": ' + DEEP, "unparsable_row"),
    ('"slots": ' + json.dumps(DEEP), "bad_slots"),
    ('"slots": {"a": NaN}', None),
    ('"question": "half \\ud800"', "bad_question"),
    ('"finding": "half \\udfff"', "bad_finding"),
    ('"slots": {"side": "half \\ud800"}', "bad_slots"),
    ('"answer": "a\\u0000b"', "bad_answer"),
    ('"image": "' + "x" * 5000 + '.png"', "missing_image"),
    ('"image": "' + "x" * 5000 + '.nii.gz"', "missing_image"),
    ('"image": "' + "x" * 5000 + '.dcm"', "missing_image"),
    ('"image": "a\\u0000b.png"', "bad_image"),
    ('"mask": "' + "x/" * 3000 + 'm.png"', "missing_mask"),
    ('"image": ["a.png"]', "bad_image"),
    ('"images": ["b.png"]', "bad_image"),
    ('"window": "file:\\u00b2"', "unknown_window"),
    ('"window": "filet"', "unknown_window"),
    ('"window": "1/inf"', "unknown_window"),
    ('"task": "' + NAME + '"', "unknown_task"),
    ('"split": "' + NAME + '"', "unknown_split"),
    ('"frame": "' + NAME + '"', "bad_frame"),
    ('"window": "' + NAME + '"', "unknown_window"),
    ('"box": "' + NAME + '"', "unparsable_box"),
    ('"mask_value": "' + NAME + '"', "bad_mask_value"),
    ('"box": [19570812, 1, 2, 3]', "box_outside_image"),
]


@pytest.mark.parametrize(("cell", "reason"), CELLS, ids=[f"{n}-{reason}" for n, (_, reason) in enumerate(CELLS)])
def test_a_cell_costs_its_row_alone_and_is_not_quoted(
    folder: Path, tmp_path: Path, cell: str, reason: str | None
) -> None:
    row = json.dumps(GOOD)[:-1] + f", {cell}}}"
    found, quarantine = ingest(tmp_path / "out", "table", lines(folder / "t.jsonl", [GOOD, row, GOOD]))
    assert len(found) == (3 if reason is None else 2)
    assert [row["reason"] for row in quarantine.rows] == ([] if reason is None else [reason])
    told = json.dumps(quarantine.rows)
    assert "Erika" not in told and "19570812" not in told and len(told) < 1000
    write_table(tmp_path / "e.parquet", found, Example)
    assert read_table(tmp_path / "e.parquet", Example) == found


def test_the_same_in_one_array(folder: Path, tmp_path: Path) -> None:
    rows = [json.dumps(GOOD)[:-1] + f", {cell}}}" for cell, _ in CELLS]
    path = folder / "t.json"
    path.write_text("[" + ",".join([*rows, json.dumps(GOOD)]) + "]")
    found, quarantine = ingest(tmp_path / "out", "table", path)
    assert [row["reason"] for row in quarantine.rows] == [reason for _, reason in CELLS if reason]
    assert found[-1].row == len(rows) + 1


@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json"])
def test_a_line_ends_at_a_line_feed_and_a_mark_says_the_encoding(folder: Path, tmp_path: Path, mark, name) -> None:
    odd = "seen\u2028on\u0085the\x0cleft\x1cside\u2029\x0bé"
    if name == "t.csv":
        text = f"image,question,answer\na.png,Where?,{odd}\na.png,{odd}?,yes\n"
    else:
        rows = [{"image": "a.png", "question": q, "answer": a} for q, a in (("Where?", odd), (f"{odd}?", "yes"))]
        listed = [json.dumps(row, ensure_ascii=False) for row in rows]
        text = "[" + ",\n".join(listed) + "]" if name == "t.json" else "\n".join(listed)
    if name == "t.json" or name == "t.jsonl":
        text = text.replace("\x0c", "\\f").replace("\x1c", "\\u001c").replace("\x0b", "\\u000b")
    (folder / name).write_bytes(text.encode(mark))
    found, quarantine = ingest(tmp_path / "out", "table", folder / name)
    assert [(e.question, e.answer) for e in found] == [("Where?", odd), (f"{odd}?", "yes")] and not quarantine.rows


def test_a_stray_quote_costs_its_line_and_not_those_after_it(folder: Path, tmp_path: Path) -> None:
    good = [f'a.png,"Is there a nodule, {n}?",yes' for n in range(6)]
    bad = ['a.png,"Is there" a nodule?,yes', 'a.png,"never closed,yes', 'a.png,x"y"z,yes,more']
    order = [
        good[0],
        bad[0],
        good[1],
        bad[1],
        good[2],
        good[3],
        bad[2],
        good[4],
        'a.png,"two\nlines ""quoted""",yes',
        good[5],
    ]
    (folder / "t.csv").write_text("image,question,answer\n" + "\n".join(order) + "\n")
    found, quarantine = ingest(tmp_path / "out", "table", folder / "t.csv")
    assert [e.question for e in found if "nodule," in e.question] == [f"Is there a nodule, {n}?" for n in range(6)]
    assert 'two\nlines "quoted"' in [e.question for e in found]
    assert [(row["row"], row["reason"]) for row in quarantine.rows] == [
        (2, "unparsable_row"),
        (4, "unparsable_row"),
        (7, "wrong_cell_count"),
    ]


def test_a_table_without_a_header_is_told_of_without_its_cells(folder: Path, tmp_path: Path) -> None:
    (folder / "t.csv").write_text(f"a.png,{NAME},1957-08-12\n" * 2)
    with pytest.raises(UsageError) as error:
        ingest(tmp_path / "out", "table", folder / "t.csv")
    assert "Erika" not in str(error.value) and "3 columns; is it a header?" in str(error.value)


def odd_columns(count: int) -> dict[str, pa.Array]:
    return {
        "date": pa.array([datetime.date(2024, 2, 29)] * count),
        "far": pa.array([2**62] * count, pa.timestamp("us")),
        "nano": pa.array([1] * count, pa.timestamp("ns")),
        "took": pa.array([2**62] * count, pa.duration("us")),
        "raw": pa.array([b"\xff"] * count),
        "map": pa.array([[("k", 1)]] * count, pa.map_(pa.string(), pa.int64())),
        "deep": pa.array([{"a": [{"b": [1.5, None]}]}] * count),
        "words": pa.array(["x"] * count).dictionary_encode(),
    }


def test_columns_of_types_that_python_cannot_hold_do_no_harm_unless_they_are_used(folder: Path, tmp_path: Path) -> None:
    rows = pa.Table.from_pylist([GOOD, GOOD])
    for name, column in odd_columns(2).items():
        pq.write_table(rows.append_column(name, column), folder / "t.parquet")
        found, quarantine = ingest(tmp_path / "out", "table", folder / "t.parquet")
        assert len(found) == 2 and not quarantine.rows, name
        good = rows.append_column("label", pa.array([None, None], column.type))
        used = pa.concat_tables([good, rows.slice(1).append_column("label", column.slice(1))])
        pq.write_table(used, folder / "u.parquet")
        found, quarantine = ingest(tmp_path / name, "table", folder / "u.parquet")
        assert len(found) == (3 if name == "words" else 2), name
        assert [row["reason"] for row in quarantine.rows] == ([] if name == "words" else ["bad_label"]), name


def test_a_damaged_parquet_ends_with_one_line(folder: Path, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([GOOD] * 3000), folder / "t.parquet", compression="none")
    data = bytearray((folder / "t.parquet").read_bytes())
    data[40:900] = bytes(860)
    (folder / "t.parquet").write_bytes(data)
    with pytest.raises(UsageError, match="t.parquet: "):
        ingest(tmp_path / "out", "table", folder / "t.parquet")


def test_what_a_reader_keeps_of_a_row_is_something_json_can_hold(folder: Path, tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "q?"}, {"from": "gpt", "value": "yes"}]
    rows = [{"conversations": talk, "domain": datetime.date(2024, 1, 1), "split": "train"}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "t.parquet")
    found, _ = ingest(tmp_path / "out", "llava", folder / "t.parquet")
    write_table(tmp_path / "e.parquet", found, Example)
    assert found[0].meta["domain"] == "2024-01-01"


def test_what_nobody_thought_of_costs_its_row_in_words_without_cells(folder: Path, tmp_path: Path, monkeypatch) -> None:
    real = examples_of._regions

    def regions(row, stored, reading):
        if row.cells.get("label") == NAME:
            raise ZeroDivisionError(f"cannot divide {NAME} or '1957-08-12' by 470011")
        return real(row, stored, reading)

    monkeypatch.setattr(examples_of, "_regions", regions)
    found, quarantine = ingest(
        tmp_path / "out", "table", lines(folder / "t.jsonl", [GOOD, GOOD | {"label": NAME}, GOOD])
    )
    [row] = quarantine.rows
    assert len(found) == 2 and (row["row"], row["reason"]) == (2, "unexpected")
    assert row["detail"].startswith("ZeroDivisionError: cannot divide [a text of 16 characters]")
    assert not any(secret in row["detail"] for secret in ("Erika", "1957", "470011"))


def test_the_border_lets_faults_of_the_machine_and_of_the_recipe_through() -> None:
    def raising(error: Exception):
        def make() -> None:
            raise error

        return make

    assert isinstance(guarded(raising(RowError("a", "b"))), RowError)
    assert guarded(raising(RecursionError("deep"))).reason == "unexpected"
    for error in (UsageError("x"), OSError(28, "No space left on device")):
        with pytest.raises(type(error)):
            guarded(raising(error))


@pytest.mark.parametrize("field", ["modality", "label", "finding", "full", "slots", "rejected"])
def test_every_free_text_cell_is_searched_for_identifiers(folder: Path, tmp_path: Path, field: str) -> None:
    make(folder / "a.dcm", np.zeros((8, 8), dtype=np.int16))
    text = "seen by Mustermann, Erika"
    row = GOOD | {"image": "a.dcm", field: {"side": [text]} if field == "slots" else text}
    found, quarantine = ingest(tmp_path / "out", "table", lines(folder / "t.jsonl", [GOOD | {"image": "a.dcm"}, row]))
    assert len(found) == 1 and [(r["field"], r["reason"]) for r in quarantine.rows] == [(field, "identifier_in_text")]


def test_what_a_reader_keeps_is_searched_for_identifiers_too(folder: Path, tmp_path: Path) -> None:
    make(folder / "a.dcm", np.zeros((8, 8), dtype=np.int16))
    talk = [{"from": "human", "value": "q?"}, {"from": "gpt", "value": "yes"}]
    rows = [{"image": "a.dcm", "conversations": talk, "fig_caption": text} for text in ("", "of HOSP 4711 XYZ")]
    found, quarantine = ingest(tmp_path / "out", "llava", lines(folder / "t.jsonl", rows))
    assert len(found) == 1 and [r["reason"] for r in quarantine.rows] == ["identifier_in_text"]


def test_one_patient_and_one_file_whoever_composed_the_accents(folder: Path, tmp_path: Path) -> None:
    composed, apart = "M\u00fcller", "Mu\u0308ller"
    (folder / "a.png").rename(folder / f"{apart}.png")
    rows = [GOOD | {"image": f"{name}.png", "mask": f"{name}.png", "patient_id": name} for name in (composed, apart)]
    first, second = ingest(tmp_path / "out", "table", lines(folder / "t.jsonl", rows))[0]
    assert first.images == second.images and first.patient_id == second.patient_id
    rows[1] |= {"split": "test"}
    with pytest.raises(UsageError, match="one patient is in split"):
        ingest(tmp_path / "b", "table", lines(folder / "t.jsonl", rows))


LONG = 90_000


@pytest.mark.parametrize(
    "text",
    [" " * LONG + "?", "<|vision_start|>" * (LONG // 16), "<MASK>" * (LONG // 6), "<img>" * (LONG // 5), "_" * LONG],
)
def test_a_long_cell_costs_no_time(folder: Path, tmp_path: Path, text: str) -> None:
    started = time.monotonic()
    rows = [GOOD | {"question": f"a{text}b"}, GOOD | {"answer": f"a{text}b"}, GOOD | {"label": "x" * 200_000}, GOOD]
    _, quarantine = ingest(tmp_path / "out", "table", lines(folder / "t.jsonl", rows))
    assert quarantine.rows[-1]["reason"] == "bad_label"
    marked = [{"question": "q", "answer": "a", "pred": "b", "answer_masked": text, "pred_masked": "b"}]
    ingest(tmp_path / "rrpo", "rrpo", lines(folder / "r.jsonl", marked))
    assert time.monotonic() - started < 10
