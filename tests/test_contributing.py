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


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_is_one_entry_and_at_most_one_file_and_its_test_runs(kind: str, tmp_path: Path) -> None:
    part = examples(DOCUMENT)[kind]
    written = re.findall(r"^# (\S+\.py)$", part, re.MULTILINE)
    changed = re.findall(r"^--- a/(\S+)$", part, re.MULTILINE)
    assert len([path for path in written if path.startswith("src/")]) <= 1 and len(changed) == 1
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    tests = put_in(part, tmp_path)
    assert len(tests) == 1
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "src"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0 and re.search(r"\d passed", run.stdout), run.stdout + run.stderr


def test_the_document_has_the_four() -> None:
    assert tuple(examples(DOCUMENT)) == KINDS


def test_a_hunk_that_does_not_fit_is_refused() -> None:
    assert patched("a\nb\nc\n", " b\n+x\n") == "a\nb\nx\nc\n"
    assert patched("a\nb\nc\n", "-b\n+x\n") == "a\nx\nc\n"
    for text in ("a\nc\n", "b\nb\n"):
        with pytest.raises(ValueError, match="places for the hunk"):
            patched(text, "-b\n+x\n")
