"""The study of factors pairs objectives at the same level, and refuses a sweep that has not ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinalign.errors import UsageError
from clinalign.records import Example, Outcome
from clinalign.storage import write_table
from studies.factors import differences


def answered(sweep: Path, system: str, verdicts: list[bool | None], seed: int) -> None:
    rows = [
        Outcome(f"e{n}", "open", "phantom2", "system", "greedy", seed, "clean", "", mark, "rule")
        for n, mark in enumerate(verdicts)
    ]
    write_table(sweep / "systems" / f"{system}-ab12-s{seed}" / "test-0f.outcomes.parquet", rows, Outcome)


def test_differences_at_every_level(tmp_path: Path) -> None:
    """Of four questions keep has 4 and 2 right, SFT 2 (one unread), FiRe-MPO 4, DPO none; all alike at "wrong 10"."""
    examples = [Example(f"e{n}", [], "Where?", "left", patient_id=f"p{n}") for n in range(4)]
    write_table(tmp_path / "corpora" / "pairs" / "examples.parquet", examples, Example)
    answered(tmp_path, "keep", [True] * 4, 0)
    answered(tmp_path, "keep", [True, True, False, None], 1)
    answered(tmp_path, "sft", [True, True, None, False], 0)
    answered(tmp_path, "firempo", [True] * 4, 0)
    answered(tmp_path, "dpo", [False] * 4, 0)
    for name in ("keep", "sft", "firempo"):
        answered(tmp_path, f"{name} wrong 10", [True, False, False, False], 0)
    with pytest.raises(UsageError, match="'dpo wrong 10' has no answers to test; let the sweep end first"):
        differences(tmp_path, ("test",))
    answered(tmp_path, "dpo wrong 10", [True, False, False, False], 0)
    found = differences(tmp_path, ("test",))["test"]
    (tmp_path / "systems" / "sft-cd34-s0").mkdir()
    (tmp_path / "systems" / "sft-cd34-s0" / "test-0f.outcomes.parquet").write_bytes(b"")
    with pytest.raises(UsageError, match="several settings"):
        differences(tmp_path, ("test",))
    gaps = {level: {pair: row["estimate"] for pair, row in pairs.items()} for level, pairs in found.items()}
    assert gaps == {
        "as it is": {"keep - sft": 0.25, "keep - firempo": -0.25, "keep - dpo": 0.75},
        "wrong 10": {"keep - sft": 0, "keep - firempo": 0, "keep - dpo": 0},
    }
