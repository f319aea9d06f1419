"""CheXpert labels of reports, read by hand."""

import pytest

from clinalign.language.graph import CONCEPTS
from clinalign.language.reports import CLASSES, FINDINGS_OF, NO_FINDING, chexpert

CASES = [
    ("The lungs are clear. No effusion.", {NO_FINDING: "present", "Pleural Effusion": "absent"}),
    ("Endotracheal tube in place.", {NO_FINDING: "present", "Support Devices": "present"}),
    ("Possible pneumonia.", {"Pneumonia": "uncertain"}),
    ("No consolidation. There is consolidation in the left lower lobe.", {"Consolidation": "present"}),
    ("The heart is enlarged. Rib fracture.", {"Cardiomegaly": "present", "Fracture": "present"}),
    ("Bibasilar atelectasis and mild pulmonary edema.", {"Edema": "present", "Atelectasis": "present"}),
    ("Pleural thickening, widened mediastinum.", {"Enlarged Cardiomediastinum": "present", "Pleural Other": "present"}),
    ("Hazy opacity at the left base.", {"Lung Opacity": "present"}),
    ("", {}),
    ("The weather is fine.", {}),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_labels(text, expected):
    assert {name: label.status for name, label in chexpert(text).items()} == expected


def test_places_of_what_is_present():
    said = chexpert("A small nodule in the left upper lobe. Another nodule in the right lower lobe. No left effusion.")
    assert said["Lung Lesion"].sides == {"bilateral"} and said["Lung Lesion"].zones == {"upper", "lower"}
    assert said["Pleural Effusion"].sides == frozenset(), "a denied finding is nowhere"


def test_fourteen_classes_of_findings_that_the_lexicon_knows():
    assert len(CLASSES) == 14
    covered = [finding for found in FINDINGS_OF.values() for finding in found]
    assert len(covered) == len(set(covered)) and set(covered) <= set(CONCEPTS)
