"""How reports say things: labels, lists, change over time, history, headings, measurements."""

from __future__ import annotations

import pytest

from clinalign.language import claims, judge
from clinalign.language.claims import coverage, unlisted
from clinalign.language.graph import CONCEPTS, is_a, related
from clinalign.language.reports import chexpert
from clinalign.language.substitution import confusable


@pytest.mark.parametrize(
    "text, finding, status",
    [
        ("Pneumothorax: No.", "pneumothorax", "absent"),
        ("Pleural effusion: none", "pleural effusion", "absent"),
        ("Pneumothorax - none", "pneumothorax", "absent"),
        ("Effusions: nil.", "pleural effusion", "absent"),
        ("Pleural effusion (none)", "pleural effusion", "absent"),
        ("Fracture? No.", "fracture", "absent"),
        ("Pneumothorax: possible", "pneumothorax", "uncertain"),
        ("| Pneumothorax | none |", "pneumothorax", "absent"),
        ('{"pneumothorax": "none", "effusion": "present"}', "pneumothorax", "absent"),
        ('{"pneumothorax": "none", "effusion": "present"}', "pleural effusion", "present"),
        ("No pneumothorax, small left pleural effusion.", "pleural effusion", "present"),
        ("Cardiomegaly but no edema, large right effusion and consolidation.", "consolidation", "present"),
        ("No fracture, 5 mm nodule in the right apex.", "nodule", "present"),
        ("No pneumothorax, stable left effusion.", "pleural effusion", "present"),
        ("No pneumothorax, pleural effusion, or consolidation.", "consolidation", "absent"),
        ("The pneumothorax is no longer appreciated.", "pneumothorax", "absent"),
        ("Interval clearing of the right lower lobe consolidation.", "consolidation", "absent"),
        ("A pneumothorax was not identified on the prior study but is now evident.", "pneumothorax", "present"),
        ("Pneumothorax, not seen previously.", "pneumothorax", "present"),
        ("Previously noted effusion is gone.", "pleural effusion", "absent"),
        ("There was a pleural effusion, but it has resolved.", "pleural effusion", "absent"),
        ("There was an effusion. It is no longer seen.", "pleural effusion", "absent"),
        ("No evidence that the pneumothorax has resolved.", "pneumothorax", "present"),
        ("No pneumothorax after chest tube placement.", "chest tube", "present"),
        ("No pneumothorax following removal of one of the two chest tubes.", "chest tube", "present"),
        ("Differential diagnosis: pneumonia, atelectasis, edema.", "atelectasis", "uncertain"),
        ("Effusion unlikely.", "pleural effusion", "uncertain"),
        ("Pneumonia or atelectasis.", "pneumonia", "uncertain"),
        ("Lungs: clear. Heart: enlarged.", "cardiomegaly", "present"),
        ("No pneumothorax\u2028Left effusion", "pleural effusion", "present"),
        ("No\npneumothorax", "pneumothorax", "absent"),
        ("- No pneumothorax\n- Left effusion", "pleural effusion", "present"),
        ("The gallbladder is distended.", "gallbladder distension", "present"),
        ("Cardiothoracic ratio is 0.58.", "cardiomegaly", "present"),
        ("Cardiothoracic ratio is 0.45.", "cardiomegaly", "absent"),
        ("The trachea is midline.", "tracheal deviation", "absent"),
        ("Left knee: moderate effusion.", "joint effusion", "present"),
        ("Mass in the right kidney.", "renal mass", "present"),
        ("Small haemothorax and atelectesis.", "atelectasis", "present"),
        ("No pnuemothorax.", "pneumothorax", "absent"),
    ],
)
def test_a_wording_is_read(text: str, finding: str, status: str) -> None:
    assert {c.status for c in claims(text) if c.finding == finding} == {status}


def test_a_claim_keeps_what_it_says() -> None:
    nodule, tube = claims("New 1.5 x 2 cm nodule in the RUL. ETT tip 4 cm above the carina.")
    assert (nodule.side, nodule.zone, nodule.measurement, nodule.temporality) == ("right", "upper", "15 x 20 mm", "new")
    assert (tube.finding, tube.measurement) == ("endotracheal tube", "40 mm")
    right, left = claims("Moderate right and trace left pleural effusions.")
    assert (right.side, right.size, left.side, left.size) == ("right", "moderate", "left", "small")
    right, left = claims("Effusion is present on the right and absent on the left.")
    assert (right.side, right.status, left.side, left.status) == ("right", "present", "left", "absent")
    (now,) = claims("Aneurysm of the aorta measuring 4.6 cm, previously 4.2 cm.")
    assert now.measurement == "46 mm"


def test_history_and_indication_are_no_findings() -> None:
    for text in (
        "INDICATION: Rule out pneumonia.",
        "History: CHF, pneumothorax.",
        "h/o tuberculosis",
        "COMPARISON: CT.",
    ):
        assert chexpert(text) == {}, text
    said = claims("History: pneumonia. Findings: RLL consolidation.")
    assert [(c.finding, c.status, c.section) for c in said] == [
        ("pneumonia", "uncertain", "history"),
        ("consolidation", "present", ""),
    ]
    (after,) = [c for c in claims("History: fall.\n\nNo fracture.") if c.finding == "fracture"]
    assert after.status == "absent" and after.about_now


def test_no_finding_only_where_nothing_is_abnormal() -> None:
    assert "No Finding" not in chexpert("Scoliosis. The lungs are clear.")
    assert "No Finding" in chexpert("Pacemaker in place. The lungs are clear.")
    assert chexpert("Right lower lobe infiltrate.")["Lung Opacity"].status == "present"
    assert chexpert("Apical fibrosis.")["Pleural Other"].status == "present"
    assert "Lung Lesion" not in chexpert("Calcified granuloma.")
    assert "Edema" not in chexpert("Bone marrow edema in the femoral head.")


def test_siblings_differ_and_a_parent_is_less_than_its_child() -> None:
    pairs = (
        ("meningioma", "glioblastoma"),
        ("subdural hematoma", "epidural hematoma"),
        ("rib fracture", "clavicle fracture"),
        ("pacemaker", "chest tube"),
        ("pleural effusion", "joint effusion"),
    )
    for a, b in pairs:
        assert not related(a, b)
    assert is_a("glioblastoma", "brain tumor") and not is_a("brain tumor", "glioblastoma")
    assert judge("What is the diagnosis?", "A brain tumor.", "glioblastoma").verdict == "incomplete"
    assert judge("What is the diagnosis?", "A meningioma.", "glioblastoma").correct is False


def test_every_concept_says_where_it_comes_from() -> None:
    assert len(CONCEPTS) > 1_000
    for concept in CONCEPTS.values():
        assert concept.source and concept.licence in ("Apache-2.0", "MIT")
        assert all(parent in CONCEPTS for parent in concept.is_a)
        assert all(CONCEPTS[other].modality & concept.modality for other in confusable(concept.name))


def test_a_finding_that_nothing_knows_is_a_claim_by_its_words() -> None:
    (claim,) = unlisted("There is no zorbatic thrumble in the left lung.")
    assert (claim.finding, claim.status) == ("zorbatic thrumble", "absent")
    assert coverage("Zorbatic thrumble.") == 0.0 and coverage("No pleural effusion.") == 1.0
    assert 0 < coverage("Pleural effusion and thrumble.") < 1
    verdict = judge("What is seen?", "A zorbatic thrumble is seen.", "zorbatic thrumble")
    assert verdict.correct is True


@pytest.mark.parametrize(
    "answer",
    ["Answer: **D**", "**D.**", "The correct answer is d.", "d", "(d)", "d) fracture", "<answer>D</answer>",
    "\\boxed{D}",
     "Answer: D\uff09", "Antwort: D", "The correct choice: [D]", "D - Fracture", "Final answer: `D`",
     "<think>A or B? No.</think> D", "There is a broken bone."],
)  # fmt: skip
def test_a_letter_in_markup_is_read(answer: str) -> None:
    question = "Which finding is present?\nA. Pneumothorax\nB. Nodule\nC. Effusion\nD. Fracture"
    assert judge(question, answer, "D", "closed").correct is True
    assert judge(question, answer, "B", "closed").correct is False


def test_prose_that_begins_like_a_letter_is_no_choice() -> None:
    question = "Which finding is present?\nA. Pneumothorax\nB. Nodule"
    assert judge(question, "A pretty clear nodule.", "B", "closed").correct is True
    assert judge(question, "There is no pneumothorax but a nodule.", "B", "closed").correct is True


@pytest.mark.parametrize(
    "answer, truth",
    [("There is none.", "no"), ("None seen.", "no"), ("Absent.", "no"), ("Present.", "yes"), ("Negative.", "no"),
     ("Positive.", "yes"), ("There isn't.", "no"), ("It is.", "yes"), ("Correct.", "yes"), ("No \U0001f642", "no"),
     ("Not present.", "no"), ("No evidence.", "no"), ("```yes```", "yes"), ("**No**", "no")],
)  # fmt: skip
def test_short_answers_are_judged(answer: str, truth: str) -> None:
    assert judge("Is there a pleural effusion?", answer, truth, "closed").correct is True
    other = "yes" if truth == "no" else "no"
    assert judge("Is there a pleural effusion?", answer, other, "closed").correct is False


@pytest.mark.parametrize(
    "question, answer, truth, verdict",
    [
        ("Is there pneumonia?", "I cannot determine whether pneumonia is present.", "no", "abstained"),
        ("Is there pneumonia?", "I'm sorry, I can't interpret medical images.", "no", "abstained"),
        ("Is there a fracture?", "Yes, there is no fracture.", "no", "undecided"),
        ("Is there an effusion on the left?", "There is an effusion on the right.", "yes", "incorrect"),
        ("Is there an effusion on the left?", "There is an effusion.", "yes", "incomplete"),
        ("Is there an effusion on the left?", "There are bilateral effusions.", "yes", "correct"),
        ("Is there a nodule in the left upper lobe?", "A nodule in the right upper lobe.", "yes", "incorrect"),
        ("What is seen?", "Pleural effusion.", "pleural effusion and cardiomegaly", "incomplete"),
        ("What is seen?", "Cardiomegaly and an effusion.", "pleural effusion and cardiomegaly", "correct"),
        ("What is seen?", "A right effusion and cardiomegaly.", "left effusion and cardiomegaly", "incorrect"),
        ("Which side is the effusion on?", "bilateral", "left", "incomplete"),
        ("Where is the lesion?", "left lung", "left kidney", "incorrect"),
        ("Where is the lesion?", "not the left lung", "left lung", "incorrect"),
        ("How large is the lesion?", "3 mm", "3 cm", "incorrect"),
        ("How large is the lesion?", "30 mm", "3 cm", "correct"),
        ("What organs are shown?", "kidneys, liver and spleen", "liver, spleen, kidneys", "correct"),
        ("Is the trachea midline?", "It is deviated to the right.", "no", "correct"),
        ("Is the liver normal?", "The liver is cirrhotic.", "no", "correct"),
        ("Is the mass solid or cystic?", "It is solid.", "cystic", "incorrect"),
    ],
)
def test_verdicts(question: str, answer: str, truth: str, verdict: str) -> None:
    task = "closed" if truth in ("yes", "no") else "open"
    assert judge(question, answer, truth, task).verdict == verdict
