"""What a small run cannot show is said, and a run that is large enough says nothing."""

import json
from pathlib import Path

import pytest

from clinalign.pages.provenance import caveats
from clinalign.pages.results import _sentence


def finished(folder: Path, losses: list[float], patients: int = 100, width: float = 0.1) -> Path:
    (folder / "evaluation").mkdir()
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": n, "loss": x}) + "\n" for n, x in enumerate(losses))
    )
    difference = {"metric": "accuracy", "estimate": 0.1, "low": 0.1 - width / 2, "high": 0.1 + width / 2}
    summary = {"patients": patients, "comparisons": [difference | {"a": "firempo", "b": "base"}]}
    (folder / "evaluation" / "summary.json").write_text(json.dumps(summary))
    return folder


LEARNED = [0.7 - 0.02 * n for n in range(30)]


def test_a_run_that_is_large_enough_has_none(tmp_path: Path) -> None:
    assert caveats(finished(tmp_path, LEARNED), ["firempo"]) == []


@pytest.mark.parametrize(
    ("losses", "patients", "width", "words"),
    [
        (LEARNED[:3], 100, 0.1, "trained for 3 steps: too short"),
        ([0.69] * 30, 100, 0.1, "from 0.690 to 0.690 in 30 steps: hardly anything was learned; raise align.lr"),
        (LEARNED, 4, 0.1, "4 test patients: too few"),
        (LEARNED, 100, 0.5, "known to no better than 25 points either way"),
    ],
)
def test_each_reason_is_one_sentence(
    losses: list[float], patients: int, width: float, words: str, tmp_path: Path
) -> None:
    [text] = caveats(finished(tmp_path, losses, patients, width), ["firempo"])
    assert words in text and "\n" not in text


@pytest.mark.parametrize(
    ("read", "words"), [(100, ""), (80, " 20 of its answers cannot be read: of all 100 questions 60.0 % are right.")]
)
def test_the_headline_says_what_it_leaves_out(read: int, words: str) -> None:
    """Right in 75 % of 80 answers that can be read is right in 60 % of the 100 questions."""
    kept = {"firempo": (0.75, read), "base": (0.5, 100)}
    systems = {label: {"metrics": {"accuracy": {"estimate": e, "n": n}}} for label, (e, n) in kept.items()}
    difference = {"metric": "accuracy", "a": "firempo", "b": "base", "estimate": 0.25, "low": 0.1, "high": 0.4}
    text = _sentence({"n": 100, "systems": systems, "comparisons": [difference]}, "base", "firempo")
    assert text == "FiRe-MPO answers 75.0 % of the questions right, base 50.0 %: +25.0 points [+10.0, +40.0]." + words
