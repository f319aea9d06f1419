"""Text in and out: half characters never stop a write, a line ends at a line feed, JSON fails in one way."""

import json
from pathlib import Path

import pytest

from clinalign.pages.provenance import quarantine as shown
from clinalign.records import Answer, Outcome
from clinalign.storage import (
    Quarantine,
    damage,
    filled_lines,
    is_file,
    parse_json,
    read_table,
    read_text,
    user_path,
    write_json,
    write_table,
    write_text,
)

HALF = "half \ud800 a character"


def test_half_a_character_stops_no_write(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"text": HALF})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"text": HALF}
    write_text(tmp_path / "a.html", f"<p>{HALF}</p>")
    assert b"half" in (tmp_path / "a.html").read_bytes()
    answers = [Answer("e", "m", 0, "prompt", HALF, [1], "stop"), Answer("f", "m", 0, "prompt", "whole", [1], "stop")]
    write_table(tmp_path / "a.parquet", answers, Answer)
    assert [a.text for a in read_table(tmp_path / "a.parquet", Answer)] == ["half ? a character", "whole"]
    write_table(tmp_path / "a.jsonl", answers, Answer)
    assert read_table(tmp_path / "a.jsonl", Answer) == answers
    outcomes = [Outcome("e", "open", "s", "base", "greedy", 0, "clean", "t", None, "rules", HALF, {"side": HALF})]
    assert write_table(tmp_path / "o.parquet", outcomes, Outcome) == 1


@pytest.mark.parametrize("odd", ["free\u2028text", "free\u0085text", "a\x0cb", "a\x1cb", HALF])
def test_the_page_reads_every_quarantine_that_was_written(tmp_path: Path, odd: str) -> None:
    left_out = Quarantine(tmp_path / "quarantine.jsonl")
    left_out.add("ingest", file="t.jsonl", row=3, field="task", reason="unexpected", detail=odd)
    left_out.flush()
    assert Quarantine(left_out.path).rows == left_out.rows
    [row] = shown(left_out.path)
    assert row["count"] == 1 and odd in row["example"]


@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_mark_says_the_encoding(tmp_path: Path, mark: str) -> None:
    text = "\ufeffé\r\n" if mark == "utf-16-le" else "é\r\n"
    (tmp_path / "a.txt").write_bytes(text.encode(mark))
    assert read_text(tmp_path / "a.txt") == "é\r\n"
    (tmp_path / "b.txt").write_bytes(b"\xe9")
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "b.txt")


def test_lines_end_at_a_line_feed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes('\ufeff"a\u2028b"\r\n\n \ufeff"c\u0085d\x0c"\n'.encode())
    assert list(filled_lines(tmp_path / "a.jsonl")) == [(1, '"a\u2028b"'), (3, '"c\u0085d\x0c"')]


def test_json_fails_with_one_error_and_keeps_every_digit() -> None:
    for text in ("[" * 100_000, '{"a":' * 100_000, "", "{", "nul"):
        with pytest.raises(ValueError):
            parse_json(text)
    assert parse_json("[" + "9" * 5000 + ", 12]") == ["9" * 5000, 12]


def test_names_that_are_none(tmp_path: Path) -> None:
    assert not is_file(tmp_path / ("x" * 5000)) and not is_file(Path("a\0b"))
    assert str(user_path("~nobody-of-that-name/x")) == "~nobody-of-that-name/x"
    assert damage("a\0") and damage(HALF) and not damage("é\u2028\U0001f9ec")
