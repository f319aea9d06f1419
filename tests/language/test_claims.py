"""Claims of radiology sentences: assertion status, slots and exact character ranges."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from clinalign.language import claims
from clinalign.language.graph import CONCEPTS, is_a
from clinalign.language.lexicon import canonical, meanings, singular
from clinalign.language.tokens import measured

sys.path.insert(0, str(Path(__file__).parent))
from sentences import SENTENCES

STATUS = {"p": "present", "a": "absent", "u": "uncertain"}
SLOT = {"left": "side", "right": "side", "bilateral": "side", "upper": "zone", "middle": "zone", "lower": "zone"}


@pytest.mark.parametrize("text, labels", SENTENCES, ids=[text[:60] for text, _ in SENTENCES])
def test_a_sentence_is_labelled_as_a_reader_would(text: str, labels: dict[str, str]) -> None:
    found = [c for c in claims(text) if c.finding in CONCEPTS]
    assert {c.finding for c in found} == set(labels)
    for finding, label in labels.items():
        status, *values = label.split()
        mine = [c for c in found if c.finding == finding and c.status == STATUS[status]]
        assert mine, f"{finding} is not {STATUS[status]}"
        for value in values:
            assert value in [c.value(SLOT.get(value, "size")) for c in mine]


@pytest.mark.parametrize("text", [text for text, _ in SENTENCES])
def test_ranges_point_at_the_words(text: str) -> None:
    for claim in claims(text):
        for mention in [claim.mention, *(m for ms in claim.slots.values() for m in ms)]:
            words = text[mention.start : mention.end]
            bare = re.sub(r"\b(left|right|bilateral) ", "", words)  # what may stand within a phrase
            known = {*meanings(words), *meanings(bare)} | {("measurement", value) for value in measured(words)}
            assert (mention.kind, mention.value) in known or mention.kind in ("number", "level")
        assert claim.sentence[0] <= claim.start < claim.end <= claim.sentence[1]
        if claim.cue is not None:
            assert claim.status != "present" or claim.implied
            assert text[claim.cue[0] : claim.cue[1]].strip()


def test_slots_belong_to_their_own_finding() -> None:
    text = "There is a small nodule in the left upper zone and a large consolidation in the right lower zone."
    nodule, consolidation = claims(text)
    assert (nodule.size, nodule.side, nodule.zone) == ("small", "left", "upper")
    assert (consolidation.size, consolidation.side, consolidation.zone) == ("large", "right", "lower")
    mention = nodule.slots["side"][0]
    assert text[mention.start : mention.end] == "left"


def test_a_denied_list_is_denied_whole_and_ends_where_a_new_clause_begins() -> None:
    found = claims("No nodule, consolidation or atelectasis is seen, but there is a pneumothorax and a mass.")
    assert [(c.finding, c.status) for c in found] == [
        ("nodule", "absent"),
        ("consolidation", "absent"),
        ("atelectasis", "absent"),
        ("pneumothorax", "present"),
        ("mass", "present"),
    ]


@pytest.mark.parametrize(
    "text, status",
    [
        ("There is no change in the effusion.", "present"),
        ("An effusion cannot be excluded.", "uncertain"),
        ("The scan is not without effusion.", "present"),
        ("The effusion has not resolved.", "present"),
        ("The effusion has resolved.", "absent"),
        ("There is no longer an effusion.", "absent"),
        ("No, there is an effusion.", "present"),
        ("Effusion is not seen.", "absent"),
        ("Effusion is unlikely.", "uncertain"),
        ("The effusion is not on the left.", "present"),
    ],
)
def test_double_negation_hedges_and_changes(text: str, status: str) -> None:
    assert [c.status for c in claims(text) if c.finding == "pleural effusion"] == [status]


@pytest.mark.parametrize(
    ("text", "finding", "status"),
    [
        ("The heart does not look enlarged.", "cardiomegaly", "absent"),
        ("The heart does not appear to be enlarged.", "cardiomegaly", "absent"),
        ("Without effusion, the heart is enlarged.", "cardiomegaly", "present"),
        ("Both lungs are clear.", "lung abnormality", "absent"),
    ],
)
def test_a_state_is_denied_through_a_copula_and_of_both_organs(text: str, finding: str, status: str) -> None:
    assert {claim.finding: claim.status for claim in claims(text)}[finding] == status


def test_a_negated_place_is_not_a_denied_finding() -> None:
    (claim,) = claims("The nodule is not on the left.")
    assert claim.status == "present"
    assert claim.slots["side"][0].status == "absent"
    assert claim.side is None


def test_synonyms_plurals_and_hyphens() -> None:
    assert canonical("Pleural effusions") == canonical("effusion") == ("finding", "pleural effusion")
    assert canonical("ground-glass opacities") == ("finding", "ground-glass opacity")
    assert canonical("apical") == ("zone", "upper")
    assert canonical("wobble") is None
    assert singular("masses") == "masse" and canonical("masses") == ("finding", "mass")
    assert singular("atelectasis") == "atelectasis" and singular("opacities") == "opacity"


def test_a_narrow_finding_is_also_a_broad_one() -> None:
    assert is_a("consolidation", "lung opacity") and is_a("nodule", "abnormality")
    assert not is_a("lung opacity", "consolidation") and not is_a("nodule", "mass")


def test_odd_texts_do_not_break() -> None:
    for text in (
        "",
        " ",
        "...",
        "No",
        "no.",
        "\n\n",
        "≤ 5 mm",
        "🫁",
        "not",
        "but but but",
        "Yes.",
        "-",
        "no - no - no",
    ):
        assert isinstance(claims(text), list)
