"""Minimal edits: the claim turns, the grammar holds, the rest stays byte for byte."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from clinalign.data.phantom.cases import KINDS, sample_case
from clinalign.data.phantom.text import CLAIM_KINDS, contaminate, questions
from clinalign.errors import RowError
from clinalign.language import claims, edit, judge
from clinalign.language.align import words
from clinalign.language.edit_reports import within_budget

NODULE = "Is there a nodule?"


@pytest.mark.parametrize(
    "question, before, truth, after",
    [
        (NODULE, "There is a nodule.", "no", "There is no nodule."),
        (NODULE, "There is no nodule.", "yes", "There is a nodule."),
        (NODULE, "No nodule can be seen.", "yes", "A nodule can be seen."),
        (NODULE, "A small nodule can be seen.", "no", "No small nodule can be seen."),
        (NODULE, "The image shows no evidence of a nodule.", "yes", "The image shows evidence of a nodule."),
        (NODULE, "The image shows evidence of a nodule.", "no", "The image shows no evidence of a nodule."),
        (NODULE, "No evidence of a nodule.", "yes", "Evidence of a nodule."),
        (NODULE, "Findings consistent with a nodule are present.", "no",
         "Findings consistent with a nodule are absent."),
        (NODULE, "A nodule is absent.", "yes", "A nodule is present."),
        (NODULE, "The nodule is not seen.", "yes", "The nodule is seen."),
        (NODULE, "A nodule cannot be seen.", "yes", "A nodule can be seen."),
        (NODULE, "There isn't a nodule.", "yes", "There is a nodule."),
        (NODULE, "Yes, there is a nodule.", "no", "No, there is no nodule."),
        (NODULE, "No, there is no nodule.", "yes", "Yes, there is a nodule."),
        (NODULE, "Yes", "no", "No"),
        (NODULE, "no", "yes", "yes"),
        (NODULE, "The lungs are without a nodule.", "yes", "The lungs are with a nodule."),
        (NODULE, "There is no mass, nodule or effusion.", "yes", "There is no mass, a nodule, no effusion."),
        (NODULE, "There is no nodule, mass or effusion.", "yes", "There is a nodule, no mass or effusion."),
        (NODULE, "There is no mass or nodule.", "yes", "There is no mass but a nodule."),
        ("Is there edema?", "There is no edema.", "yes", "There is edema."),
        ("Is there edema?", "There is edema.", "no", "There is no edema."),
        ("Is there an atelectasis?", "There is no atelectasis.", "yes", "There is an atelectasis."),
        ("Is there atelectasis?", "No atelectasis is seen.", "yes", "Atelectasis is seen."),
        ("Is there an effusion?", "There are no pleural effusions.", "yes", "There are pleural effusions."),
        ("Is the heart enlarged?", "The heart is normal in size.", "yes", "The heart is enlarged in size."),
        ("Is the heart enlarged?", "Yes, the heart is enlarged.", "no", "No, the heart is normal."),
        ("Which side is the nodule on?", "The nodule is on the RIGHT side.", "left", "The nodule is on the LEFT side."),
        ("Which side is the nodule on?", "Left.", "right", "Right."),
        ("Which zone is the nodule in?", "An apical nodule is seen.", "lower", "A basal nodule is seen."),
        ("How big is the nodule?", "It is a tiny nodule.", "large", "It is a large nodule."),
        ("What is the main finding?", "There is a nodule.", "atelectasis", "There is an atelectasis."),
        ("What is the main finding?", "There is a nodule.", "cardiomegaly", "There is cardiomegaly."),
        ("What is the main finding?", "There is cardiomegaly.", "pneumothorax", "There is a pneumothorax."),
        ("What is the modality?", "This is an MRI of the brain.", "CT", "This is a CT of the brain."),
        ("How many nodules are there?", "There are two nodules.", "3", "There are three nodules."),
        ("Is the nodule on the left?", "Yes, it is on the left.", "no", "No, it is on the right."),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_repaired_in_place(question: str, before: str, truth: str, after: str) -> None:
    task = "closed" if truth in ("yes", "no") else "open"
    made = edit(question, before, truth, task=task)
    assert made.text == after
    assert not made.was_correct
    assert judge(question, made.text, truth, task).correct is True


@pytest.mark.parametrize(
    "question, text, truth",
    [
        (NODULE, "There is a nodule in the left upper lobe of the lung.", "yes"),
        (NODULE, "No nodule is seen on this film.", "no"),
        ("Which side is the nodule on?", "The nodule is on the right side.", "right"),
        ("Which zone is the nodule in?", "In the upper zone.", "upper"),
        ("What is the main finding?", "The film shows a large pleural effusion.", "pleural effusion"),
        ("Is this an MRI?", "This is an MRI.", "yes"),
        ("Which? A. nodule B. mass C. edema", "The answer is B, mass, here.", "B"),
        ("Where is the nodule?", "In the right upper lobe.", "right upper lobe"),
    ],
)
def test_a_right_answer_gets_a_mistake_of_the_same_kind(question: str, text: str, truth: str) -> None:
    task = "closed" if truth in ("yes", "no", "B") else "open"
    for seed in range(20):
        made = edit(question, text, truth, task=task, rng=random.Random(seed))
        assert made.was_correct
        assert judge(question, made.text, truth, task).correct is False
        assert abs(len(made.text.split()) - len(text.split())) <= 1


@pytest.mark.parametrize(
    "text, reason",
    [
        ("A nodule cannot be excluded.", "cannot_tell"),
        ("I am sorry, I cannot answer.", "cannot_tell"),
        ("The heart is large.", "cannot_tell"),
    ],
)
def test_no_guess(text: str, reason: str) -> None:
    with pytest.raises(RowError) as error:
        edit(NODULE, text, "yes", task="closed")
    assert error.value.reason == reason


def test_outside_the_spans_nothing_changes_and_the_draw_is_the_ids() -> None:
    text = "  The   nodule (see below) lies in the\tLEFT upper zone;  is it «round»? Yes... "
    made = edit("Which zone is the nodule in?", text, "lower", rng=random.Random("a/1"))
    again = edit("Which zone is the nodule in?", text, "lower", rng=random.Random("a/1"))
    assert made == again
    (before,), (after,) = made.chosen_spans, made.rejected_spans
    assert text[: before[0]] == made.text[: after[0]] and text[before[1] :] == made.text[after[1] :]
    assert (text[slice(*before)], made.text[slice(*after)]) == ("upper", "lower")


def test_phantom_answers_turn_and_turn_back() -> None:
    """Every right phantom answer gets a wrong counterpart; every contaminated one comes back to its clean wording."""
    kinds: Counter[str] = Counter()
    for patient in range(200):
        rng = random.Random(patient)
        for q in questions(sample_case(patient), rng, (*CLAIM_KINDS, "which", "options")):
            made = edit(q.prompt, q.full, q.answer, q.slots, rng, task=q.task, choices={"finding": KINDS})
            assert made.was_correct
            assert judge(q.prompt, made.text, q.answer, q.task, q.slots).correct is False
            told = contaminate(q, rng)
            if told.full != q.full:
                back = edit(told.prompt, told.full, told.answer, told.slots, rng, task=told.task)
                assert not back.was_correct
                assert back.text == q.full
                kinds["contaminated"] += 1
            kinds[made.kind] += 1
    assert kinds["contaminated"] > 300
    assert {"presence", "side", "size", "zone", "finding", "letter"} <= kinds.keys()


def test_phantom_reports_are_repaired_within_three_words_a_sentence() -> None:
    left_out: Counter[str] = Counter()
    made_of = 0
    for patient in range(200):
        rng = random.Random(patient)
        (q,) = questions(sample_case(patient), rng, ("report",))
        told = contaminate(q, rng)
        for text in {q.full, told.full}:
            made_of += 1
            try:
                made = edit(q.prompt, text, q.answer, q.slots, rng, task="report", choices={"finding": KINDS})
            except RowError as error:
                left_out[error.reason] += 1
                continue
            assert within_budget(text, made.text)
            right = judge(q.prompt, made.text, q.answer, "report", q.slots)
            assert right.correct is (not made.was_correct) or right.reason.startswith("omitted")
    assert sum(left_out.values()) < 0.02 * made_of, left_out


REPORT = "The heart is normal in size. There is a small left pleural effusion. No pneumothorax or consolidation."


def test_a_report_gets_one_planted_error_and_keeps_its_length() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(200):
        made = edit("Describe.", REPORT, REPORT, task="report", rng=random.Random(seed))
        assert made.was_correct
        verdict = judge("Describe.", made.text, REPORT, "report")
        assert verdict.correct is False
        assert sum(verdict.slots[kind] for kind in ("slot", "invented", "denied")) == 1
        assert len(words(made.text)) == len(words(REPORT))
        kinds[made.kind] += 1
    assert {"side", "size", "presence"} <= kinds.keys()
    assert max(kinds.values()) < 100


def test_a_report_takes_the_facts_of_its_reference() -> None:
    own = "The heart is normal in size. There is a large right pleural effusion. There is a nodule in the left lung."
    truth = "Cardiomegaly. Small left pleural effusion. A mass is seen in the left lung."
    made = edit("Describe.", own, truth, task="report")
    assert made.text == (
        "The heart is enlarged in size. There is a small left pleural effusion. There is a mass in the left lung."
    )
    assert {c.finding for c in claims(made.text)} == {"cardiomegaly", "pleural effusion", "lung mass"}


def test_other_words_for_the_same_are_no_mistake() -> None:
    truth = "The lungs are clear. Heart size is normal. No effusion."
    own = "Clear lungs, unremarkable cardiac silhouette, no pleural fluid."
    assert judge("Describe.", own, truth, "report").correct is True
    assert edit("Describe.", own, truth, task="report").was_correct


def test_what_follows_from_a_denial_turns_with_it() -> None:
    text = "There is no nodule on this radiograph, so no location can be given."
    made = edit("Where is the nodule?", text, "left", {"side": "left"})
    assert made.text == "There is a left nodule on this radiograph, so a location can be given."


FUZZ = (
    "no not a an the is are there left right upper lower nodule effusion pneumothorax . , ; but and or no evidence of "
    "cannot be excluded seen present absent yes Yes, No, without clear lungs heart normal enlarged small large B A) "
    "( ) [1,2,3,4] 3 two which where side zone ? \n so has resolved abnormality mild cardiomegaly atelectasis "
    "free of neither"
).split(" ")
ASKED = [
    NODULE,
    "Where is the nodule?",
    "Is the nodule on the left?",
    "A. left B. right C. both?",
    "Describe.",
    "",
    "How many?",
]
TRUTHS = ["yes", "no", "left", "upper", "none", "B", "nodule", "3", "[1, 2, 3, 4]", "left upper lobe", "xyz", ""]


def test_any_words_end_as_an_edit_that_turns_the_verdict_or_as_a_reason() -> None:
    rng = random.Random(0)
    ends: Counter[str] = Counter()
    for _ in range(6_000):
        text = " ".join(rng.choice(FUZZ) for _ in range(rng.randint(0, 12)))
        question, truth, task = rng.choice(ASKED), rng.choice(TRUTHS), rng.choice(["open", "closed", "report"])
        try:
            made = edit(question, text, truth, None, rng, task=task)
        except RowError as error:
            ends[error.reason] += 1
            continue
        ends["edit"] += 1
        if task != "report":
            assert judge(question, made.text, truth, task).correct is (not made.was_correct)
    assert ends["edit"] > 200
    assert set(ends) <= {"edit", "cannot_tell", "no_edit", "still_wrong", "over_budget"}
