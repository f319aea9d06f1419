"""What a small run cannot show is said, and a run that is large enough says nothing."""

import json
from pathlib import Path

import pytest

from clinalign.pages.provenance import caveats


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
