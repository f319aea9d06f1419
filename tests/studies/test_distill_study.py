"""The study of MEDALIGN reads back what was measured, unless it was measured of something else."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from clinalign.measuring.measure import Results
from clinalign.records import Example, Pair
from clinalign.storage import write_table
from studies import distill


def settings(**changed: Any) -> argparse.Namespace:
    own = {"split": "test", "model": "embedded", "steps": 2, "lr": 1e-3, "alpha": 1.0, "beta": 1.0, "layers": [2]}
    return argparse.Namespace(**own | {"flips": 4, "limit": 4, "seeds": 3, "only": None} | changed)


def test_a_result_of_other_settings_model_or_pairs_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(distill, "load_vlm", lambda *given, **named: None)
    monkeypatch.setattr(distill, "train", lambda *given, **named: None)
    monkeypatch.setattr(distill, "attention_maps", lambda *given, **named: {})
    monkeypatch.setattr(distill, "numbers_of", lambda *given: {"e": {"ratio": float(len(done))}})

    def evaluate(*given: Any, system: str, seed: int) -> Results:
        done.append(system)
        return Results([], [])

    monkeypatch.setattr(distill, "evaluate", evaluate)
    corpus = tmp_path / "corpus"
    write_table(corpus / "examples.parquet", [], Example)
    write_table(corpus / "corrupted_pairs.parquet", [], Pair)

    def measured(**changed: Any) -> float:
        found = distill.job("sft+vis", 0, corpus, tmp_path, settings(**changed))
        return float(found["ratio"]["e"])

    assert (measured(), measured(), measured(seeds=5, only=0)) == (1.0, 1.0, 1.0)
    assert measured(lr=1e-4) == 2.0 and measured(lr=1e-4) == 2.0, "settings of the training"
    assert measured() == 3.0, "one result lies under one name"
    assert measured(limit=5) == 4.0 and measured(alpha=0.5, limit=5) == 5.0, "of what is asked, of the teacher"
    assert measured(model="embedded2", alpha=0.5, limit=5) == 6.0
    spans: dict[str, Any] = {"chosen_spans": [[0, 4]], "rejected_spans": [[0, 5]]}
    ids: dict[str, Any] = {"chosen_token_ids": [1], "rejected_token_ids": [2]}
    named: dict[str, Any] = {"own": "chosen", "was_correct": True, "edit_kind": "side", "editor": "rule"}
    pair = Pair("p", "e", 0, [], "?", "left", "right", **spans, **named, **ids)
    write_table(corpus / "corrupted_pairs.parquet", [pair], Pair)
    assert measured(model="embedded2", alpha=0.5, limit=5) == 7.0
