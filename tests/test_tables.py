import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinalign.errors import UsageError
from clinalign.records import Answer, Example, Outcome, Pair, Region, Side
from clinalign.storage import Journal, Quarantine, atomic, read_table, sha256, to_row, write_table

text = st.text(max_size=20).filter(lambda s: "\x00" not in s and s.isprintable())
regions = st.builds(
    Region, text, st.none() | st.lists(st.floats(0, 64), min_size=4, max_size=4), st.none() | st.just("masks/é.png")
)
examples = st.builds(
    Example,
    text,
    st.lists(text, max_size=2),
    text,
    text,
    st.sampled_from(["closed", "open", "report"]),
    st.lists(regions, max_size=2),
    slots=st.dictionaries(text, st.none() | text, max_size=2),
    options=st.lists(text, max_size=2),
    meta=st.dictionaries(text, st.none() | st.integers(0, 9) | text, max_size=2),
)


@given(st.lists(examples, max_size=4), st.sampled_from([".parquet", ".jsonl"]))
def test_examples_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[Example], suffix: str) -> None:
    path = tmp_path_factory.mktemp("t") / f"x{suffix}"
    assert write_table(path, rows, Example) == len(rows)
    assert read_table(path, Example) == rows


def pair(**changes: object) -> Pair:
    values = dict(
        id="p", example_id="e", round=0, images=["i.png"], prompt="q", chosen="left", rejected="right",
        chosen_spans=[[0, 4]], rejected_spans=[[0, 5]], own="chosen", chosen_token_ids=[1, 2],
        rejected_token_ids=[1, 3], was_correct=True, edit_kind="side", editor="rule",
    )  # fmt: skip
    return Pair(**(values | changes))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_pairs_answers_outcomes_round_trip(tmp_path: Path, suffix: str) -> None:
    pairs = [pair(), pair(corrupted_images=["c.png"], region=Region("nodule", [1, 2, 3, 4]), chosen_spans=[])]
    answers = [Answer("e", "m", 0, "q", "left", [5, 6], "stop")]
    outcomes = [
        Outcome("e", "open", "phantom", "base", "greedy", 0, "clean", "x", None, "rule", metrics={"margin": 0.5}),
        Outcome("e", "open", "phantom", "base", "greedy", 0, "clean", "x", True, "rule", slots={"side": "left"}),
    ]
    for rows, kind in ((pairs, Pair), (answers, Answer), (outcomes, Outcome)):
        path = tmp_path / f"{kind.__name__}{suffix}"
        write_table(path, rows, kind)
        assert read_table(path, kind) == rows


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / f"{name}.parquet", [pair(), pair(id="q")], Pair)
    assert sha256(tmp_path / "a.parquet") == sha256(tmp_path / "b.parquet")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["x.txt"]


def test_errors_name_the_file_and_the_column(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": ["a"], "image": ["x"]}), tmp_path / "x.parquet")
    with pytest.raises(UsageError, match=r"x\.parquet: column 'images'.*did you mean 'image'"):
        read_table(tmp_path / "x.parquet", Example)
    (tmp_path / "y.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(UsageError, match="not a Parquet file"):
        read_table(tmp_path / "y.parquet", Example)
    (tmp_path / "z.jsonl").write_text(json.dumps(to_row(pair())) + "\n{broken\n")
    with pytest.raises(UsageError, match=r"z\.jsonl:2: not a Pair row"):
        read_table(tmp_path / "z.jsonl", Pair)
    with pytest.raises(UsageError, match="no such table"):
        read_table(tmp_path / "none.parquet", Pair)


@pytest.mark.parametrize("metadata", [None, {"clinalign.table": "1"}])
def test_a_table_of_another_version_is_refused_in_one_line(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "examples.parquet"
    write_table(path, [Example("e", [], "q", "a")], Example)
    pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)
    with pytest.raises(UsageError, match=r"examples\.parquet: a table of version 1, this is version 2") as refused:
        read_table(path, Example)
    assert "\n" not in str(refused.value)


def test_a_pair_is_made_of_two_sides_and_its_example() -> None:
    box = Region("nodule", [1, 2, 3, 4])
    example = Example("e", ["i.png"], "Which side?", "left", regions=[box, Region("other")])
    sides = Side("left", [[0, 4]], [1, 2]), Side("right", [[0, 5]], [1, 3])
    made = Pair.make(
        example, *sides, id="p", own="rejected", was_correct=False, edit_kind="side", editor="rule", seed=7
    )
    assert (made.prompt, made.images, made.region, made.region_source) == ("Which side?", ["i.png"], box, "dataset")
    assert (made.chosen, made.chosen_spans, made.chosen_token_ids) == ("left", [[0, 4]], [1, 2])
    assert (made.rejected, made.rejected_spans, made.rejected_token_ids) == ("right", [[0, 5]], [1, 3])
    assert (made.own, made.round, made.seed, made.corruption) == ("rejected", 0, 7, "none")
    bare = Pair.make(
        Example("e", [], "q", "a"), *sides, id="p", own="none", was_correct=False, edit_kind="x", editor="x"
    )
    assert bare.region is None and bare.region_source == "none"


def test_a_journal_survives_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    journal = Journal(path, Answer)
    journal.add({f"k{i}": said(i) for i in range(3)})
    journal.close(remove=False)
    with path.open("ab") as file:
        file.write(b'0a1b2c3d {"key": "k3", "ro')
    again = Journal(path, Answer)
    assert list(again.rows) == ["k0", "k1", "k2"] and again.get("k3") is None and again.get("k1") == said(1)
    again.add({"k3": said(3)})
    again.close(remove=False)
    assert path.read_bytes().count(b"\n") == 4
    assert list(tmp_path.iterdir()) == [path], "a line cut short is no damage"
    Journal(path, Answer).close()
    assert not path.exists()


def said(number: int) -> Answer:
    return Answer(str(number), "m", 0, "q", "t\u2028\ud800", [1], "stop")


def test_a_journal_gives_no_row_of_another_key_and_says_how_many_it_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.journal"
    journal = Journal(path, Answer)
    journal.add({f"k{i}": said(i) for i in range(5)})
    journal.close("answer", remove=False)
    assert capsys.readouterr().err == "", "nothing was there before"
    again = Journal(path, Answer)
    assert [again.get(key) for key in ("k0", "k4", "other")] == [said(0), said(4), None]
    again.close("answer")
    assert capsys.readouterr().err == "answer: 2 rows kept from before, 3 of other keys made anew\n"


@pytest.mark.parametrize("where", ["flip", "line", "all"])
def test_a_damaged_journal_is_set_aside_and_its_whole_rows_are_kept(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.journal"
    journal = Journal(path, Answer)
    journal.add({f"k{i}": said(i) for i in range(3)})
    journal.close(remove=False)
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(b'"stop"', b'"stoq"') if where == "flip" else b"\xff\x00 [1]"
    path.write_bytes(b"\x00\n" * 3 if where == "all" else b"\n".join(lines))
    again = Journal(path, Answer)
    assert list(again.rows) == ([] if where == "all" else ["k0", "k2"])
    assert "set aside as a.journal.damaged-1" in capsys.readouterr().err
    again.close(remove=False)
    assert (tmp_path / "a.journal.damaged-1").is_file() and Journal(path, Answer).rows == again.rows


def test_a_stage_that_starts_over_does_not_report_a_record_twice(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    for _ in range(2):
        quarantine = Quarantine(path)
        quarantine.start("ingest")
        quarantine.add("ingest", reason="missing_image", file="x.csv", row=3, field="image")
        quarantine.add("pair", reason="cannot_tell")
        quarantine.flush()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["stage"] for row in rows].count("ingest") == 1 and quarantine.count("ingest") == 1
    assert rows[-2]["row"] == 3


def test_line_separators_inside_a_detail_do_not_break_the_quarantine(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    quarantine = Quarantine(path)
    quarantine.start("pair")
    quarantine.add("pair", row=1, id="a", field="text", reason="unparsable", detail="one\u2028two\u2029three\x85four")
    quarantine.flush()
    assert Quarantine(path).rows[0]["detail"] == "one\u2028two\u2029three\x85four"
