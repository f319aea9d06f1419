"""One picture in two files, encoded anew or resized, in two splits: ingest and audit see it."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clinalign.data import read
from clinalign.data.options import DataOptions
from clinalign.data.phantom.cases import render, sample_case
from clinalign.errors import UsageError
from clinalign.pairs.audit import audit_file
from clinalign.records import Example
from clinalign.storage import Quarantine


def pictures(folder: Path) -> None:
    """a and b are patients; copy.jpg is a at 80 % of its size, as a JPEG."""
    for number, name in enumerate("ab"):
        image = Image.fromarray(render(sample_case(number), 128).image)
        image.save(folder / f"{name}.png")
        if name == "a":
            image.resize((102, 102)).save(folder / "copy.jpg", quality=70)


def ingest(folder: Path, rows: str, **options: Any) -> list[Example]:
    (folder / "t.csv").write_text(f"image,question,answer,patient_id,split\n{rows}")
    settings = DataOptions(source="table", path=str(folder / "t.csv"), **options)
    return list(read(settings, folder / "out", Quarantine(folder / "q.jsonl")))


ROWS = "a.png,Is it?,yes,p1,align\nb.png,Is it?,no,p2,align\ncopy.jpg,Is it?,yes,p3,test\n"


def test_a_copy_in_another_split_is_refused_and_named(tmp_path: Path) -> None:
    pictures(tmp_path)
    with pytest.raises(UsageError, match=r"one image \(or a copy .*'align' \(row 1\).*'test' \(row 3\)"):
        ingest(tmp_path, ROWS)


def test_drop_leaves_out_the_row_that_is_learnt_from(tmp_path: Path) -> None:
    pictures(tmp_path)
    examples = ingest(tmp_path, ROWS, leaks="drop")
    assert [(e.row, e.split) for e in examples] == [(2, "align"), (3, "test")]


def test_without_patients_copies_stand_for_one(tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = "".join(f"{name},Is it?,yes,,\n" for name in ("a.png", "b.png", "copy.jpg"))
    first, other, copy = ingest(tmp_path, rows, splits={"align": 0.5, "test": 0.5})
    assert first.patient_id == copy.patient_id != other.patient_id and first.split == copy.split
    assert first.images != copy.images


def test_the_audit_finds_a_copy_and_says_what_it_could_not_look_at(tmp_path: Path) -> None:
    pictures(tmp_path)
    row = '{{"prompt": "Is it?", "chosen": "no", "rejected": "yes", "images": ["{}"]}}\n'
    (tmp_path / "pairs.jsonl").write_text(row.format("a.png") + row.format("gone.png"))
    for name, leaked in (("copy.jpg", 1), ("b.png", 0)):
        (tmp_path / "test.jsonl").write_text(row.format(name))
        found = audit_file(tmp_path / "pairs.jsonl", tmp_path / "test.jsonl")
        assert found["numbers"]["leaked_images"] == leaked
        assert found["checks"]["test_leaks"]["unchecked_images"] == 1
