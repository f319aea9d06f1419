"""What a later stage would refuse is refused before the first one, by `check` and by `run`, in one line."""

import sys
from pathlib import Path

import pytest
from mistakes import MISTAKES, Mistake, working

from clinalign.check import check
from clinalign.cli import main
from clinalign.errors import UsageError
from clinalign.preflight import Finding, as_table
from clinalign.preflight.data import sample_options
from clinalign.recipe import load_recipe


def refused_by_run(arguments: list[str], patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The last line that `clinalign run` prints; exit code 2 and no traceback are asserted."""
    patch.setattr(sys, "argv", ["clinalign", "run", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    errors = capsys.readouterr().err
    assert end.value.code == 2 and "Traceback" not in errors, errors
    assert sum(line.startswith("clinalign: ") for line in errors.splitlines()) == 1
    return errors.strip().splitlines()[-1]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_is_refused_before_any_stage(
    mistake: Mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLINALIGN_CACHE", str(tmp_path / "cache"))
    recipe, out = working(tmp_path), tmp_path / "out"
    mistake.change(tmp_path, monkeypatch)
    overrides = [override.replace("{here}", str(tmp_path)) for override in mistake.overrides]
    line = refused_by_run([str(recipe), *overrides, "--out", str(out)], monkeypatch, capsys)
    assert mistake.words in line
    assert not [path.name for path in out.glob("*") if path.name != ".lock"]
    with pytest.raises(UsageError) as error:
        check(str(recipe), overrides, out)
    assert "\n" not in str(error.value) and f"clinalign: {error.value}" == line


def test_the_recipe_without_a_mistake_is_ready_and_the_table_fits_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLINALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    said = check(str(working(tmp_path)))
    assert "a valid recipe" in said and "refused" not in said and "llava, 2.7 M parameters" in " ".join(said.split())
    assert "4 of 4 rows usable" in " ".join(said.split()) and "the rules can judge 100%" in said
    lines = said.splitlines()[1:]
    table = lines[: next(i for i, line in enumerate(lines) if line.startswith("firempo on "))]
    assert {line.split()[0] for line in table if not line.startswith(" ")} == {"ready"}
    assert max(map(len, lines)) <= 80


def test_every_row_of_the_table_is_whole_and_what_is_refused_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = "words " * 30
    findings = [Finding("refused", "a", "align.x", text), Finding("ready", "b", "data", "well")]
    lines = as_table(findings).splitlines()
    assert lines[0].split() == ["ready", "b", "well"] and max(map(len, lines)) <= 60
    assert " ".join(lines[1:]).count("words") == 30 and "align.x" in lines[1]


def test_questions_in_another_language_are_said_with_their_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLINALIGN_CACHE", str(tmp_path / "cache"))
    recipe = working(tmp_path)
    text = (tmp_path / "q.csv").read_text().replace("Is there an effusion?", "Liegt ein Pleuraerguss vor?")
    (tmp_path / "q.csv").write_text(text)
    said = " ".join(check(str(recipe)).split())
    assert "warning language evaluate.judge: 50% of the questions are not in English" in said
    (tmp_path / "q.csv").write_text(text.replace("Is there a nodule?", "\u662f\u5426\u6709\u7ed3\u8282\uff1f"))
    assert "100% of the questions are not in English" in " ".join(check(str(recipe)).split())


def test_a_phantom_split_that_a_recipe_names_is_in_the_sample() -> None:
    """No patient of `dev` is drawn where nobody asks for one."""
    asked = load_recipe("phantom", ["data.splits={align: 20, dev: 3, test: 4}"]).data
    assert sample_options(asked).splits == {"align": 16, "dev": 1, "test": 4}
    assert sample_options(asked.model_copy(update={"splits": {}})).splits == {"align": 16, "dev": 0, "test": 8}
