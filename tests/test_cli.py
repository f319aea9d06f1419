import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    """`clinalign --help` under half a second of processor time; the best of three, since the machine may be busy."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-m", "clinalign.cli", "--help"], capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert done.returncode == 0 and "demo" in done.stdout
    assert min(seconds) < 0.5
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
