"""The study of two rounds pairs its runs by question, and refuses runs of different ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from clinalign.errors import UsageError
from clinalign.records import Example, Outcome, Pair
from clinalign.storage import write_table
from studies import rounds


def folder(at: Path, right: list[bool | None], question: str = "Where?") -> Path:
    examples = [Example(f"e{i}", [], question, "left", patient_id=f"p{i}", split="test") for i in range(len(right))]
    write_table(at / "examples.parquet", examples, Example)
    marks = {"base": [False] * len(right), "keep": right}
    outcomes = [
        Outcome(f"e{i}", "open", "phantom2", system, "greedy", 0, "clean", "", mark, "rule")
        for system, verdicts in marks.items()
        for i, mark in enumerate(verdicts)
    ]
    write_table(at / "outcomes.parquet", outcomes, Outcome)
    write_table(at / "corrupted_pairs.parquet", [], Pair)
    (at / "evaluation").mkdir()
    summary = {"systems": {"keep": {"metrics": {"drift_rest": {"estimate": 0.5}}}}}
    (at / "evaluation" / "summary.json").write_text(json.dumps(summary))
    return at


def test_two_rounds_less_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right of four, an answer that cannot be judged is not: one round 2, 3 of two seeds, two rounds 4, 3."""
    one = [folder(tmp_path / "one0", [True, True, False, None]), folder(tmp_path / "one1", [True, True, True, False])]
    two = [folder(tmp_path / "two0", [True] * 4), folder(tmp_path / "two1", [True, True, True, None])]
    made = {"one round": one, "two rounds": two}
    monkeypatch.setattr(rounds, "ran", lambda work, arm, seed, own: made[arm][seed])
    monkeypatch.setattr(sys, "argv", ["rounds", "--out", str(tmp_path / "f.json"), "--seeds", "2"])
    rounds.main()
    found = json.loads((tmp_path / "f.json").read_text())
    assert found["systems"]["base"]["estimate"] == 0
    assert found["systems"]["one round"]["seeds"] == [0.5, 0.75] and found["systems"]["two rounds"]["seeds"] == [
        1,
        0.75,
    ]
    assert found["two_minus_one"]["estimate"] == pytest.approx(0.875 - 0.625)
    assert found["drift_rest"]["two rounds"] == [0.5, 0.5]

    two[1] = folder(tmp_path / "two2", [True] * 4, question="Which side?")
    with pytest.raises(UsageError, match="different questions"):
        rounds.main()
