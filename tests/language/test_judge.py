"""Judging: closed, open, lettered answers and reports; None rather than a guess."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from clinalign.data.phantom.cases import sample_case
from clinalign.data.phantom.text import KINDS_OF_QUESTION, contaminate, questions
from clinalign.language import judge


@pytest.mark.parametrize(
    "question, answer, truth, correct",
    [
        ("Is there a pneumothorax?", "Yes", "yes", True),
        ("Is there a pneumothorax?", "No.", "yes", False),
        ("Is there a pneumothorax?", "There is no evidence of pneumothorax.", "no", True),
        ("Is there a pneumothorax?", "A small left apical pneumothorax is present.", "yes", True),
        ("Is there a pneumothorax?", "Yes, there is no pneumothorax.", "yes", None),
        ("Is there a pneumothorax?", "A pneumothorax cannot be excluded.", "yes", None),
        ("Is there a pneumothorax?", "I'm sorry, I cannot determine that.", "yes", None),
        ("Is there a pneumothorax?", "The heart is enlarged.", "yes", None),
        ("Is there a pneumothorax?", "The image shows no abnormality.", "no", True),
        ("Is there an effusion?", "Pleural fluid is seen on the left.", "yes", True),
        ("Is there any lung opacity?", "There is a consolidation in the right lung.", "yes", True),
        ("Does the patient have cardiomegaly?", "The heart is normal in size.", "no", True),
        ("Does the patient have cardiomegaly?", "The cardiac silhouette is enlarged.", "yes", True),
        ("Is the heart enlarged?", "No, the heart size is normal.", "no", True),
        ("Is the nodule on the left side?", "The nodule is in the right lung.", "no", True),
        ("Is the nodule on the left side?", "The nodule is in the right lung.", "yes", False),
        ("Is the nodule on the left side?", "Yes, it is on the right.", "yes", None),
        ("Is the nodule on the left side?", "No.", "no", True),
        ("Is this an MRI?", "This is a CT scan.", "no", True),
        ("Is there a new nodule?", "Yes, there is a new nodule.", "yes", True),
        ("Is the nodule new?", "No nodule is seen.", "yes", False),
        ("Is this an MRI?", "Yes, it is an MR image.", "yes", True),
        ("Is this a T1-weighted image?", "This image is T2 weighted.", "yes", False),
        ("Does the picture contain lung?", "Yes", "yes", True),
        ("Does the picture contain the liver?", "The picture contains no liver.", "yes", False),
    ],
)
def test_closed(question: str, answer: str, truth: str, correct: bool | None) -> None:
    assert judge(question, answer, truth, "closed").correct is correct


@pytest.mark.parametrize(
    "question, answer, truth, correct",
    [
        ("Which side is the effusion on?", "The effusion is on the left side of the chest.", "Left", True),
        ("Which side is the effusion on?", "It is right-sided.", "Left", False),
        ("Which side is the effusion on?", "It is seen on both the left and the right.", "bilateral", True),
        ("Which side is the effusion on?", "There is no effusion.", "Left", False),
        ("Which side is the effusion on?", "The effusion is small.", "Left", None),
        ("Which lung is abnormal?", "Left lung", "Left Lung", True),
        ("Where is the nodule?", "In the right upper lobe.", "Right upper lobe", True),
        ("Where is the nodule?", "In the left upper lobe.", "Right upper lobe", False),
        ("Where is the nodule?", "In the upper lobe.", "Right upper lobe", None),
        ("What modality is used to take this image?", "This is a chest X-ray.", "X-Ray", True),
        ("What modality is used to take this image?", "The image was taken with MRI.", "CT", False),
        ("What imaging plane is shown?", "It is a transverse slice.", "Axial", True),
        ("What is the main finding?", "The radiograph shows an enlarged heart.", "Cardiomegaly", True),
        ("What disease is shown?", "The image shows a pneumothorax.", "Pleural effusion", False),
        ("What disease is shown?", "There is a lung opacity.", "Pneumonia", None),
        ("How many nodules are there?", "There are two nodules.", "2", True),
        ("How many nodules are there?", "There are 3 nodules.", "2", False),
        ("What is the tracer?", "The tracer is fluorodeoxyglucose here.", "Fluorodeoxyglucose", True),
        ("What is the tracer?", "It is technetium.", "Fluorodeoxyglucose", None),
        ("What organ is shown?", "The liver.", "Liver", True),
        ("Give the box of the mass.", "The mass is at [10, 10, 20, 20].", "[11, 10, 20, 20]", True),
        ("Give the box of the mass.", "The mass is at [40, 40, 5, 5].", "[11, 10, 20, 20]", False),
    ],
)
def test_open(question: str, answer: str, truth: str, correct: bool | None) -> None:
    assert judge(question, answer, truth, "open").correct is correct


OPTIONS = "On which side is the nodule? A. right B. left C. both sides D. midline"


@pytest.mark.parametrize(
    "answer, correct",
    [
        ("B", True),
        ("B.", True),
        ("(B)", True),
        ("B. left", True),
        ("The answer is B, as seen here.", True),
        ("left", True),
        ("The nodule is on the left.", True),
        ("The answer is A.", False),
        ("A, right", False),
        ("A, left", None),
        ("A or B", None),
        ("Hard to say.", None),
    ],
)
def test_letters(answer: str, correct: bool | None) -> None:
    assert judge(OPTIONS, answer, "B", "closed").correct is correct
    assert judge(OPTIONS, answer, "left", "closed").correct is correct


REFERENCE = "There is a small left pleural effusion. No pneumothorax. The heart is normal in size."


@pytest.mark.parametrize(
    "answer, correct",
    [
        ("Small effusion on the left. No pneumothorax is seen. Normal heart.", True),
        ("Small effusion on the right. No pneumothorax is seen.", False),
        ("Large left pleural effusion.", False),
        ("Small left effusion. The heart is enlarged.", False),
        ("Small left effusion and a pneumothorax.", False),
        ("No effusion or pneumothorax.", False),
        ("No pneumothorax.", False),
        ("An image of a chest.", None),
    ],
)
def test_reports(answer: str, correct: bool | None) -> None:
    assert judge("Describe the findings.", answer, REFERENCE, "report").correct is correct


def test_true_values_win_over_the_question_text() -> None:
    slots = {"side": "right", "asked": "left"}
    assert judge("Is it there?", "The nodule is on the right.", "no", "closed", slots).correct is True
    assert judge("Is it there?", "The nodule is on the left.", "no", "closed", slots).correct is False


def test_the_span_points_at_the_deciding_words() -> None:
    answer = "The effusion lies on the right side."
    judged = judge("Which side is the effusion on?", answer, "left", "open")
    assert judged.span is not None and answer[slice(*judged.span)] == "right"
    answer = "There is no pneumothorax here."
    judged = judge("Is there a pneumothorax?", answer, "no", "closed")
    assert judged.span is not None and answer[slice(*judged.span)] == "no pneumothorax"


def _said_differently(truth: dict[str, Any], told: dict[str, Any]) -> bool:
    keys = [k for k in truth if k in ("presence", "side", "zone", "size", "finding", "letter", "box")]
    return any(truth[k] != told.get(k) for k in keys)


def test_every_phantom_answer_is_right_and_every_contaminated_one_wrong() -> None:
    """The phantom grammar is written independently; the judge has to read all of it."""
    judged: Counter[str] = Counter()
    for patient in range(150):
        rng = random.Random(patient)
        for q in questions(sample_case(patient), rng, KINDS_OF_QUESTION):
            verdict = judge(q.prompt, q.full, q.answer, q.task, q.slots)
            assert verdict.correct is True, (q.prompt, q.full, verdict)
            told = contaminate(q, rng)
            if told.full != q.full and q.task != "report":
                verdict = judge(told.prompt, told.full, told.answer, told.task, told.slots)
                assert verdict.correct is False, (told.prompt, told.full, verdict)
                judged["contaminated"] += 1
            judged[q.kind] += 1
    assert sum(judged.values()) > 9_000 and judged["contaminated"] > 300


@pytest.mark.parametrize(
    "said",
    [
        '```json\n[{"bbox_2d": [200, 200, 240, 240], "label": "nodule"}]\n```',
        "<|box_start|>(200,200),(240,240)<|box_end|>",
        "<ref>nodule</ref><box>[[200, 200, 240, 240]]</box>",
        '{"box_2d": [200, 200, 240, 240]}',
        '{"x1": 200, "y1": 200, "x2": 240, "y2": 240, "all": [200, 200, 240, 240]}',
    ],
)
def test_corners_of_a_box_are_not_taken_for_its_size(said: str) -> None:
    asked = "Where is the nodule? Give the box."
    assert judge(asked, said, "[200, 200, 40, 40]", "open").correct is None
    assert judge(asked, "[200, 200, 40, 40]", "[200, 200, 40, 40]", "open").correct is True


@pytest.mark.parametrize("said", ["Yes and no.", "Both yes and no", "It could be yes or no.", "Yes, no.", "No/yes"])
def test_yes_and_no_in_one_breath_is_neither(said: str) -> None:
    for truth in ("yes", "no"):
        found = judge("Is there a nodule?", said, truth, "closed", {"presence": truth})
        assert (found.correct, found.reason) == (None, "contradictory")
    assert judge("Is there a nodule?", "Yes, and no effusion.", "yes", "closed", {"presence": "yes"}).correct is True
    assert judge("Is there a nodule?", "Yes, no effusion.", "yes", "closed", {"presence": "yes"}).correct is True
