"""The example recipes need no code: with the paths of one's own they are valid, and their data go through ingest."""

import csv
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from clinalign.check import check
from clinalign.cli import app
from clinalign.errors import UsageError
from clinalign.folder import Run
from clinalign.recipe import load_recipe
from clinalign.records import Example
from clinalign.run import execute
from clinalign.storage import read_table

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def slake(tmp_path: Path) -> Path:
    import sys

    sys.path.insert(0, str(Path(__file__).parent / "data"))
    from sources import picture, write_json

    base = tmp_path / "Slake1.0"
    for number, name in enumerate(("train", "validate", "test")):
        picture(base / "imgs" / f"xmlab{number}" / "source.jpg", number)
        row = {
            "img_name": f"xmlab{number}/source.jpg",
            "question": "Is it CT?",
            "answer": "Yes",
            "q_lang": "en",
            "qid": number,
        }
        write_json(base / f"{name}.json", [row])
    return base


@pytest.fixture
def dicom(tmp_path: Path) -> Path:
    from dicoms import make

    rows = []
    for number in range(5):
        make(tmp_path / "dicom" / f"{number}.dcm", np.full((8, 8), number, dtype=np.int16), PatientID=f"P-000{number}")
        rows.append({"image": f"{number}.dcm", "question": "Is it CT?", "answer": "yes"})
    with (tmp_path / "dicom" / "questions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path / "dicom" / "questions.csv"


def ingested(recipe: str, path: Path, out: Path) -> list[Example]:
    execute(Run(load_recipe(EXAMPLES / recipe, [f"data.path={path}"]), out), only="ingest")
    return read_table(out / "examples.parquet", Example)


def test_slake(slake: Path, tmp_path: Path) -> None:
    overrides = [f"data.path={slake}", "model=embedded"]
    said = check(str(EXAMPLES / "slake_qwen2_5_vl.yaml"), overrides)
    assert "a valid recipe" in said and "data slake" in said and "3 of 3 rows usable" in " ".join(said.split())
    examples = ingested("slake_qwen2_5_vl.yaml", slake, tmp_path / "run")
    assert [(e.split, e.answer) for e in examples] == [("align", "Yes"), ("dev", "Yes"), ("test", "Yes")]


def test_dicom_folder(dicom: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CLINALIGN_CACHE", str(tmp_path / "cache"))
    done = CliRunner().invoke(app, ["check", str(EXAMPLES / "dicom_folder.yaml"), f"data.path={dicom}"])
    assert done.exit_code == 0 and "a valid recipe" in done.output
    examples = ingested("dicom_folder.yaml", dicom, tmp_path / "run")
    assert {e.split for e in examples} == {"align", "test"} and len({e.patient_id for e in examples}) == 5
    assert all(e.meta["dicom"][0]["window"][0]["name"] == "soft" for e in examples)


@pytest.mark.parametrize("recipe", ["slake_qwen2_5_vl.yaml", "dicom_folder.yaml"])
def test_data_that_are_not_there_are_named(recipe: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="data.path: .*not there; add data.path="):
        check(str(EXAMPLES / recipe), [f"data.path={tmp_path / 'none'}"])
    with pytest.raises(UsageError, match="did you mean 'path'"):
        check(str(EXAMPLES / recipe), ["data.paht=x"])
