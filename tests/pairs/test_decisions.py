"""A reader's decisions on pairs: rejected, corrected and re-gated, refused where they do not fit, kept with the run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from clinalign.errors import UsageError
from clinalign.pairs import PairOptions, build_pairs
from clinalign.pairs.decisions import NAME, adopted, apply_decisions, read_decisions
from clinalign.records import Answer, Example, Pair
from clinalign.storage import Quarantine

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "language"))
from test_build_pairs import answer, example
from test_spans import outside
from tokenizers_small import byte_level

SAID = {"a": "There is no nodule here.", "b": "The nodule lies in the right lung.", "c": "There is a nodule here."}


class Corpus:
    """Three pairs: two repairs of wrong answers (a, b) and one counterfactual of a right one (c)."""

    def __init__(self, folder: Path) -> None:
        self.quarantine = Quarantine(folder / "quarantine.jsonl")
        side = "Which side is the nodule on?"
        self.examples: list[Example] = [
            example("yes", "a"),
            example("left", "b", side, "open"),
            example("yes", "c"),
        ]
        self.answers: list[Answer] = [answer(e, SAID[e.id]) for e in self.examples]
        self.pairs = build_pairs(self.examples, self.answers, byte_level(), PairOptions(), self.quarantine)
        assert [p.id for p in self.pairs] == ["a-r0", "b-r0", "c-r0"]

    def row(self, id: str, decision: str, **more: Any) -> dict[str, Any]:
        pair = next(p for p in self.pairs if p.id == f"{id}-r0")
        texts = {"chosen": pair.chosen, "rejected": pair.rejected}
        return {"pair": pair.id, "round": 0, "decision": decision, **texts, **more}

    def apply(self, folder: Path, *rows: dict[str, Any]) -> list[Pair]:
        found = read_decisions(written(folder / "d.jsonl", *rows))
        tools = (byte_level(), PairOptions(), self.quarantine)
        return apply_decisions(self.pairs, found, self.examples, self.answers, *tools)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_accepted_and_undecided_pairs_stay_as_they_are(corpus: Corpus, tmp_path: Path) -> None:
    assert corpus.apply(tmp_path, corpus.row("a", "accept")) == corpus.pairs and corpus.quarantine.count() == 0


def test_a_rejected_pair_is_left_out_with_the_reason(corpus: Corpus, tmp_path: Path) -> None:
    kept = corpus.apply(tmp_path, corpus.row("b", "reject", reason="side cannot\u2028be seen"))
    assert [p.id for p in kept] == ["a-r0", "c-r0"]
    (row,) = corpus.quarantine.rows
    assert (row["stage"], row["reason"], row["id"]) == ("pair", "rejected_by_reader", "b")
    assert (row["file"], row["row"], row["detail"]) == (NAME, 1, "side cannot\u2028be seen")


@pytest.mark.parametrize(("id", "text"), [("b", "The nodule lies in the left upper lung."), ("c", "No nodule here.")])
def test_a_corrected_text_is_aligned_anew_and_the_sampled_ids_stay(
    id: str, text: str, corpus: Corpus, tmp_path: Path
) -> None:
    before = next(p for p in corpus.pairs if p.example_id == id)
    after = next(p for p in corpus.apply(tmp_path, corpus.row(id, "correct", text=f" {text} ")) if p.example_id == id)
    assert (after.editor, after.id, after.own, after.edit_kind) == ("reader", before.id, before.own, before.edit_kind)
    own, edited = ("chosen", "rejected") if before.own == "chosen" else ("rejected", "chosen")
    assert getattr(after, edited) == text and getattr(after, own) == getattr(before, own)
    assert getattr(after, f"{own}_token_ids") == getattr(before, f"{own}_token_ids")
    tokens = byte_level()
    assert tokens.decode(getattr(after, f"{edited}_token_ids"), skip_special_tokens=True) == text
    mine, theirs = (
        outside(tokens, getattr(after, f"{side}_token_ids"), getattr(after, f"{side}_spans"), getattr(after, side))
        for side in (own, edited)
    )
    assert mine == theirs
    assert corpus.quarantine.count() == 0


@pytest.mark.parametrize(
    ("id", "text", "reason"),
    [
        ("b", "The nodule lies in the right lung.", "nothing_changed"),
        ("a", "There is not a nodule here.", "same_wrong_answer"),
        ("b", "A wholly different sentence about many other things that nobody asked for today.", "over_budget"),
        ("c", "There is a big nodule here.", "still_right"),
    ],
)
def test_a_correction_has_to_pass_the_filters(id: str, text: str, reason: str, corpus: Corpus, tmp_path: Path) -> None:
    kept = corpus.apply(tmp_path, corpus.row(id, "correct", text=text))
    assert id not in {p.example_id for p in kept} and len(kept) == 2
    assert [row["reason"] for row in corpus.quarantine.rows] == [reason]


def test_unknown_pairs_stale_texts_and_contradicting_rows_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    known = corpus.row("a", "accept")
    cases = [
        ([known, known | {"pair": "a-r1"}], r"d\.jsonl:2: no pair 'a-r1' in this run; did you mean 'a-r0'"),
        ([known | {"chosen": "Something else."}], r"d\.jsonl:1: chosen: pair 'a-r0' reads otherwise now"),
        ([corpus.row("b", "reject"), corpus.row("b", "accept")], "left out by an earlier row"),
    ]
    for rows, message in cases:
        with pytest.raises(UsageError, match=message):
            corpus.apply(tmp_path, *rows)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ('{"pair": "x", "decision": "accept", "chosen": "y"}', "field 'rejected'"),
        ('{"pair": "x", "decision": "maybe", "chosen": "y", "rejected": "z"}', "'maybe'; expected one of accept"),
        ('{"pair": "x", "decision": "correct", "chosen": "y", "rejected": "z", "text": " "}', "needs the corrected"),
        ('{"pair": "x", "decision": "accept", "chosen": "y", "rejected": "z", "round": "1"}', "whole number"),
    ],
)
def test_a_broken_row_is_named(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(f"\n{line}\n")
    with pytest.raises(UsageError, match=rf"d\.jsonl:2: .*{message}"):
        read_decisions(tmp_path / "d.jsonl")
    with pytest.raises(UsageError, match="No such file"):
        read_decisions(tmp_path / "none.jsonl")


def test_the_folder_keeps_what_was_decided_and_nothing_that_does_not_fit(corpus: Corpus, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    first = written(tmp_path / "1.jsonl", corpus.row("a", "accept"), corpus.row("b", "reject"))
    second = written(tmp_path / "2.jsonl", corpus.row("b", "accept"), corpus.row("c", "reject"))
    with adopted(str(first), run):
        pass
    with adopted(str(second), run) as rows:
        assert [(r.pair, r.decision) for r in rows] == [("a-r0", "accept"), ("b-r0", "accept"), ("c-r0", "reject")]
    kept = (run / NAME).read_text()
    with adopted("", run) as rows:
        assert len(rows) == 3
    with adopted(str(run / NAME), run) as rows:
        assert len(rows) == 3
    with pytest.raises(UsageError, match="does not fit"), adopted(str(first), run):
        raise UsageError("does not fit")
    with pytest.raises(UsageError, match="3.jsonl:1: round: 1, but the run has 1"):
        with adopted(str(written(tmp_path / "3.jsonl", corpus.row("a", "accept") | {"round": 1})), run):
            pass
    assert (run / NAME).read_text() == kept and "origin" not in kept
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    with pytest.raises(UsageError, match="does not fit"), adopted(str(first), fresh):
        raise UsageError("does not fit")
    assert not (fresh / NAME).exists()


def test_a_corrected_pair_can_be_decided_on_again(corpus: Corpus, tmp_path: Path) -> None:
    better = "The nodule lies in the left upper lung."
    rows = [corpus.row("b", "correct", text=better), corpus.row("b", "accept") | {"chosen": better}]
    kept = corpus.apply(tmp_path, *rows)
    assert next(p for p in kept if p.id == "b-r0").chosen == better
