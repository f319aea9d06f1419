"""The phantom counterparts of the suites: enough items, level labels, no leak, and chains that the scorer reads."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from clinalign.data.phantom import suites
from clinalign.data.phantom.dataset import split_patients
from clinalign.data.phantom.wording import ARTICLES
from clinalign.data.sources.hallucinogen import ATTACKS
from clinalign.errors import UsageError
from clinalign.evaluation.suites import causal, s_chain
from clinalign.evaluation.suites.modality import leak
from clinalign.evaluation.suites.shares import slot
from clinalign.imaging.images import read_image, read_mask
from clinalign.records import Example, Outcome

COUNT = {"hallucinogen": 40, "s_chain": 600, "causal": 120, "modality": 120, "stages": 220, "uncertainty": 160}
"""Patients a suite needs for 150 items outside dev."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Example]]]:
    folder = tmp_path_factory.mktemp("suites")
    return folder, {
        name: suites.write_suite(name, folder, split="test", patients=split_patients("test", count), px=32)
        for name, count in COUNT.items()
    }


def said(example: Example, text: str, condition: str = "clean") -> Outcome:
    return Outcome(example.id, example.task, "suite", "model", "greedy", 0, condition, text, None, "none")


@pytest.mark.parametrize("suite", COUNT)
def test_at_least_150_items_with_images_and_level_labels(
    built: tuple[Path, dict[str, list[Example]]], suite: str
) -> None:
    folder, all_items = built
    items = all_items[suite]
    assert len([e for e in items if e.split == "test"]) >= 150
    assert len({e.id for e in items}) == len(items) and all((folder / e.images[0]).is_file() for e in items)
    counts = Counter(e.answer for e in items)
    level = 0.2 if suite == "stages" else 0.02
    assert max(counts.values()) - min(counts.values()) <= level * len(items) + 1


def test_attacks_leak_no_label(built: tuple[Path, dict[str, list[Example]]]) -> None:
    """Every prompt, with its finding cut out, is asked as often of what is there as of what is not, and every finding
    is there about as often as not."""
    items = built[1]["hallucinogen"]
    labels: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    things: dict[str, Counter[str]] = defaultdict(Counter)
    for e in items:
        thing = str(e.finding)
        assert e.question.count(thing) == 1
        prompt = e.question.replace(ARTICLES[thing], "THING").replace(thing, "THING")
        labels[str(e.kind), prompt][e.answer] += 1
        things[thing][e.answer] += 1
    assert {attack for attack, _ in labels} == set(ATTACKS.values())
    assert all(counts["yes"] == counts["no"] for counts in labels.values())
    assert all(abs(c["yes"] - c["no"]) <= 8 for c in things.values()), things


def test_chains_are_read_back_and_score_one(built: tuple[Path, dict[str, list[Example]]]) -> None:
    items = built[1]["s_chain"]
    scores = s_chain.summary([said(e, str(e.full)) for e in items], items)
    assert scores["final"]["estimate"] == scores["steps"]["iou"]["estimate"] == 1.0 == scores["macro_f1"]["estimate"]
    assert all(scores["steps"][f"step_{k}"]["estimate"] == 1.0 for k in (1, 2, 3, 4))
    assert scores["malformed"]["estimate"] == 0.0 and scores["legacy"]["final"] == 1.0
    empty = s_chain.summary([said(e, "") for e in items], items)
    assert empty["steps"]["step_1"]["estimate"] == 0.0 == empty["final"]["estimate"]


def test_boxes_of_a_chain_hold_the_lesions(built: tuple[Path, dict[str, list[Example]]]) -> None:
    """The boxes as shares of the image, against the drawing: a case without findings has none."""
    from clinalign.data.phantom.cases import box, render, sample_case

    for e in built[1]["s_chain"][:40]:
        case = sample_case(int(e.patient_id.removeprefix("phantom-")), kinds=suites.PLACED)
        true = [np.array(box(mask)) / 64 for mask in render(case, 64).masks]
        found = s_chain.boxes(s_chain.parse(str(e.full)).answers[1])
        assert len(found) == len(true) == len(case.findings)
        np.testing.assert_allclose(np.array(found).reshape(-1, 4), np.array(true).reshape(-1, 4), atol=0.006)


def test_swaps_have_the_same_label_and_another_patient(built: tuple[Path, dict[str, list[Example]]]) -> None:
    items = built[1]["causal"]
    donors = causal.same_label_donors(items)
    assert len(donors) == len(items)
    for e in items:
        donor = donors[e.id]
        assert donor.patient_id != e.patient_id and donor.answer == e.answer
        assert donor.finding == e.finding
    assert {k: d.id for k, d in causal.same_label_donors(items[::-1]).items()} == {k: d.id for k, d in donors.items()}


def test_masks_lie_on_what_is_there(built: tuple[Path, dict[str, list[Example]]]) -> None:
    folder, items = built[0], built[1]["causal"]
    for e in items[:40]:
        assert bool(e.regions) == (e.answer == "yes")
        for region in e.regions:
            mask = read_mask(folder / str(region.mask))
            assert mask.any() and mask.shape == read_image(folder / e.images[0]).shape[:2]


def test_texts_help_and_never_name_the_finding(built: tuple[Path, dict[str, list[Example]]]) -> None:
    items = built[1]["modality"]
    assert [e.id for e in items if leak(e)] == []
    fits = [suites.SYMPTOMS[str(e.finding)] in str(slot(e, "context")) for e in items]
    helped = sum(f == (e.answer == "yes") for f, e in zip(fits, items, strict=True)) / len(items)
    assert 0.7 < helped < 0.9


def test_the_stages_of_a_question_give_its_answer(built: tuple[Path, dict[str, list[Example]]]) -> None:
    """Recognition and knowledge together say the side; neither alone names the patient's side of the finding."""
    for e in built[1]["stages"]:
        half = str(slot(e, "recognition")).split(" half ")[0].split()[-1]
        side = {"left": "right", "right": "left"}[half]
        assert (e.answer == "yes") == (side == slot(e, "asked"))


def test_the_same_in_every_run_and_an_unknown_suite_is_named(tmp_path: Path) -> None:
    patients = split_patients("test", 12)
    one, two = (suites.write_suite("modality", tmp_path / n, split="test", patients=patients) for n in "ab")
    assert one == two
    with pytest.raises(UsageError, match="causal"):
        suites.write_suite("casual", tmp_path, split="test", patients=patients)
