"""SLAKE in its published layout: English questions, outlined labels as regions, every trap of the layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sources import ingest, picture, reasons, summary, write_json

from clinalign.errors import UsageError
from clinalign.imaging.images import read_mask

MASK_TXT = "70:Liver\n135:Left Kidney\n155:Right Kidney\n175:Liver Cancer\n215:Left Lung\n225:Right Lung\n\n"


def question(qid: int, image: str, text: str, answer: str, **more) -> dict:
    return {
        "img_id": 1,
        "img_name": f"{image}/source.jpg",
        "question": text,
        "answer": answer,
        "q_lang": "en",
        "location": "Abdomen",
        "modality": "CT",
        "answer_type": "CLOSED" if answer in ("Yes", "No") else "OPEN",
        "base_type": "vqa",
        "content_type": "Position",
        "triple": ["vhead", "_", "_"],
        "qid": qid,
    } | more


def image(base: Path, name: str, seed: int, labels: dict[int, tuple[slice, slice]], boxes: list[dict]) -> None:
    picture(base / "imgs" / name / "source.jpg", seed)
    mask = np.zeros((24, 20, 3), dtype=np.uint8)
    for value, where in labels.items():
        mask[where] = value
    Image.fromarray(mask).save(base / "imgs" / name / "mask.png")
    write_json(base / "imgs" / name / "detection.json", boxes)


@pytest.fixture
def slake(tmp_path: Path) -> Path:
    base = tmp_path / "data" / "Slake1.0"
    liver, cancer = (slice(2, 10), slice(1, 9)), (slice(4, 6), slice(3, 5))
    image(
        base, "xmlab1", 1, {70: liver, 175: cancer}, [{"Liver": [1.0, 2.0, 8.0, 8.0]}, {"Liver Cancer": [3, 4, 2, 2]}]
    )
    image(base, "xmlab2", 2, {}, [{"Right Lung": [0, 0, 9, 9]}, {"Left Lung": [10, 0, 9, 9]}])
    image(base, "xmlab3", 3, {70: liver}, [{"Liver": [15, 2, 8, 8]}])
    write_json(
        base / "train.json",
        [
            question(0, "xmlab1", "What modality is used to take this image?", "CT"),
            question(1, "xmlab1", "Which organ is abnormal, and why?", "Liver, liver cancer"),
            question(2, "xmlab1", "肝脏在哪里?", "左边", q_lang="zh"),
        ],
    )
    write_json(base / "validate.json", [question(3, "xmlab2", "Are the lungs healthy?", "Yes", modality="X-Ray")])
    write_json(
        base / "test.json",
        [
            question(4, "xmlab3", "Is there any abnormality?", "No"),
            question(5, "xmlab3", "Where is the liver?", "Right"),
            question(6, "xmlab9", "Where is the liver?", "Right"),
            question(4, "xmlab3", "Is it CT?", "Yes"),
            question(7, "xmlab3", "Is it CT?", " "),
            question(8, "xmlab3", "这是CT吗?", "是", q_lang="zh"),
        ],
    )
    (base / "mask.txt").write_text(MASK_TXT)
    return base


def test_english_rows_with_their_splits_and_outlines(slake: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    examples, _ = ingest(out, "slake", slake)
    assert [(e.id, e.split, e.task) for e in examples] == [
        ("slake-0", "align", "open"),
        ("slake-1", "align", "open"),
        ("slake-3", "dev", "closed"),
        ("slake-4", "test", "closed"),
    ]
    assert examples[0].regions == [] and examples[0].modality == "CT"
    disease, organ = examples[1].regions
    assert (disease.label, disease.box) == ("Liver Cancer", [3, 4, 2, 2]) and organ.label == "Liver"
    inside = read_mask(out / disease.mask)
    assert inside[4:6, 3:5].all() and inside.sum() == 4, "the number of the label counts, not what is not zero"
    assert read_mask(out / organ.mask).sum() == 64 - 4
    lungs = examples[2].regions
    assert {r.label for r in lungs} == {"Left Lung", "Right Lung"} and not any(r.mask for r in lungs)
    assert examples[0].patient_id == examples[1].patient_id != examples[2].patient_id


def test_bad_rows_and_other_languages_are_accounted_for(slake: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    _, quarantine = ingest(out, "slake", slake)
    assert reasons(quarantine) == [
        ("test.json", 2, "box", "box_outside_image"),
        ("test.json", 3, "images", "missing_image"),
        ("test.json", 4, "id", "duplicate_id"),
        ("test.json", 5, "answer", "empty_answer"),
    ]
    found = summary(out)
    assert found["filtered"] == {"test.json: q_lang zh": 1, "train.json: q_lang zh": 1}
    assert found["rows"] == {"train.json": 2, "validate.json": 1, "test.json": 5}
    said = capsys.readouterr().err
    assert "train.json: 2 rows, published are 4919" in said and "1 rows filtered (train.json: q_lang zh)" in said


def test_chinese_rows_on_demand(slake: Path, tmp_path: Path) -> None:
    examples, _ = ingest(tmp_path / "zh", "slake", slake, language="zh")
    assert [e.answer for e in examples] == ["左边", "是"]
    assert len(ingest(tmp_path / "all", "slake", slake.parent, language="all")[0]) == 6


def test_a_mask_of_another_size_and_a_damaged_image(slake: Path, tmp_path: Path) -> None:
    Image.new("L", (7, 7)).save(slake / "imgs" / "xmlab1" / "mask.png")
    cut = slake / "imgs" / "xmlab2" / "source.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    _, quarantine = ingest(tmp_path / "out", "slake", slake)
    assert reasons(quarantine)[:2] == [
        ("train.json", 2, "mask", "mask_size"),
        ("validate.json", 1, "images", "unreadable_image"),
    ]


def test_an_image_in_two_splits_is_refused(slake: Path, tmp_path: Path) -> None:
    write_json(slake / "validate.json", [question(3, "xmlab1", "Is it CT?", "Yes")])
    with pytest.raises(UsageError, match=r"one patient is in split 'align' \(train.json row 1\)") as error:
        ingest(tmp_path / "out", "slake", slake)
    assert "train.json row 1" in str(error.value) and "validate.json row 1" in str(error.value)


def test_a_wholly_wrong_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        ingest(tmp_path / "out", "slake", tmp_path / "none")
    with pytest.raises(UsageError, match="train.json"):
        ingest(tmp_path / "out", "slake", tmp_path)
    write_json(tmp_path / "train.json", [{"image": "a", "caption": "b"}])
    with pytest.raises(UsageError, match="no field 'img_name'; the file has caption, image"):
        ingest(tmp_path / "out", "slake", tmp_path)
    (tmp_path / "train.json").write_text('[{"img_name": "a", "question": "q",')
    with pytest.raises(UsageError, match="not valid JSON after 0 items"):
        ingest(tmp_path / "out", "slake", tmp_path)


def test_labels_without_a_name_and_damaged_boxes(slake: Path, tmp_path: Path) -> None:
    write_json(slake / "imgs" / "xmlab1" / "detection.json", [{"": [1, 1, 2, 2], "Liver": [1.0, 2.0, 8.0, 8.0]}])
    write_json(slake / "imgs" / "xmlab2" / "detection.json", [{"Left Lung": "here"}])
    examples, quarantine = ingest(tmp_path / "out", "slake", slake)
    assert len(examples) == 3 and ("validate.json", 1, "box", "unparsable_box") in reasons(quarantine)
    with pytest.raises(UsageError, match=r"a table is \.csv"):
        ingest(tmp_path / "png", "mmedpo", slake / "imgs" / "xmlab1" / "mask.png")
