"""Excel workbooks as people have them: several sheets, empty rows above, dates, formulas, errors, passwords."""

import datetime
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
from PIL import Image

from clinalign.data.files import raw_rows
from clinalign.errors import RowError, UsageError

HEADER = ["image", "question", "answer", "patient_id"]


def book(path: Path, *sheets: list[list[Any]]) -> Path:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for number, rows in enumerate(sheets, 1):
        sheet = made.create_sheet(f"sheet {number}")
        for row in rows:
            sheet.append(row)
    made.save(path)
    return path


def test_rows_come_under_their_header_with_plain_values(tmp_path: Path) -> None:
    rows = [
        [],
        HEADER,
        ["a.png", "Is there a nodule?", True, 12.0],
        [],
        ["b.png", "When?", datetime.datetime(2020, 1, 2), None],
    ]
    found = list(raw_rows(book(tmp_path / "t.xlsx", [], rows, [["notes"]])))
    assert found == [
        (1, {"image": "a.png", "question": "Is there a nodule?", "answer": True, "patient_id": 12}),
        (2, {"image": "b.png", "question": "When?", "answer": "2020-01-02", "patient_id": ""}),
    ]


def test_several_filled_sheets_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list(raw_rows(book(tmp_path / "t.xlsx", [HEADER, ["a", "b", "c", 1]], [["other"]])))
    assert "t.xlsx: 2 sheets hold something; 'sheet 1', the first, is read" in capsys.readouterr().err


def test_an_error_of_excel_and_a_cell_too_many_cost_their_rows(tmp_path: Path) -> None:
    rows = [HEADER, ["a.png", "#REF!", "yes", 1], ["a.png", "q", "yes", 1, "more"], ["a.png", "q", "yes", 1]]
    found = [row for _, row in raw_rows(book(tmp_path / "t.xlsx", rows))]
    assert [(row.field, row.reason) for row in found[:2] if isinstance(row, RowError)] == [
        ("question", "excel_error"),
        ("row", "wrong_cell_count"),
    ]
    assert isinstance(found[2], dict)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"image,question\n", "not an Excel workbook, or damaged"),
        (bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600), "locked by a password, or an old .xls"),
    ],
)
def test_what_is_no_workbook_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "t.xlsx").write_bytes(content)
    with pytest.raises(UsageError, match=words):
        list(raw_rows(tmp_path / "t.xlsx"))


def test_a_zip_of_something_else_and_one_that_unpacks_to_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as packed:
        packed.writestr("a.txt", "x" * 5000)
    with pytest.raises(UsageError, match="not an Excel workbook"):
        list(raw_rows(tmp_path / "t.xlsx"))
    monkeypatch.setattr("clinalign.data.xlsx.LARGEST", 4000)
    with pytest.raises(UsageError, match="unpacks to"):
        list(raw_rows(tmp_path / "t.xlsx"))


@pytest.mark.parametrize(
    ("rows", "words"),
    [([[]], "no sheet holds anything"), ([["a", None, "b"]], "column 2 of the header"), ([["a", "a"]], "one name")],
)
def test_a_header_that_is_none(tmp_path: Path, rows: list[list[Any]], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        list(raw_rows(book(tmp_path / "t.xlsx", rows)))


def test_a_workbook_is_a_table_like_every_other(tmp_path: Path) -> None:
    from clinalign.data import read
    from clinalign.data.options import DataOptions
    from clinalign.storage import Quarantine

    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / name)
    rows = [HEADER, ["a.png", "Is there a nodule?", "yes", 7], ["b.png", "Is there a nodule?", "no", 8.0]]
    options = DataOptions(source="table", path=str(book(tmp_path / "t.xlsx", rows)))
    examples = list(read(options, tmp_path / "out", Quarantine(tmp_path / "q.jsonl")))
    assert [example.answer for example in examples] == ["yes", "no"]
    assert len({example.patient_id for example in examples}) == 2
