"""What a source holds: every change of its table or of a file that it names is seen, and nothing else."""

import os
from pathlib import Path

import pytest

from clinalign.data.files import source_hash
from clinalign.data.options import DataOptions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "deep/b.png", "mask.png", "other.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "t.csv").write_text("image,question,answer,mask\na.png,Where?,left,mask.png\ndeep/b.png,Where?,left,\n")
    (tmp_path / "t.jsonl").write_text(
        '{"images": ["a.png"], "turns": [{"text": "x", "more": {"file": "deep/b.png"}}]}\n'
    )
    return tmp_path


def seen(folder: Path, name: str = "t.csv", **options: str) -> str:
    return source_hash(DataOptions(source="table", path=str(folder / name), **options), exclude=folder / "run")


@pytest.mark.parametrize("table", ["t.csv", "t.jsonl"])
def test_a_file_that_a_cell_names_counts_whatever_the_column(table: str, folder: Path) -> None:
    before = seen(folder, table)
    (folder / "other.txt").write_text("nobody's")
    (folder / "run").mkdir()
    (folder / "run" / "x.png").write_text("made by a run")
    assert seen(folder, table) == before
    stat = (folder / "deep" / "b.png").stat()
    (folder / "deep" / "b.png").write_bytes(b"DEEP/B.PNG")
    os.utime(folder / "deep" / "b.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    changed = seen(folder, table)
    assert changed != before, "same size, same time of writing"
    (folder / "a.png").unlink()
    assert seen(folder, table) not in (before, changed)


def test_the_table_counts_by_its_bytes(folder: Path) -> None:
    before = seen(folder)
    os.utime(folder / "t.csv")
    assert seen(folder) == before
    (folder / "t.csv").write_text((folder / "t.csv").read_text().replace("left", "lefT"))
    assert seen(folder) != before


def test_a_folder_counts_whole_but_for_runs_in_it(folder: Path) -> None:
    def whole() -> str:
        return source_hash(DataOptions(source="slake", path=str(folder)), exclude=folder / "run")

    before = whole()
    for name in ("run/images/x.png", "old/run.json", "old/y.png", ".git/z"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / "loop").symlink_to(folder)
    assert whole() == before
    (folder / "deep" / "c.png").write_text("new")
    assert whole() != before


def test_a_source_that_is_drawn_or_missing_or_broken_has_a_hash_all_the_same(folder: Path) -> None:
    assert source_hash(DataOptions(), exclude=folder) == ""
    (folder / "bad.parquet").write_bytes(b"torn")
    assert seen(folder, "none.csv") and seen(folder, "bad.parquet") and seen(folder, "x.xyz")
