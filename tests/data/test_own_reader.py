"""A reader of the user's own: one file, named by its dotted path where a source's name would stand."""

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from sources import picture

from clinalign.data import READERS, read, reader
from clinalign.data.files import source_hash
from clinalign.data.options import DataOptions
from clinalign.errors import UsageError
from clinalign.folder import Run
from clinalign.recipe import load_recipe
from clinalign.records import Example
from clinalign.run import execute
from clinalign.storage import Quarantine, read_table

OWN = '''
from clinalign.data.ingest import Item, ingest
from clinalign.storage import user_path


def lines(options, folder, quarantine):
    """FILE: image | side of the nodule."""
    path = user_path(options.path)
    items = (
        Item(path.name, number, {"image": image, "question": "On which side is the nodule?", "answer": side,
                                 "split": "test" if number == 1 else "train", "slots": {"side": side}})
        for number, (image, side) in enumerate((line.split("|") for line in path.read_text().splitlines()), 1)
    )
    return ingest(items, options, folder, quarantine, base=path.parent)
'''


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for number in range(4):
        picture(tmp_path / f"{number}.png", number)
    (tmp_path / "own_reader.py").write_text(OWN)
    (tmp_path / "sides.txt").write_text("0.png|left\n1.png|right\n2.png|left\nnone.png|left\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_reader", raising=False)
    return tmp_path / "sides.txt"


def test_an_own_reader_is_named_by_its_dotted_path(table: Path, tmp_path: Path) -> None:
    recipe = load_recipe("phantom", ["data.source=own_reader:lines", f"data.path={table}"])
    execute(Run(recipe, tmp_path / "run"), only="ingest")
    examples = read_table(tmp_path / "run" / "examples.parquet", Example)
    assert [(e.answer, e.split, e.row, e.slots) for e in examples] == [
        ("left", "test", 1, {"side": "left"}),
        ("right", "align", 2, {"side": "right"}),
        ("left", "align", 3, {"side": "left"}),
    ]
    assert {e.source for e in examples} == {"own_reader:lines"}
    assert Quarantine(tmp_path / "run" / "quarantine.jsonl").rows[0]["reason"] == "missing_image"


def test_another_code_of_an_own_reader_is_another_source(table: Path, tmp_path: Path) -> None:
    options = DataOptions(source="own_reader:lines", path=str(table))
    before = source_hash(options, exclude=tmp_path / "run")
    assert before == source_hash(options, exclude=tmp_path / "run")
    (tmp_path / "own_reader.py").write_text(OWN + "# more\n")
    assert before != source_hash(options, exclude=tmp_path / "run")


@pytest.mark.parametrize(
    ("source", "says"),
    [("own_reader:rows", "own_reader has no 'rows'"), ("no_such_module:read", "put its folder on PYTHONPATH")],
)
def test_an_own_reader_that_is_not_there_is_one_line(table: Path, tmp_path: Path, source: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read(DataOptions(source=source), tmp_path / "out", Quarantine(tmp_path / "q.jsonl"))


def test_the_sources_of_a_recipe_are_the_readers() -> None:
    with pytest.raises(ValidationError, match="no source 'slakes'.*did you mean 'slake'"):
        DataOptions(source="slakes", path="x")
    assert all(callable(reader(name)) for name in READERS)
