"""Scores of reports, counted by hand."""

from clinalign.evaluation.reports import invented_and_missed, report_summary
from clinalign.measuring.options import EvaluationOptions
from clinalign.records import Example

OPTIONS = EvaluationOptions(resamples=200)


def example(name, truth, slots=None, patient=None):
    return Example(name, ["i.png"], "Describe.", truth, "report", patient_id=patient or name, slots=slots or {})


TRUTHS = {
    "a": "There is a small left pleural effusion. The heart is enlarged.",
    "b": "The lungs are clear. No pleural effusion.",
    "c": "There is a nodule in the right upper lobe. Possible pneumonia.",
}
SAID = {
    "a": "There is a right pleural effusion. There is a fracture.",
    "b": "No pleural effusion or pneumothorax.",
    "c": "There is a nodule in the right upper lobe and pneumonia.",
}


def summary(said=SAID, truths=TRUTHS):
    return report_summary(said, {n: example(n, t) for n, t in truths.items()}, OPTIONS)


def test_counts_by_hand():
    """a: effusion hit on the wrong side, cardiomegaly missed, fracture invented. b: no finding, hit.

    c: lesion hit, side and zone right; pneumonia is uncertain in the reference and counts for nothing.
    """
    got = summary()
    micro = {name: got["micro"][name]["estimate"] for name in got["micro"]}
    assert micro == {"precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4}
    assert got["classes"]["Pleural Effusion"] == {
        "precision": 1.0, "recall": 1.0, "f1": 1.0, "hit": 1, "invented": 0, "missed": 0,
    }  # fmt: skip
    assert got["classes"]["Cardiomegaly"]["missed"] == got["classes"]["Fracture"]["invented"] == 1
    assert got["classes"]["No Finding"]["hit"] == got["classes"]["Lung Lesion"]["hit"] == 1
    assert "Pneumonia" not in got["classes"]
    assert got["side"]["estimate"] == 0.5 and got["zone"]["estimate"] == 1.0
    assert got["hallucinated"]["estimate"] == got["missed"]["estimate"] == 1 / 3
    assert got["macro"]["recall"]["estimate"] == 3 / 4, "of effusion, heart, no finding and lesion three are found"
    assert got["macro"]["f1"]["estimate"] == 3 / 5, "and the fracture has an F1 of 0"


def test_a_perfect_report_and_an_empty_one():
    perfect, silent = summary(TRUTHS), summary({name: "I see." for name in TRUTHS})
    assert perfect["micro"]["f1"]["estimate"] == perfect["side"]["estimate"] == perfect["bleu"]["estimate"] == 1.0
    assert perfect["hallucinated"]["estimate"] == perfect["missed"]["estimate"] == 0.0
    assert silent["micro"]["recall"]["estimate"] == 0.0 and silent["micro"]["precision"]["estimate"] is None
    assert silent["missed"]["estimate"] == 1.0 and silent["hallucinated"]["estimate"] == 0.0


def test_true_values_of_the_data_set_win_over_the_reference_text():
    slots = {"nodule": {"presence": "yes", "side": "left"}, "pneumothorax": {"presence": "no"}}
    known = example("a", "A report in words that no lexicon knows.", slots)
    assert invented_and_missed("There is a nodule on the left.", known) == (0, 0)
    assert invented_and_missed("There is a pneumothorax.", known) == (1, 1)
    got = report_summary({"a": "A nodule on the right side."}, {"a": known}, OPTIONS)
    assert got["micro"]["f1"]["estimate"] == 1.0 and got["side"]["estimate"] == 0.0


def test_a_narrower_finding_is_no_invention():
    known = example("a", "There is a lung mass.")
    assert invented_and_missed("There is a tumor.", known) == (0, 0)
