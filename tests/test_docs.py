"""What the docs print runs as printed."""

import re
import shutil
from pathlib import Path

import pytest

from clinalign.records import Outcome, Pair
from clinalign.storage import read_table

ROOT = Path(__file__).parents[1]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def test_the_script_runs_from_data_to_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLINALIGN_CACHE", str(tmp_path / "cache"))
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    [script] = blocks("docs/python.md", "python")
    exec(compile(script, "docs/python.md", "exec"), {"__name__": "__main__"})
    said, out = capsys.readouterr().out, tmp_path / "runs" / "python"
    assert "4 steps, adapter in" in said and read_table(out / "corrupted_pairs.parquet", Pair)
    assert {o.system for o in read_table(out / "outcomes.parquet", Outcome)} == {"base", "firempo"}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "firempo" in page.lower() and "not for clinical use" in page


def commands(page: str) -> list[str]:
    """Lines that call clinalign, in blocks that are indented or fenced."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^(?: {4}|)(clinalign [a-z]+[^\n]*)$", text, re.MULTILINE)


PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_docs_is_one_with_options_that_are_there(page: str) -> None:
    import shlex

    import typer

    from clinalign.cli import app

    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in commands(page):
        words = shlex.split(line.partition("  #")[0])
        if words[1] in ("is", "makes"):
            continue
        assert words[1] in known, line
        options = {name for parameter in known[words[1]].params for name in parameter.opts}
        assert [word for word in words[2:] if word.startswith("--") and word.partition("=")[0] not in options] == [], (
            line
        )
        recipe = words[2] if len(words) > 2 and words[2].endswith(".yaml") and words[2].startswith("examples/") else ""
        assert not recipe or (ROOT / recipe).is_file(), line
        keys = [word for word in words[2:] if "=" in word and not word.startswith("--")]
        if words[1] in ("run", "check", "evaluate", "ingest") and recipe:
            from clinalign.recipe import load_recipe

            load_recipe(ROOT / recipe, keys)
