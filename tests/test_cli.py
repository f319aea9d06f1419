import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

BARE = """
import typer
app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich")
app.command()(lambda: None)
app.command()(lambda: None)
app()
"""
"""The least that a command line of this kind can be."""


def help_of(*program: str) -> tuple[float, str]:
    """Processor time of a program's `--help`, and its text."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *program, "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    """`clinalign --help` in under twice what `--help` of an empty command line takes; the best of four, in turn."""
    bare, ours = zip(*((help_of("-c", BARE)[0], help_of("-m", "clinalign.cli")[0]) for _ in range(4)), strict=True)
    assert min(ours) < 2 * min(bare)
    assert "demo" in help_of("-m", "clinalign.cli")[1]
    code = "import sys, clinalign.cli; sys.exit(bool({'torch', 'transformers', 'numpy', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_recipes_are_validated_without_torch() -> None:
    code = "import sys, clinalign.recipe; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def run_in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str]:
    from clinalign.cli import main

    monkeypatch.setattr(sys, "argv", ["clinalign", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0), capsys.readouterr().err
    return 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "none.yaml"], "clinalign: none.yaml: no such recipe file"),
        (["run", "phantom", "aling.beta=1"], "unknown key 'aling'; did you mean 'align'?"),
        (["report", "nowhere"], "nowhere: not a run folder"),
        (["check", "x.txt.yaml"], "no such recipe file"),
    ],
)
def test_mistakes_end_with_exit_code_2_and_one_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, errors = run_in_process(monkeypatch, capsys, *arguments)
    assert code == 2 and message in errors and len(errors.strip().splitlines()) == 1


LONG = "x" * 5000


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", LONG),
        ("check", f"{LONG}.csv"),
        ("check", "phantom", f"data={{source: table, path: {LONG}}}"),
        ("audit", LONG),
        ("report", LONG),
        ("compare", LONG),
        ("ingest", "phantom", "--out", LONG),
        ("check", "phantom", "data={source: table, path: ~nobody-of-that-name/t.csv}"),
    ],
)
def test_a_name_that_is_no_name_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    code, said = run_in_process(monkeypatch, capsys, *arguments)
    refusals = [line for line in said.splitlines() if line.startswith("clinalign: ")]
    assert code == 2 and len(refusals) == 1 and len(said) < 6000
    table = arguments[1] == "phantom" and "~" in arguments[2]  # a recipe's check also says what is ready
    assert said.count("\n") == 1 or table


@pytest.mark.parametrize("stage", ["answer", "pair"])
def test_of_a_run_folder_its_own_stage_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    from clinalign.recipe import load_recipe

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.json").write_text(json.dumps({"recipe": load_recipe("phantom").model_dump(mode="json")}))
    code, errors = run_in_process(monkeypatch, capsys, stage, "mine")
    assert code == 2 and "mine: stage 'ingest' is not done" in errors and not (tmp_path / "run").exists()
    code, errors = run_in_process(monkeypatch, capsys, stage, "mine", "--out", "other")
    assert code == 2 and "other: stage 'ingest' is not done" in errors
