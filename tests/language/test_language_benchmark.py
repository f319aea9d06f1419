"""The benchmark of claims and judge on the fixtures, and its own scoring.

`blind_open`, `judge_open` and `editor_open` are in view of the rules; the first run on `fresh_*`, written without sight
of them, is kept in benchmarks/results.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import language as benchmark
import pytest

from clinalign.errors import RowError
from clinalign.language import claims, edit, judge
from clinalign.language.claims import changed_claims, contradictions

ROOT = Path(__file__).parents[2]


def test_the_open_sentences_are_labelled() -> None:
    shares, misses = benchmark.on_sentences(benchmark.read(benchmark.FIXTURES, "blind"))
    assert shares["findings_right"] >= 0.95 and shares["side"] >= 0.95 and shares["measurement"] >= 0.95, misses
    assert min(shares["by_modality"].values()) >= 0.85


def test_the_open_triples_are_judged_and_none_wrongly() -> None:
    shares, misses = benchmark.on_triples(benchmark.read(benchmark.FIXTURES, "judge"))
    assert shares["judge_right"] >= 0.95 and shares["judge_wrong"] == 0, misses


def test_a_side_a_lobe_or_a_size_asked_for_has_to_be_the_one_said() -> None:
    asked = list(benchmark.variants())
    assert len(asked) == len(set(asked)) == 480
    assert benchmark.side_variants_wrong() == 0
    assert sum(judge(q, a, "yes", "closed").correct is False for q, a in asked) > 450, "and the rules are sure of it"
    assert sum(judge(q, a, "no", "closed").correct is True for q, a in asked) > 450


def test_the_first_run_on_the_fresh_set_is_kept() -> None:
    kept = json.loads((ROOT / "benchmarks" / "results" / "language-fresh-first-run.json").read_text(encoding="utf-8"))
    assert kept["findings_right"] == pytest.approx(0.961, abs=1e-3)
    rows = [json.loads(line) for line in (benchmark.FIXTURES / "fresh_sentences.jsonl").open(encoding="utf-8")]
    assert len(rows) >= 150
    now, misses = benchmark.on_sentences(rows)
    assert now["findings_right"] >= kept["findings_right"], misses


def test_any_folder_of_the_layout_is_read(tmp_path: Path) -> None:
    row: dict[str, Any] = {"id": "1", "mod": "cxr", "text": "No effusion.", "kind": "x"}
    row["gold"] = [{"finding": "pleural effusion", "status": "absent", "side": None, "size": None}]
    (tmp_path / "blind_other.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert benchmark.read(tmp_path, "blind") == [row] and benchmark.read(tmp_path, "judge") == []
    assert benchmark.on_sentences([row])[0]["findings_right"] == 1.0
    row["gold"][0]["status"] = "present"
    assert benchmark.on_sentences([row])[0]["findings_right"] == 0.0


def edits(row: dict[str, str]) -> list[tuple[str, Any]]:
    """The edits of an answer against truths that make it right and wrong."""
    closed = row["question"].split()[0] in ("Is", "Are", "Does")
    out = []
    for truth in ("yes", "no") if closed else (row["answer"],):
        for seed in range(8):
            try:
                made = edit(
                    row["question"],
                    row["answer"],
                    truth,
                    None,
                    random.Random(seed),
                    task="closed" if closed else "open",
                )
            except RowError:
                continue
            out.append((truth, made))
    return out


@pytest.mark.parametrize("row", benchmark.read(benchmark.FIXTURES, "editor"), ids=lambda row: row["id"])
def test_an_edit_changes_its_claim_alone_and_contradicts_nothing(row: dict[str, str]) -> None:
    for _, made in edits(row):
        assert made.text != row["answer"]
        assert not contradictions(made.text), made.text
        assert changed_claims(row["answer"], made.text) <= 2, "the claim, or the finding before and the one after"


def test_most_open_answers_can_be_edited() -> None:
    rows = benchmark.read(benchmark.FIXTURES, "editor")
    assert sum(bool(edits(row)) for row in rows) >= 0.8 * len(rows), "hedged answers are left alone"


def test_a_text_that_denies_what_it_states_is_found() -> None:
    assert contradictions("There is no pneumothorax; there is a pneumothorax.")
    assert not contradictions("There is no pneumothorax on the left; there is a pneumothorax on the right.")
    assert not contradictions("No large effusion. A small effusion is seen.")
    assert len(claims("There is no pneumothorax; there is a pneumothorax.")) == 2
