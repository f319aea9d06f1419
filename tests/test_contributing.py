"""What CONTRIBUTING.md prints: each example put into a copy of the package, as printed, and its tests run there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
KINDS = ("A loss", "A decoder", "A reader", "A metric")


def examples(document: str) -> dict[str, str]:
    """Heading -> the part of the document below it."""
    parts = re.split(r"^### (.+)\n", document, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def patched(text: str, hunk: str) -> str:
    """A text with a hunk's lines in the place of its old ones, which must stand in it once."""
    lines = hunk.strip("\n").split("\n")
    old = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "+")
    new = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "-")
    if text.count(old) != 1:
        raise ValueError(f"{text.count(old)} places for the hunk:\n{old}")
    return text.replace(old, new)


def put_in(part: str, root: Path) -> list[str]:
    """Writes the files of an example and applies its diffs below `root`; the tests among them."""
    tests = []
    for kind, block in re.findall(r"^```(python|diff)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL):
        head, _, body = block.partition("\n")
        if kind == "python":
            path = root / head.removeprefix("# ")
            assert not path.exists(), f"{path} is there already"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body, encoding="utf-8")
            tests += [str(path)] if "/tests/" in str(path) else []
        else:
            path = root / head.removeprefix("--- a/")
            for hunk in re.split(r"^@@.*\n", body, flags=re.MULTILINE)[1:]:
                path.write_text(patched(path.read_text(encoding="utf-8"), hunk), encoding="utf-8")
    return tests


def copied(root: Path) -> None:
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))


def ran(root: Path, tests: list[str]) -> str:
    """What the tests said that ran on the copy of the package below `root`."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *tests],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root / "src"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_is_one_entry_and_at_most_one_file(kind: str) -> None:
    part = examples(DOCUMENT)[kind]
    written = re.findall(r"^# (\S+\.py)$", part, re.MULTILINE)
    changed = re.findall(r"^--- a/(\S+)$", part, re.MULTILINE)
    assert len([path for path in written if path.startswith("src/")]) <= 1 and len(changed) == 1


@pytest.mark.slow
def test_the_tests_of_the_four_run_beside_each_other(tmp_path: Path) -> None:
    copied(tmp_path)
    tests = [test for kind in KINDS for test in put_in(examples(DOCUMENT)[kind], tmp_path)]
    assert len(tests) == len(KINDS)
    passed = re.findall(r"^PASSED (\S+?)::", ran(tmp_path, tests), re.MULTILINE)
    assert {tmp_path / path for path in passed} == set(map(Path, tests))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_example_s_test_runs_without_the_others(kind: str, tmp_path: Path) -> None:
    copied(tmp_path)
    tests = put_in(examples(DOCUMENT)[kind], tmp_path)
    assert len(tests) == 1 and re.search(r"\d passed", ran(tmp_path, tests))


def test_the_document_has_the_four() -> None:
    assert tuple(examples(DOCUMENT)) == KINDS


def test_a_hunk_that_does_not_fit_is_refused() -> None:
    assert patched("a\nb\nc\n", " b\n+x\n") == "a\nb\nx\nc\n"
    assert patched("a\nb\nc\n", "-b\n+x\n") == "a\nx\nc\n"
    for text in ("a\nc\n", "b\nb\n"):
        with pytest.raises(ValueError, match="places for the hunk"):
            patched(text, "-b\n+x\n")
