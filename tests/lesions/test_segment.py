"""Regions of a segmenter as the region of a pair: who is asked what, the cache, the fallbacks, the record."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from clinalign.imaging.images import read_mask, write_png
from clinalign.language.parse_question import concept
from clinalign.lesions import corrupt_pairs, segmented_regions
from clinalign.lesions.options import LesionOptions
from clinalign.models.segmenter import Found
from clinalign.records import Example, Region
from clinalign.storage import Quarantine

sys.path.insert(0, str(Path(__file__).parent))
from test_pairs import Resizing, example, folder, pair  # noqa: F401  the fixture is used by name


class Counting:
    """A segmenter that finds the upper left quarter, notes what it is asked, and finds no "left pneumothorax"."""

    name, fingerprint = "counting", "1"

    def __init__(self, prompt: str = "text") -> None:
        self.prompt = prompt
        self.asked: list[object] = []

    def segment(self, image: np.ndarray, prompt: object, threshold: float) -> Found:
        self.asked.append(prompt)
        mask = np.zeros(image.shape[:2], dtype=bool)
        if prompt != "left pneumothorax":
            mask[: image.shape[0] // 2, : image.shape[1] // 2] = True
        return Found(mask, [0.9] if mask.any() else [])


def words(asked: Example) -> str | None:
    return concept(asked.question, asked.answer)


def examples() -> list[Example]:
    return [
        example(id="masked"),
        example(id="nodule", question="On which side is the nodule?", regions=[]),
        example(id="ptx", question="On which side is the pneumothorax?", regions=[]),
        example(id="none", question="Is there a nodule?", regions=[], answer="no"),
        example(id="boxed", regions=[Region("nodule", [20.0, 30.0, 30.0, 30.0])]),
    ]


OPTIONS = LesionOptions(segmenter="x")


def test_words_are_asked_where_there_is_no_region_and_nothing_is_asked_twice(folder: Path) -> None:  # noqa: F811
    quarantine, segmenter = Quarantine(folder / "q.jsonl"), Counting()
    made = examples()
    found = segmented_regions(made, folder, segmenter, OPTIONS, words, quarantine)
    assert segmenter.asked == ["left nodule", "left pneumothorax"]
    assert set(found) == {"nodule"} and found["nodule"].label == "left nodule"
    assert read_mask(folder / found["nodule"].mask)[:64, :64].all()
    rows = [json.loads(line) for line in (folder / "regions" / "index.jsonl").read_text().splitlines()]
    assert {(row["prompt"], row["reason"]) for row in rows} == {
        ("left nodule", ""),
        ("left pneumothorax", "no_detection"),
    }
    assert segmented_regions(made, folder, segmenter, OPTIONS, words, quarantine) == found
    assert len(segmenter.asked) == 2
    (folder / found["nodule"].mask).unlink()  # a mask that is gone is made again
    assert segmented_regions(made, folder, segmenter, OPTIONS, words, quarantine) == found
    assert len(segmenter.asked) == 3 and (folder / found["nodule"].mask).is_file()
    segmented_regions(made, folder, segmenter, LesionOptions(segmenter="x", segmenter_threshold=0.3), words, quarantine)
    assert len(segmenter.asked) == 5


def test_a_box_is_asked_where_the_data_set_has_a_box_and_no_mask(folder: Path) -> None:  # noqa: F811
    segmenter = Counting("box")
    found = segmented_regions(examples(), folder, segmenter, OPTIONS, words, Quarantine(folder / "q.jsonl"))
    assert segmenter.asked == [[20.0, 30.0, 30.0, 30.0]]
    assert found["boxed"].box == [20.0, 30.0, 30.0, 30.0] and found["boxed"].mask


def test_the_pair_says_where_its_region_comes_from(folder: Path) -> None:  # noqa: F811
    quarantine, made = Quarantine(folder / "q.jsonl"), examples()
    found = segmented_regions(made, folder, Counting(), OPTIONS, words, quarantine)
    pairs = corrupt_pairs([pair(e) for e in made], made, folder, Resizing(), OPTIONS, quarantine, found)
    assert [(p.example_id, p.region_source, p.corruption_area, p.sigma) for p in pairs] == [
        ("masked", "dataset", "lesion", 45.0),
        ("nodule", "segmenter", "lesion", 45.0),
        ("ptx", "none", "image", 12.0),
        ("none", "none", "image", 12.0),
        ("boxed", "dataset", "lesion", 45.0),
    ]
    assert pairs[1].region == found["nodule"]
    (row,) = [r for r in map(json.loads, (folder / "corrupted" / "index.jsonl").read_text().splitlines())
              if r["file"] == pairs[1].corrupted_images[0]]  # fmt: skip
    assert read_mask(folder / row["mask"])[:16, :16].all() and row["pixels"] == 256
    assert quarantine.rows == []


def test_an_image_that_cannot_be_read_is_quarantined(folder: Path) -> None:  # noqa: F811
    (folder / "images" / "bad.png").write_bytes(b"x")
    quarantine = Quarantine(folder / "q.jsonl")
    bad = example(id="bad", regions=[], images=["images/bad.png"], question="On which side is the nodule?")
    assert segmented_regions([bad], folder, Counting(), OPTIONS, words, quarantine) == {}
    assert [row["id"] for row in quarantine.rows] == ["bad"]


@pytest.mark.parametrize(
    "question, truth, phrase",
    [
        ("On which side is the nodule?", "left", "left nodule"),
        ("Is the nodule in the left upper zone?", "yes", "left upper nodule"),
        ("Is there a pleural effusion?", "yes", "pleural effusion"),
        ("Is there a pleural effusion?", "no", None),
        ("What abnormality is seen?", "A mass in the right lower lobe.", "right lower mass"),
        ("Where is the abnormality located?", "Right Lung", "right lung"),
        ("What abnormality is seen?", "none", None),
        ("Which organ is enlarged?", "The liver", "liver"),
        ("What modality is this?", "CT", None),
        ("How many images are there?", "2", None),
    ],
)
def test_the_phrase_that_is_asked(question: str, truth: str, phrase: str | None) -> None:
    assert concept(question, truth) == phrase


def test_slots_of_the_data_set_win() -> None:
    assert concept("Is the nodule on the left?", "no", {"side": "right", "asked": "left"}) == "right nodule"
    assert concept("Is there a nodule?", "no", {"presence": "no"}) is None
    assert concept("Where is it?", "left", {"finding": "mass", "side": "left"}) == "left mass"


def test_reports_are_about_the_whole_image(folder: Path) -> None:  # noqa: F811
    report = example(id="r", task="report", regions=[], answer="A nodule is seen on the left.")
    write_png(folder / "images" / "c.png", np.zeros((8, 8), np.uint8))
    assert segmented_regions([report], folder, Counting(), OPTIONS, words, Quarantine(folder / "q.jsonl")) == {}
