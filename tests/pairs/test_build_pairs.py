"""Answers into pairs: the branch, the spans, the filters, and nothing lost."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clinalign.data.phantom.cases import sample_case
from clinalign.data.phantom.text import CLAIM_KINDS, contaminate, questions
from clinalign.language.align import Edit
from clinalign.pairs import EDITORS, PairOptions, build_pairs, corpus_numbers, reference_pairs
from clinalign.pairs.filters import REASONS
from clinalign.records import Answer, Example, Pair, Region
from clinalign.storage import Quarantine

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "language"))
from test_spans import cut, outside
from tokenizers_small import byte_level

NODULE = "Is there a nodule?"


def answer(example: Example, text: str, finish_reason: str = "stop") -> Answer:
    tokenizer = byte_level()
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return Answer(example.id, "model", 0, example.question, text, ids, finish_reason)


def example(truth: str, id: str = "e", question: str = NODULE, task: str = "closed") -> Example:
    return Example(id, ["images/1.png"], question, truth, task, [Region("nodule", [1, 2, 3, 4])])


def phantoms(patients: int, kinds: tuple[str, ...] = CLAIM_KINDS) -> tuple[list[Example], list[Answer]]:
    """Phantom questions with the answers of a biased speaker."""
    examples, answers = [], []
    for patient in range(patients):
        rng = random.Random(patient)
        for n, q in enumerate(questions(sample_case(patient), rng, kinds)):
            made = Example(f"p{patient}-{n}", [], q.prompt, q.answer, q.task, slots=q.slots)
            examples.append(made)
            answers.append(answer(made, contaminate(q, rng).full))
    return examples, answers


@pytest.fixture
def quarantine(tmp_path: Path) -> Iterator[Quarantine]:
    yield Quarantine(tmp_path / "quarantine.jsonl")


def one(made: Example, said: Answer, quarantine: Quarantine, options: PairOptions | None = None) -> list[Pair]:
    return build_pairs([made], [said], byte_level(), options or PairOptions(), quarantine)


def test_a_wrong_answer_is_rejected_beside_its_repair(quarantine: Quarantine) -> None:
    made = example("yes")
    said = answer(made, "There is no nodule here.")
    (pair,) = one(made, said, quarantine)
    assert (pair.own, pair.was_correct, pair.edit_kind, pair.editor) == ("rejected", False, "presence", "rule")
    assert (pair.chosen, pair.rejected) == ("There is a nodule here.", said.text)
    assert pair.rejected_token_ids == said.token_ids
    assert pair.chosen_token_ids[-1] == said.token_ids[-1]
    assert (pair.chosen_spans, pair.rejected_spans) == ([[9, 10]], [[9, 11]])
    assert pair.region == made.regions[0] and pair.region_source == "dataset"
    assert pair.prompt == said.prompt and pair.images == made.images
    assert quarantine.count() == 0


def test_a_right_answer_is_chosen_beside_a_counterfactual(quarantine: Quarantine) -> None:
    made = example("no")
    said = answer(made, "There is no nodule here.")
    (pair,) = one(made, said, quarantine)
    assert (pair.own, pair.was_correct) == ("chosen", True)
    assert (pair.chosen, pair.rejected) == (said.text, "There is a nodule here.")
    assert pair.chosen_token_ids == said.token_ids


def test_phantom_pairs_keep_the_sampled_ids_in_every_pair(quarantine: Quarantine) -> None:
    examples, answers = phantoms(60)
    tokenizer = byte_level()
    pairs = build_pairs(examples, answers, tokenizer, PairOptions(), quarantine)
    assert len(pairs) == len(answers) and quarantine.count() == 0
    sampled = {a.example_id: a for a in answers}
    for p in pairs:
        own = p.chosen_token_ids if p.own == "chosen" else p.rejected_token_ids
        assert own == sampled[p.example_id].token_ids
        assert outside(tokenizer, p.chosen_token_ids, p.chosen_spans, p.chosen) == outside(
            tokenizer, p.rejected_token_ids, p.rejected_spans, p.rejected
        )
        assert cut(p.chosen, p.chosen_spans) == cut(p.rejected, p.rejected_spans)
        assert p.chosen_spans or p.rejected_spans


def test_the_same_pairs_whatever_stands_beside_them(quarantine: Quarantine) -> None:
    examples, answers = phantoms(20)
    whole = build_pairs(examples, answers, byte_level(), PairOptions(), quarantine)
    half = build_pairs(examples, answers[::2], byte_level(), PairOptions(), quarantine)
    again = build_pairs(examples, answers, byte_level(), PairOptions(), quarantine)
    assert whole == again and half == whole[::2]
    other = build_pairs(examples, answers, byte_level(), PairOptions(seed=1), quarantine)
    assert [p.rejected for p in other] != [p.rejected for p in whole]


@pytest.mark.parametrize(
    "text, finish_reason, reason",
    [
        ("There is no nodule and", "length", "truncated"),
        ("  ", "stop", "empty_answer"),
        ("A nodule cannot be excluded.", "stop", "cannot_tell"),
        ("The weather is fine.", "stop", "cannot_tell"),
        ("Yes, there is no nodule.", "stop", "cannot_tell"),
    ],
)
def test_what_cannot_become_a_pair_is_quarantined(
    text: str, finish_reason: str, reason: str, quarantine: Quarantine
) -> None:
    made = example("yes")
    assert one(made, answer(made, text, finish_reason), quarantine) == []
    (row,) = quarantine.rows
    assert (row["stage"], row["reason"], row["id"]) == ("pair", reason, "e")
    assert row["reason"] in REASONS


def test_an_answer_without_example_and_ids_that_spell_something_else(quarantine: Quarantine) -> None:
    made = example("yes")
    stray = answer(example("yes", "other"), "There is a nodule.")
    garbled = Answer("e", "model", 0, NODULE, "There is a nodule.", answer(made, "No.").token_ids, "stop")
    assert build_pairs([made], [stray, garbled], byte_level(), PairOptions(), quarantine) == []
    assert [row["reason"] for row in quarantine.rows] == ["no_example", "text_mismatch"]


@pytest.mark.parametrize(
    "question, text, reply, truth, was_correct, reason",
    [
        (NODULE, "There is a nodule.", "There is a nodule.", "yes", True, "nothing_changed"),
        (NODULE, "There is a nodule.", "There is a pulmonary nodule.", "yes", True, "still_right"),
        ("Side?", "It is on the left.", "It lies on the left.", "right", False, "same_wrong_answer"),
        ("Side?", "It is left.", "It is lt.", "left", True, "synonym_only"),
        ("Side?", "It is left.", "It is bilateral.", "right", False, "still_wrong"),
        (NODULE, "There is a nodule.", "After a long look I would say that no nodule is there.", "no", False,
         "over_budget"),
        (NODULE, "There is a nodule.", "There is a thing.", "no", False, "cannot_tell"),
        (NODULE, "There is a nodule on the left side.", "There is no nodule on the right side.", "no", False,
         "outside_claim"),
    ],
)  # fmt: skip
def test_gates_hold_for_any_editor(
    question: str,
    text: str,
    reply: str,
    truth: str,
    was_correct: bool,
    reason: str,
    quarantine: Quarantine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The filters judge an editor's work anew; here an editor that gives a fixed reply."""
    monkeypatch.setitem(EDITORS, "rule", lambda *_: Edit(reply, [], [], was_correct, "any"))
    made = example(truth, question=question, task="closed" if truth in ("yes", "no") else "open")
    assert one(made, answer(made, text), quarantine) == []
    assert [row["reason"] for row in quarantine.rows] == [reason]


def test_without_counterfactuals_only_mistakes_make_pairs(quarantine: Quarantine) -> None:
    examples, answers = phantoms(20)
    pairs = build_pairs(examples, answers, byte_level(), PairOptions(counterfactuals=False), quarantine)
    assert pairs and not any(p.was_correct for p in pairs)
    assert len(pairs) + quarantine.count() == len(answers)


def test_right_answers_can_be_held_to_a_share(quarantine: Quarantine) -> None:
    examples, answers = phantoms(40)
    pairs = build_pairs(examples, answers, byte_level(), PairOptions(max_correct_share=0.5), quarantine)
    assert sum(p.was_correct for p in pairs) == sum(not p.was_correct for p in pairs)
    assert len(pairs) + quarantine.count() == len(answers)
    assert {row["reason"] for row in quarantine.rows} == {"downsampled"}


def test_corpus_numbers_of_three_pairs_by_hand() -> None:
    """Words: 5/5, 5/4, 4/5. Gaps 0, +1, -1. Replaced 1/5, deleted 1/5, inserted 1/5. Shorter wins 1.5 of 3."""

    def pair(chosen: str, rejected: str, a: list[list[int]], b: list[list[int]], right: bool) -> Pair:
        return Pair("i", "e", 0, [], "q", chosen, rejected, a, b, "chosen", [1, 2, 3], [1, 4, 3], right, "side", "rule")

    numbers = corpus_numbers(
        [
            pair("It is on the left.", "It is on the right.", [[13, 17]], [[13, 18]], True),
            pair("There is not a nodule.", "There is a nodule.", [[8, 12]], [], True),
            pair("There is a nodule.", "There is not a nodule.", [], [[8, 12]], False),
        ]
    )
    assert numbers["pairs"] == 3
    assert numbers["already_correct_share"] == pytest.approx(2 / 3)
    assert numbers["length_diff_mean"] == pytest.approx(2 / 3)
    assert numbers["length_gap_signed_mean"] == 0
    assert numbers["within_two_share"] == 1
    assert numbers["edit_distance_mean"] == pytest.approx(0.2)
    assert numbers["length_only_accuracy"] == 0.5
    assert numbers["negation_gap_mean"] == 0
    assert numbers["spans"]["spans_mean"] == pytest.approx(4 / 6)
    assert numbers["spans"]["words_mean"] == pytest.approx(4 / 6)
    assert numbers["spans"]["without_span_share"] == pytest.approx(2 / 6)
    assert numbers["spans"]["tokens_mean"] == 1
    assert numbers["edit_kinds"] == {"side": 3}


def test_the_numbers_tell_a_minimal_edit_corpus_from_a_reference_style_one(quarantine: Quarantine) -> None:
    """Published shapes (arXiv 2606.12590): 1.6 words apart, 86 % within two, distance 0.2; against 11.8, 1 %, 0.98."""
    examples, answers = phantoms(60)
    ours = corpus_numbers(build_pairs(examples, answers, byte_level(), PairOptions(), quarantine), quarantine)
    assert ours["length_diff_mean"] < 0.5 and ours["within_two_share"] == 1.0
    assert ours["edit_distance_mean"] < 0.25 and ours["length_only_accuracy"] < 0.55
    theirs = corpus_numbers(reference_pairs(examples, answers, byte_level(), quarantine))
    assert theirs["length_diff_mean"] > 8 and theirs["within_two_share"] == 0.0
    assert theirs["edit_distance_mean"] > 0.9 and theirs["length_only_accuracy"] == 1.0


def test_an_empty_corpus_has_numbers_too(quarantine: Quarantine) -> None:
    quarantine.add("pair", reason="truncated", id="a")
    assert corpus_numbers([], quarantine) == {"pairs": 0, "filters": {"truncated": 1}}
