"""EH-Benchmark's published layout, its phantom set, and how options are drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sources import ingest, picture, reasons, write_json

from clinalign.data import read
from clinalign.data.options import DataOptions
from clinalign.data.phantom import fundus
from clinalign.data.phantom.fundus import CORNERS, Eye, Lesion, counterfactual, draw_fundus, halves, regions, sample_eye
from clinalign.data.phantom.fundus_questions import PLACES
from clinalign.data.sources.eh import (
    GLAUCOMA,
    GRADING,
    LOCALISATION,
    RECOGNITION,
    items_hash,
    laterality,
    lettered_question,
    subclass_of,
)
from clinalign.errors import RowError
from clinalign.evaluation.suites.eh import fixed_order
from clinalign.imaging.images import read_image, read_mask
from clinalign.records import Example
from clinalign.storage import Quarantine

GRADES = ["DR0: none", "DR1: mild", "DR2: moderate", "DR3: severe", "DR4: proliferative"]


def item(image: str, stem: str, options: list[str], gold: str) -> dict[str, str]:
    lines = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCDE", options))
    return {"id": f"images/{image}", "question": f"{stem}\n{lines}", "answer": "ABCDE"[options.index(gold)]}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    base = tmp_path / "EH"
    for number in range(12):
        picture(base / "images" / f"{number}.jpg", number)
    grades = [item(f"{n}.jpg", "What is the grade?", GRADES, GRADES[n % 5]) for n in range(10)]
    write_json(base / "DR_Grade.json", grades)
    four = ["Normal", "Mild Glaucoma", "Moderate Glaucoma", "Severe Glaucoma"]
    write_json(base / "PAPILA.json", [item("10.jpg", "IOP of 31 mmHg in OS. Category?", four, "Mild Glaucoma")])
    places = ["Inferior, Nasal", "Nasal, Superior", "Inferior, Temporal", "None", "Superior, Temporal"]
    soft = [item("11.jpg", "Where does Soft Exudate occur?", places, "Nasal, Superior")]
    broken = [soft[0] | {"question": "Where?\nA. here\nC. there"}, soft[0] | {"answer": "F"}]
    write_json(base / "Soft_Exudate.json", soft + broken)
    return base


def test_the_published_layout_with_options_shuffled_and_the_fixed_order_kept(published: Path, tmp_path: Path) -> None:
    examples, quarantine = ingest(tmp_path / "out", "eh", published)
    assert [e.kind for e in examples] == [GRADING] * 10 + [GLAUCOMA, LOCALISATION]
    assert reasons(quarantine) == [
        ("Soft_Exudate.json", 2, "question", "bad_options"),
        ("Soft_Exudate.json", 3, "answer", "answer_not_an_option"),
    ]
    for number, example in enumerate(examples[:10]):
        assert example.meta["answer_text"] == GRADES[number % 5] == example.fixed_order[number % 5]
        as_published = fixed_order(example)
        listed = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCDE", GRADES))
        assert as_published.question == f"What is the grade?\n{listed}"
        assert as_published.answer == "ABCDE"[number % 5] and fixed_order(as_published) == as_published
        assert example.options["ABCDE".index(example.answer)] == GRADES[number % 5]
        assert example.question.startswith("What is the grade?\nA. ") and example.split == "test"
    assert len({tuple(e.options) for e in examples[:10]}) > 5
    assert examples[10].laterality == "OS" and not examples[10].fixed_order
    assert len(examples[10].options) == 4


def test_files_name_their_subclass() -> None:
    names = {"Soft_Exudate": LOCALISATION, "FGADR": LOCALISATION, "DR_Grade": GRADING, "GRAPE": GLAUCOMA}
    names |= {"G1020": GLAUCOMA, "LES-AV": GLAUCOMA, "OCTDL": RECOGNITION, "ODIR": RECOGNITION, "unheard": "other"}
    assert {name: subclass_of(name) for name in names} == names
    assert [laterality(t) for t in ("For subject 3, OD, aged 5", "the left eye", "OD and OS")] == ["OD", "OS", ""]


def test_distractors_never_hold_the_gold_answer() -> None:
    letters = []
    for seed in range(600):
        made = lettered_question("Where?", "Inferior, Nasal", [*PLACES, "inferior, nasal"], f"{seed}/x")
        options = made["options"]
        assert len(set(map(str.lower, options))) == 5 and options["ABCDE".index(made["answer"])] == "Inferior, Nasal"
        letters.append(made["answer"])
    counts = np.array([letters.count(letter) for letter in "ABCDE"])
    assert ((counts - 120) ** 2 / 120).sum() < 18.5  # chi-square with four degrees of freedom, p = 0.001
    with pytest.raises(RowError, match="distractors"):
        lettered_question("Where?", "a", ["b", "c", "d"], "0")


def drawn(folder: Path, seed: int = 0, patients: int = 12) -> list[Example]:
    options = DataOptions(source="phantom_fundus", splits={"test": patients}, seed=seed)
    return read(options, folder, Quarantine(folder / "quarantine.jsonl"))


def test_a_set_is_known_by_its_hash(tmp_path: Path) -> None:
    first, again, other = (drawn(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert items_hash(first) == items_hash(again) != items_hash(other)
    assert [e.meta["answer_text"] for e in first] == [e.meta["answer_text"] for e in other]
    assert items_hash(first) == "2104438a54c1e9b0e26b97d84e00c9f8583590e9db467582f0541e14d5fe8cc9"


def test_nasal_and_temporal_swap_between_the_eyes_and_superior_and_inferior_do_not() -> None:
    mask = np.zeros((8, 8), dtype=np.bool_)
    mask[1, 6] = True
    assert halves(mask, "OD") == ("Nasal", "Superior") and halves(mask, "OS") == ("Superior", "Temporal")
    mask = np.zeros((8, 8), dtype=np.bool_)
    mask[6, 1] = True
    assert halves(mask, "OD") == ("Inferior", "Temporal") and halves(mask, "OS") == ("Inferior", "Nasal")


@pytest.mark.parametrize("eye", ["OD", "OS"])
@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("kind", fundus.KINDS)
def test_a_lesion_lies_in_its_corner_and_its_counterfactual_differs_there_alone(
    kind: str, corner: str, eye: fundus.Laterality
) -> None:
    for patient in range(5):
        lesion, rest = Lesion(kind, corner), Lesion("exudate", "inferior nasal")
        whole = Eye(patient, eye, (lesion, rest) if lesion != rest else (lesion,))
        made = draw_fundus(whole)
        without = counterfactual(whole, lesion)
        assert made.lesions[lesion].any()
        assert np.array_equal((made.image != without).any(-1), made.lesions[lesion])
        assert halves(made.lesions[lesion], eye) == tuple(sorted(word.capitalize() for word in corner.split()))


def test_masks_agree_with_the_regions_that_questions_ask_for() -> None:
    for patient in range(40):
        for eye in (sample_eye(patient, "OD"), sample_eye(patient, "OS")):
            made = draw_fundus(eye)
            for kind in {lesion.kind for lesion in eye.lesions}:
                union = np.any([m for lesion, m in made.lesions.items() if lesion.kind == kind], axis=0)
                assert tuple(name.lower() for name in halves(union, eye.laterality)) == regions(eye, kind)
    assert made.image.shape == (128, 128, 3) and made.image.dtype == np.uint8
    assert (made.disc[0] > 512) == (made.laterality == "OD") and made.fovea[0] != made.disc[0]


def test_the_drawing_is_the_same_everywhere() -> None:
    """The hash of four eyes; an image is made of integers alone."""
    from clinalign.storage import key_of

    eyes = [sample_eye(patient, side) for patient in (1, 2) for side in ("OD", "OS")]  # type: ignore[arg-type]
    assert (
        key_of([draw_fundus(eye).image.tolist() for eye in eyes])
        == "3895f04e0791f141275d97718968713a78171945274a36e2dde37c115d8f4c1f"
    )
    assert replace(eyes[0], cup=80) != eyes[0]


def test_the_phantom_set_writes_images_masks_and_counterfactuals(tmp_path: Path) -> None:
    examples = drawn(tmp_path)
    assert {e.kind for e in examples} == {LOCALISATION, RECOGNITION, GRADING, GLAUCOMA}
    assert all(e.options["ABCDE".index(e.answer)] == e.meta["answer_text"] for e in examples)
    assert all(len(e.statements) == len(e.options) in (4, 5) for e in examples)
    for e in examples:
        if e.kind == LOCALISATION:
            image, mask = read_image(tmp_path / e.images[0]), read_mask(tmp_path / str(e.regions[0].mask))
            changed = (image != read_image(tmp_path / e.counterfactual)).any(-1)
            assert np.array_equal(changed, mask)
            assert ", ".join(halves(mask, e.laterality)) == e.meta["answer_text"]
