"""Your own table becomes examples; every bad row is named, the good ones go on."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clinalign.data import read
from clinalign.data.index import assign_splits
from clinalign.data.options import DataOptions
from clinalign.errors import UsageError
from clinalign.imaging.images import read_image, read_mask, write_png
from clinalign.storage import Quarantine


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CLINALIGN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "röntgen.png"):
        write_png(folder / name, rng.integers(0, 256, (20, 30), dtype=np.uint8))
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:9, 6:12] = True
    write_png(folder / "mask.png", mask)
    write_png(folder / "small.png", mask[:10])
    write_png(folder / "empty.png", mask & False)
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:200])
    return folder


def write_rows(data: Path, rows: list[dict], name: str = "own.csv") -> Path:
    path = data / name
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)
    return path


def ingest(path: Path, out: Path, **options) -> tuple[list, Quarantine]:
    quarantine = Quarantine(out / "quarantine.jsonl")
    given = DataOptions(source="table", path=str(path), **({"empty_image": "text"} | options))
    return read(given, out, quarantine), quarantine


GOOD = {"image": "a.png", "question": "Is there a nodule?", "answer": "yes", "patient_id": "p1"}


@pytest.mark.parametrize("name", ["own.csv", "own.jsonl", "own.parquet"])
def test_the_same_rows_in_every_format(data: Path, tmp_path: Path, name: str) -> None:
    rows = [
        GOOD | {"mask": "mask.png", "box": "", "split": "train", "id": "one"},
        {"image": "röntgen.png", "question": "Which side?", "answer": "left lung", "patient_id": "p2", "mask": "",
         "box": "1, 2, 10, 5", "split": "test", "id": "zwei"},
        {"image": "", "question": "What is a nodule?", "answer": "a small opacity", "patient_id": "", "mask": "",
         "box": "", "split": "test", "id": "text"},
    ]  # fmt: skip
    out = tmp_path / "out"
    examples, quarantine = ingest(write_rows(data, rows, name), out)
    assert quarantine.count() == 0
    assert [(e.id, e.task, e.split) for e in examples] == [
        ("one", "closed", "align"),
        ("zwei", "open", "test"),
        ("text", "open", "test"),
    ]
    assert (read_image(out / examples[0].images[0]) == read_image(data / "a.png")).all()
    assert (read_mask(out / examples[0].regions[0].mask) == read_mask(data / "mask.png")).all()
    assert examples[1].regions[0].box == [1, 2, 10, 5] and examples[2].images == []
    assert all(e.patient_id.startswith("patient-") for e in examples[:2])
    again, _ = ingest(data / name, tmp_path / "again")
    assert again == examples


BAD = [
    ({"image": "none.png"}, "images", "missing_image"),
    ({"image": "cut.png"}, "images", "unreadable_image"),
    ({"image": "own.csv"}, "images", "unreadable_image"),
    ({"answer": " "}, "answer", "empty_answer"),
    ({"question": ""}, "question", "empty_question"),
    ({"box": "25,5,10,10"}, "box", "box_outside_image"),
    ({"box": "-1,5,10,10"}, "box", "box_outside_image"),
    ({"box": "1,5,0,10"}, "box", "empty_box"),
    ({"box": "0.1,0.1,0.5,0.5"}, "box", "box_not_in_pixels"),
    ({"box": "left"}, "box", "unparsable_box"),
    ({"box": "1,2,3"}, "box", "unparsable_box"),
    ({"box": "1,2,3,nan"}, "box", "unparsable_box"),
    ({"mask": "none.png"}, "mask", "missing_mask"),
    ({"mask": "small.png"}, "mask", "mask_size"),
    ({"mask": "empty.png"}, "mask", "empty_mask"),
    ({"mask": "cut.png"}, "mask", "unreadable_mask"),
    ({"task": "essay"}, "task", "unknown_task"),
    ({"split": "holdout"}, "split", "unknown_split"),
    ({"id": "same"}, "id", "duplicate_id"),
    ({"slots": "{"}, "slots", "bad_slots"),
    ({"counterfactual": "small.png"}, "counterfactual", "counterfactual_size"),
    ({"image": "", "box": "1,1,2,2"}, "box", "region_without_image"),
    ({"frame": "first"}, "frame", "bad_frame"),
    ({"window": "lnug"}, "window", "unknown_window"),
]


@pytest.mark.parametrize(
    ("change", "field", "reason"), BAD, ids=[reason + str(i) for i, (*_, reason) in enumerate(BAD)]
)
def test_a_bad_row_is_named_and_the_good_ones_go_on(data, tmp_path, change, field, reason) -> None:
    rows = [GOOD | {"id": "same"}, GOOD | change, GOOD | {"image": "b.png"}]
    path = write_rows(data, rows)
    examples, quarantine = ingest(path, tmp_path / "out")
    assert len(examples) == 2
    [row] = quarantine.rows
    assert (row["file"], row["row"], row["field"], row["reason"]) == ("own.csv", 2, field, reason)
    assert row["detail"] and str(tmp_path) not in json.dumps(row)


def test_rows_that_cannot_be_parsed(data: Path, tmp_path: Path) -> None:
    path = data / "own.jsonl"
    path.write_text(json.dumps(GOOD) + "\n{broken\n\n[1]\n" + json.dumps(GOOD | {"box": [1, 2, 3, 4]}) + "\n")
    examples, quarantine = ingest(path, tmp_path / "a")
    assert [e.regions != [] for e in examples] == [False, True]
    assert [(row["row"], row["reason"]) for row in quarantine.rows] == [(2, "unparsable_row"), (3, "unparsable_row")]
    (data / "cells.csv").write_text("image,question,answer\na.png,Left, right,or both?\na.png,q,yes\na.png,q\n")
    examples, quarantine = ingest(data / "cells.csv", tmp_path / "b")
    assert len(examples) == 1 and [row["row"] for row in quarantine.rows] == [1, 3]


def test_tables_that_cannot_be_used_at_all(data: Path, tmp_path: Path) -> None:
    def message(name: str, content: bytes, **options) -> str:
        (data / name).write_bytes(content)
        with pytest.raises(UsageError) as error:
            ingest(data / name, tmp_path / "out", **options)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "did you mean 'awnser'" in message("a.csv", b"image,question,awnser\na.png,q,yes\n")
    assert "is empty" in message("b.csv", b"")
    assert "no rows" in message("c.csv", b"image,question,answer\n")
    assert "not UTF-8" in message("d.csv", "image,question,answer\na.png,q,schön\n".encode("latin-1"))
    assert "no usable row (missing_image)" in message("e.csv", b"image,question,answer\nx.png,q,yes\n")
    assert "not a Parquet file" in message("f.parquet", b"hello")
    assert "'.xls'" in message("g.xls", b"x")
    assert "two columns" in message("h.csv", b"image,question,answer,answer\na.png,q,yes,no\n")
    assert "'answr' is no column of ours; did you mean 'answer'" in message(
        "i.csv", b"image,question,a\na.png,q,yes\n", columns={"answr": "a"}
    )
    with pytest.raises(UsageError, match="no such file"):
        ingest(data / "none.csv", tmp_path / "out")


def test_columns_can_be_mapped(data: Path, tmp_path: Path) -> None:
    rows = [{"file": "a.png", "prompt": "Which side?", "answer": "not this one", "gold": "left"}]
    examples, _ = ingest(
        write_rows(data, rows), tmp_path / "out", columns={"image": "file", "question": "prompt", "answer": "gold"}
    )
    assert (examples[0].question, examples[0].answer) == ("Which side?", "left")


def test_a_patient_in_two_splits_is_refused_by_row(data: Path, tmp_path: Path) -> None:
    rows = [GOOD | {"split": "align"}, GOOD | {"image": "b.png", "split": "test"}]
    with pytest.raises(
        UsageError, match=r"patient is in split 'align' \(row 1\) and in split 'test' \(row 2\)"
    ) as error:
        ingest(write_rows(data, rows), tmp_path / "out")
    assert "'p1'" not in str(error.value), "a patient's number is told to nobody"
    rows = [GOOD | {"split": "align", "patient_id": ""}, GOOD | {"split": "test", "patient_id": ""}]
    with pytest.raises(UsageError, match="row 1.*row 2"):
        ingest(write_rows(data, rows), tmp_path / "out")


def test_splits_are_dealt_by_patient(data: Path, tmp_path: Path) -> None:
    rows = [GOOD | {"patient_id": f"p{n // 3}", "image": "", "split": "test" if n == 0 else ""} for n in range(60)]
    examples, _ = ingest(write_rows(data, rows), tmp_path / "out")
    by_patient: dict[str, set[str]] = {}
    for example in examples:
        by_patient.setdefault(example.patient_id, set()).add(example.split)
    assert len(by_patient) == 20 and all(len(splits) == 1 for splits in by_patient.values())
    assert examples[1].split == "test", "a row follows its patient's other rows"
    assert sum(splits == {"align"} for splits in by_patient.values()) == 15


@pytest.mark.parametrize(("count", "expected"), [(10, (8, 2)), (2, (1, 1)), (3, (2, 1)), (1, (1, 0))])
def test_shares(count: int, expected: tuple[int, int]) -> None:
    dealt = list(assign_splits([f"p{n}" for n in range(count)], {}, 0).values())
    assert (dealt.count("align"), dealt.count("test")) == expected
    assert assign_splits(["a", "b", "c"], {}, 0) == assign_splits(["c", "a", "b", "a"], {}, 0)


def test_several_images_and_a_counterfactual(data: Path, tmp_path: Path) -> None:
    rows = [
        {
            "images": ["a.png", "b.png"],
            "question": "q",
            "answer": "worse",
            "counterfactual": "b.png",
            "slots": {"side": "left"},
        },
        {"images": "a.png; b.png", "question": "q", "answer": "better"},
    ]
    out = tmp_path / "out"
    examples, _ = ingest(write_rows(data, rows, "own.jsonl"), out)
    assert examples[0].images == examples[1].images and len(examples[0].images) == 2
    assert examples[0].counterfactual == examples[0].images[1] and examples[0].slots == {"side": "left"}
    assert len(list((out / "images").rglob("*.png"))) == 2, "a picture is stored once"


def test_pseudonyms_depend_on_the_users_key(data: Path, tmp_path: Path) -> None:
    path = write_rows(data, [GOOD])
    (tmp_path / "key").write_bytes(b"secret")
    with_key = ingest(path, tmp_path / "a", key_file=str(tmp_path / "key"))[0][0].patient_id
    own = ingest(path, tmp_path / "b")[0][0].patient_id
    assert with_key != own == ingest(path, tmp_path / "c")[0][0].patient_id
    assert (tmp_path / "cache" / "patient.key").stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="key_file"):
        ingest(path, tmp_path / "d", key_file="none")


@pytest.mark.parametrize("delimiter", [";", "\t", ","])
@pytest.mark.parametrize("first", ["", "sep"])
def test_semicolons_and_tabs_part_cells_too(data: Path, tmp_path: Path, delimiter: str, first: str) -> None:
    """As Excel saves a CSV where the comma is the decimal sign."""
    lines = [
        ["image", "question", "answer", "box", "split"],
        ["a.png", '"Which side, left?"', "yes", '"1,2,3,4"', "Training"],
    ]
    text = "".join(delimiter.join(cells) + "\r\n" for cells in lines)
    (data / "own.csv").write_text((f"sep={delimiter}\r\n" if first else "") + text)
    [example], quarantine = ingest(data / "own.csv", tmp_path / "out")
    assert quarantine.count() == 0 and example.question == "Which side, left?" and example.split == "align"
    assert example.regions[0].box == [1, 2, 3, 4]
    (data / "own.csv").write_text(text + delimiter.join("abcdefg"))
    _, quarantine = ingest(data / "own.csv", tmp_path / "out2")
    assert quarantine.rows[0]["reason"] == "wrong_cell_count"


def test_a_path_written_on_windows_is_found(data: Path, tmp_path: Path) -> None:
    (data / "img" / "deep").mkdir(parents=True)
    (data / "a.png").rename(data / "img" / "deep" / "a.png")
    [example], _ = ingest(write_rows(data, [GOOD | {"image": "img\\deep\\a.png"}]), tmp_path / "out")
    assert len(example.images) == 1


def test_an_empty_image_cell_is_asked_about(data: Path, tmp_path: Path) -> None:
    path = write_rows(data, [GOOD, GOOD | {"image": " "}])
    with pytest.raises(
        UsageError, match="own.csv: row 2: the image cell is empty; set data.empty_image to text .* drop"
    ):
        ingest(path, tmp_path / "a", empty_image="ask")
    assert [len(e.images) for e in ingest(path, tmp_path / "b", empty_image="text")[0]] == [1, 0]
    examples, quarantine = ingest(path, tmp_path / "c", empty_image="drop")
    assert len(examples) == 1 and quarantine.rows[0]["reason"] == "empty_image" and quarantine.rows[0]["row"] == 2


def test_a_wide_table_of_labels_becomes_questions_from_a_template(data: Path, tmp_path: Path) -> None:
    """One row an image, one column a finding, as CheXpert and NIH have them; 1, 0, -1 (uncertain) and empty."""
    rows = [
        {"image": "a.png", "Pleural_Effusion": "1.0", "Edema": "0", "patient_id": "p1", "split": "train"},
        {"image": "b.png", "Pleural_Effusion": "-1", "Edema": "", "patient_id": "p2", "split": "test"},
        {"image": "b.png", "Pleural_Effusion": "No", "Edema": "yes", "patient_id": "p2", "split": "test"},
    ]
    path = write_rows(data, rows)
    examples, quarantine = ingest(path, tmp_path / "out", findings=["Pleural_Effusion", "Edema"])
    assert [(e.id, e.question, e.answer, e.split) for e in examples] == [
        ("row-1-Pleural_Effusion", "Is there pleural effusion?", "yes", "align"),
        ("row-1-Edema", "Is there edema?", "no", "align"),
        ("row-3-Pleural_Effusion", "Is there pleural effusion?", "no", "test"),
        ("row-3-Edema", "Is there edema?", "yes", "test"),
    ]
    assert quarantine.count() == 0 and all(e.task == "closed" and e.finding for e in examples)
    summary = json.loads((tmp_path / "out" / "ingest.json").read_text())
    assert summary["filtered"] == {"own.csv: label neither yes nor no": 2}
    own = ingest(path, tmp_path / "own", findings=["Edema"], template="Do you see {finding} here?")[0]
    assert own[0].question == "Do you see edema here?"
    with pytest.raises(UsageError, match="no column 'Edemma'; did you mean 'Edema'"):
        ingest(path, tmp_path / "x", findings=["Edemma"])
    with pytest.raises(ValueError, match="template needs a place"):
        DataOptions(source="table", path="x", findings=["a"], template="Is there?")


def test_limit_draws_over_splits_and_patients_by_a_seed(data: Path, tmp_path: Path) -> None:
    """30 rows of 10 align patients stand before 3 rows of 3 test patients: the first rows alone would hold no test."""
    rows = [GOOD | {"patient_id": f"p{n // 3}", "image": "", "split": "align"} for n in range(30)]
    rows += [GOOD | {"patient_id": f"t{n}", "image": "", "split": "test"} for n in range(3)]
    path = write_rows(data, rows)
    drawn = {seed: ingest(path, tmp_path / str(seed), limit=10, seed=seed)[0] for seed in range(3)}
    for examples in drawn.values():
        assert [e.split for e in examples] == ["align"] * 9 + ["test"]
        assert len({e.patient_id for e in examples if e.split == "align"}) == 3  # whole patients
        numbers = [e.row for e in examples]
        assert numbers == sorted(numbers)
    assert drawn[0] == ingest(path, tmp_path / "again", limit=10, seed=0)[0]
    assert len({tuple(e.row for e in examples) for examples in drawn.values()}) > 1
    assert len(ingest(path, tmp_path / "all", limit=100)[0]) == 33


def test_the_path_of_a_missing_file_is_printed_and_written_nowhere(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [GOOD, GOOD | {"image": "gone/x.png"}, GOOD | {"image": "Miller^John"}]
    ingest(write_rows(data, rows), tmp_path / "out")
    said = capsys.readouterr().err
    assert f"no such file: {data / 'gone/x.png'}" in said
    assert "Miller" not in said and "a text of 11 characters" in said
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").glob("*.json*"))
    assert b"gone" not in written and b"Miller" not in written


def test_what_a_picture_carries_beside_its_pixels_stays_behind(data: Path, tmp_path: Path) -> None:
    text = PngInfo()
    text.add_text("Patient", "Mustermann^Erika")
    Image.new("L", (8, 8), 90).save(data / "Mustermann.png", pnginfo=text)
    ingest(write_rows(data, [GOOD | {"image": "Mustermann.png"}]), tmp_path / "out")
    [path] = (tmp_path / "out" / "images").rglob("*.png")
    assert b"Mustermann" in (data / "Mustermann.png").read_bytes()
    assert b"Mustermann" not in path.read_bytes() and "Mustermann" not in path.name


def test_the_example_table_is_read_whole(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "examples" / "own_data.csv"
    examples, quarantine = ingest(path, tmp_path / "out")
    assert quarantine.count() == 0 and len(examples) == len(path.read_text().splitlines()) - 1
    assert {e.split for e in examples} == {"align", "test"}
    assert {bool(r.mask) for e in examples for r in e.regions} == {True, False}
