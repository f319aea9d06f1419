"""Text versus vision: arms and controls, stand-ins that read one modality, labels and leaks. Uncertainty beside it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from suite_items import example, outcome

from clinalign.evaluation.suites import modality, uncertainty
from clinalign.records import Example, Outcome

CONDITIONS = ("no_image", "no_text", "clean", *modality.CONTROLS)


def items(n: int = 60) -> list[Example]:
    return [
        example(
            k, "yes" if k % 2 else "no", slots={"context": f"Age {40 + k}, cough.", "question": "Is there a nodule?"}
        )
        for k in range(n)
    ]


def run(examples: list[Example], reads: set[str]) -> list[Outcome]:
    """A stand-in that answers right where the arm shows it what it reads (text or image) and of the right patient, and
    otherwise says no."""
    has_text = {c: c not in ("no_text", "shuffled_text") for c in CONDITIONS}
    has_image = {c: c in ("no_text", "clean", "same_label", "shuffled_text") for c in CONDITIONS}
    can = {c: ("text" in reads and has_text[c]) or ("image" in reads and has_image[c]) for c in CONDITIONS}
    return [outcome(e, e.answer if can[c] else "no", c) for e in examples for c in CONDITIONS]


def test_a_pixel_only_model_has_negative_interference() -> None:
    examples = items()
    scores = modality.summary(run(examples, {"image"}), examples)
    assert scores["interference"]["estimate"] == -0.5 and scores["interference"]["high"] < 0
    assert scores["gain"]["estimate"] == 0.5 and scores["gain"]["low"] > 0
    assert scores["gains"]["same_label"]["estimate"] == 0.0


def test_a_text_only_model_has_no_gain() -> None:
    examples = items()
    scores = modality.summary(run(examples, {"text"}), examples)
    assert scores["gain"]["estimate"] == 0.0 and scores["interference"]["estimate"] == 0.0
    assert scores["gains"]["shuffled_text"]["estimate"] == 0.5
    assert scores["f1"]["no_image"]["estimate"] == 1.0


def test_unparsable_answers_are_errors_with_a_share_of_their_own() -> None:
    examples = items(10)
    outcomes = [outcome(e, "banana" if k < 4 else e.answer) for k, e in enumerate(examples)]
    scores = modality.summary(outcomes, examples)
    assert scores["accuracy"]["clean"]["estimate"] == 0.6 and scores["accuracy"]["clean"]["n"] == 10
    assert scores["unparsable"]["clean"]["estimate"] == 0.4


def test_a_missing_modality_is_removed_and_the_frame_is_one() -> None:
    one = items(1)[0]
    both, text = (modality.prompt(one, arm) for arm in ("clean", "no_image"))
    assert both == text == "Clinical information: Age 40, cough.\nIs there a nodule?"
    assert modality.prompt(one, "no_text") == "Is there a nodule?"
    assert modality.prompt(one, "shuffled_text", "Age 7.") == "Clinical information: Age 7.\nIs there a nodule?"
    assert modality.with_caption(one, " A clear lung. ").splitlines()[0].endswith("cough. Image: A clear lung.")
    assert modality.with_examples("Q?", [("I", "R", "yes")]) == "I\nReasoning: R\nAnswer: yes\n\nQ?"


def test_stages_of_dementia_are_matched_by_name() -> None:
    classes = ["normal", "mild cognitive impairment", "dementia"]
    assert modality.classified("The stage is mild cognitive impairment.", classes) == "mild cognitive impairment"
    assert modality.classified("normal or dementia", classes) is None
    assert modality.classified("Mild dementia", ["dementia", "mild dementia"]) == "mild dementia"
    examples = [example(k, c, kind="stage", slots={"classes": classes}) for k, c in enumerate(classes)]
    texts = ["Normal.", "It is a dementia.", "no idea"]
    scores = modality.summary([outcome(e, t) for e, t in zip(examples, texts, strict=True)], examples)
    assert scores["accuracy"]["clean"]["estimate"] == pytest.approx(1 / 3)
    assert scores["unparsable"]["clean"]["estimate"] == pytest.approx(1 / 3)
    assert scores["f1"]["clean"]["estimate"] == pytest.approx(1 / 3)


def chances(e: Example, text: str, **p: float) -> Outcome:
    """An answer with the probabilities of the choices."""
    one = outcome(e, text)
    one.metrics = {modality.chance(choice.replace("_", " ")): value for choice, value in p.items()}
    return one


def test_f1_and_auroc_over_labels_by_hand() -> None:
    """Edema: yes, yes, no, no answered yes, no, yes, no at .9, .4, .6, .1: one hit, one extra, one missed, F1 1/2; of
    four pairs three are in order, AUROC 3/4. Hernia: yes, no, no, all right, at .7, .5, .2: F1 1, AUROC 1. A label that
    nobody has counts in neither. Macro-F1 3/4, micro-F1 2 * 2 / (2 * 2 + 1 + 1) = 2/3, macro-AUROC 7/8."""
    rows = [
        ("edema", "yes", "yes", 0.9), ("edema", "yes", "no", 0.4), ("edema", "no", "yes", 0.6),
        ("edema", "no", "no", 0.1), ("hernia", "yes", "yes", 0.7), ("hernia", "no", "no", 0.5),
        ("hernia", "no", "no", 0.2), ("fracture", "no", "no", 0.3),
    ]  # fmt: skip
    examples = [example(k, true, f"Is there {label}?", finding=label) for k, (label, true, _, _) in enumerate(rows)]
    outcomes = [chances(e, said, yes=p, no=1 - p) for e, (_, _, said, p) in zip(examples, rows, strict=True)]
    scores = modality.summary(outcomes, examples)
    assert scores["f1"]["clean"]["estimate"] == pytest.approx(3 / 4)
    assert scores["micro_f1"]["clean"]["estimate"] == pytest.approx(2 / 3)
    assert scores["auroc"]["clean"]["estimate"] == pytest.approx(7 / 8)
    assert "balanced_accuracy" not in scores
    bare = modality.summary([outcome(e, row[2]) for e, row in zip(examples, rows, strict=True)], examples)
    assert bare["auroc"] == {}, "without probabilities there is no area"


def test_three_stages_by_hand() -> None:
    """Normal, MCI, dementia, dementia, read as normal, dementia, dementia and nothing. F1 1, 0 and 2 / (2 + 1 + 1):
    macro 1/2; micro 2 * 2 / (2 * 2 + 1 + 2) = 4/7; recall 1, 0, 1/2: balanced accuracy 1/2. AUROC of each stage
    against the rest: .6 over .5, .2, .1 is 1; .3 to .3, .2, .5 is (1/2 + 1 + 0) / 3; .6, .4 over .1, .2 is 1."""
    classes = ["normal", "mild cognitive impairment", "dementia"]
    rows = [
        (classes[0], "Normal.", (0.6, 0.3, 0.1)), (classes[1], "Dementia.", (0.5, 0.3, 0.2)),
        (classes[2], "It is dementia.", (0.2, 0.2, 0.6)), (classes[2], "no idea", (0.1, 0.5, 0.4)),
    ]  # fmt: skip
    examples = [
        example(k, true, "Which stage?", kind="stage", slots={"classes": classes})
        for k, (true, _, _) in enumerate(rows)
    ]
    outcomes = []
    for e, (_, said, p) in zip(examples, rows, strict=True):
        outcomes.append(outcome(e, said))
        outcomes[-1].metrics = {modality.chance(c): value for c, value in zip(classes, p, strict=True)}
    scores = modality.summary(outcomes, examples)
    assert scores["f1"]["clean"]["estimate"] == pytest.approx(1 / 2)
    assert scores["micro_f1"]["clean"]["estimate"] == pytest.approx(4 / 7)
    assert scores["balanced_accuracy"]["clean"]["estimate"] == pytest.approx(1 / 2)
    assert scores["auroc"]["clean"]["estimate"] == pytest.approx((1 + 1 / 2 + 1) / 3)


def test_no_label_is_an_answer_and_a_shrug_is_not() -> None:
    labels = ["Atelectasis", "Cardiomegaly", "Pleural Effusion", "Pneumothorax", "No Finding"]
    assert modality.labels_said("Cardiomegaly, Pleural Effusion", labels) == {"Cardiomegaly", "Pleural Effusion"}
    assert modality.labels_said("Atelectasis is present; no pneumothorax.", labels) == {"Atelectasis"}
    assert modality.labels_said("None of them.", labels) == set() == modality.labels_said("No Finding", labels)
    assert modality.labels_said("There is no pneumothorax.", labels) == set()
    assert modality.labels_said("I like trains.", labels) is None and modality.labels_said("  ", labels) is None


@pytest.mark.parametrize(
    ("context", "leaks"),
    [
        ("Cough and fever.", False),
        ("There is a nodule in the left lung.", True),
        ("No nodule.", True),
        ("Evaluate for nodule.", False),
    ],
)
def test_a_text_that_tells_its_label_is_found(context: str, leaks: bool) -> None:
    one = example(0, "yes", slots={"context": context, "question": "Is there a nodule?"})
    assert (modality.leak(one) is not None) == leaks
    assert modality.summary([outcome(one, "yes")], [one])["leaks"]["n"] == int(leaks)


def test_meaning_is_what_is_claimed_and_not_how() -> None:
    same = ("A nodule is seen in the left lung.", "There is a left nodule.")
    assert uncertainty.meaning(same[0]) == uncertainty.meaning(same[1])
    assert uncertainty.meaning(same[0]) != uncertainty.meaning("There is a right nodule.")
    assert uncertainty.meaning("Yes.") == uncertainty.meaning("yes") != uncertainty.meaning("No.")


def test_semantic_entropy_by_hand() -> None:
    """Meanings a, a, b, c: 1.5 log 2; k the same: 0; weights 3/4 and 1/4: log 4 - 3/4 log 3."""
    texts = ["Yes", "yes.", "No", "There is a nodule."]
    assert uncertainty.semantic_entropy(texts) == pytest.approx(1.5 * math.log(2))
    assert uncertainty.semantic_entropy(["No"] * 5) == 0.0
    weighted = uncertainty.semantic_entropy(["Yes", "No"], [math.log(3), 0.0])
    assert weighted == pytest.approx(math.log(4) - 0.75 * math.log(3))


def test_calibration_is_monotone_and_by_hand() -> None:
    """Right 0, 1 at 0.2 and 0 at 0.4 pool to 1/3; 1, 1 at 0.9 is 1."""
    fitted = uncertainty.calibrate([0.2, 0.2, 0.4, 0.9, 0.9], [0, 1, 0, 1, 1])
    np.testing.assert_allclose(fitted[1], [1 / 3, 1 / 3, 1.0])
    np.testing.assert_allclose(uncertainty.calibrated([0.0, 0.3, 1.0], fitted), [1 / 3, 1 / 3, 1.0])


def test_a_model_that_wavers_when_wrong_has_auroc_one() -> None:
    examples = items(40)
    for k, e in enumerate(examples):
        e.split = "dev" if k < 20 else "test"
    wrong = {e.id for k, e in enumerate(examples) if k % 4 == 0}
    flipped = {"yes": "no", "no": "yes"}
    outcomes = [outcome(e, flipped[e.answer] if e.id in wrong else e.answer) for e in examples]
    for e in examples:
        texts = ["yes", "no", "yes", "no"] if e.id in wrong else [e.answer] * 4
        outcomes += [outcome(e, t, uncertainty.SAMPLED, k) for k, t in enumerate(texts)]
    scores = uncertainty.summary(outcomes, examples)
    assert scores["n"] == 20 and scores["accuracy"]["estimate"] == 0.75
    assert scores["auroc_entropy"]["estimate"] == 1.0 == scores["auroc_confidence"]["estimate"]
    assert scores["brier_calibrated"]["estimate"] == 0.0 < scores["brier"]["estimate"]
