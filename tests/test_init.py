"""`clinalign init`: a recipe out of a table and a model; what it writes passes the check."""

import csv
from pathlib import Path

import pytest
from mistakes import working
from test_cli import run_in_process

from clinalign.check import check
from clinalign.errors import UsageError
from clinalign.init import write_recipe
from clinalign.recipe import load_recipe


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINALIGN_CACHE", str(tmp_path / "cache"))


def table(folder: Path, header: str, name: str = "own.csv") -> str:
    """The table of `working` under other column names."""
    working(folder)
    text = (folder / "q.csv").read_text()
    (folder / name).write_text(header + text[text.index("\n") :])
    return str(folder / name)


def test_columns_are_guessed_and_the_recipe_passes_the_check(tmp_path: Path) -> None:
    data = table(tmp_path, "Image Path,prompt,gt,bbox,Subject ID,partition")
    out = tmp_path / "mine.yaml"
    said = write_recipe(data, str(tmp_path / "model"), out, {})
    assert "image: Image Path, question: prompt, answer: gt" in said and said.endswith(f"next: clinalign check {out}")
    recipe = load_recipe(out)
    assert recipe.data.columns["patient_id"] == "Subject ID" and recipe.data.columns["split"] == "partition"
    assert "4 of 4 rows usable" in " ".join(check(str(out)).split())
    comments = [line for line in out.read_text().splitlines() if "#" in line]
    assert len(comments) > 6


def test_of_two_columns_that_fit_the_user_says_which(tmp_path: Path) -> None:
    data = table(tmp_path, "img,question,gt,reference,patient,split")
    with pytest.raises(UsageError, match="gt and reference both fit answer; say which: --column answer=gt or --column"):
        write_recipe(data, "embedded", tmp_path / "a.yaml", {})
    write_recipe(data, "embedded", tmp_path / "a.yaml", {"answer": "gt"})
    assert load_recipe(tmp_path / "a.yaml").data.columns["answer"] == "gt"
    with pytest.raises(UsageError, match="is there already"):
        write_recipe(data, "embedded", tmp_path / "a.yaml", {"answer": "gt"})
    with pytest.raises(UsageError, match="no column 'x'"):
        write_recipe(data, "embedded", tmp_path / "b.yaml", {"answer": "x"})


def test_an_exact_name_wins_and_a_needed_one_is_asked_for(tmp_path: Path) -> None:
    data = table(tmp_path, "image,question,answer,path,patient_id,split")
    write_recipe(data, "embedded", tmp_path / "a.yaml", {})
    assert load_recipe(tmp_path / "a.yaml").data.columns == {}
    data = table(tmp_path / "b", "image,question,says,box,patient_id,split") if (tmp_path / "b").mkdir() is None else ""
    with pytest.raises(UsageError, match=r"no column for answer; name it with --column answer=\.\.\. .*there: image"):
        write_recipe(data, "embedded", tmp_path / "c.yaml", {})


def test_a_wide_table_of_labels_becomes_findings(tmp_path: Path) -> None:
    working(tmp_path)
    with (tmp_path / "wide.csv").open("w", newline="") as file:
        rows = [["Path", "Edema", "Pleural Effusion", "Age"], ["a.png", "1.0", "0", "61"], ["b.png", "0.0", "1", "47"]]
        csv.writer(file).writerows(rows)
    write_recipe(str(tmp_path / "wide.csv"), "embedded", tmp_path / "w.yaml", {})
    data = load_recipe(tmp_path / "w.yaml").data
    assert data.findings == ["Edema", "Pleural Effusion"] and data.columns == {"image": "Path"}
    assert "4 of 4 rows usable" in " ".join(check(str(tmp_path / "w.yaml")).split())


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    data = table(tmp_path, "img,question,gt,reference,patient,split")
    arguments = ["init", data, "--model", "embedded", "--out", str(tmp_path / "new.yaml"), "--column", "answer=gt"]
    assert run_in_process(monkeypatch, capsys, *arguments)[0] == 0 and load_recipe(tmp_path / "new.yaml")
    code, errors = run_in_process(monkeypatch, capsys, *arguments[:-1], "answer")
    assert code == 2 and "--column is OURS=YOURS" in errors
