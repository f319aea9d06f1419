"""VQA-RAD, PathVQA, PMC-VQA, OmniMedVQA and VGMED in their published layouts."""

import csv
import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources import ingest, picture, reasons, summary, write_json

from clinalign.data.sources.multiple_choice import multiple_choice
from clinalign.errors import RowError, UsageError


def rad(qid: int, image: str, phrase: str, **more) -> dict:
    return {
        "qid": qid,
        "phrase_type": phrase,
        "qid_linked_id": "03f451ca-de62-4617-9679-e836026a7642",
        "image_case_url": "https://medpix.nlm.nih.gov/case?id=48e1dd0e",
        "image_name": image,
        "image_organ": "HEAD",
        "evaluation": "not evaluated",
        "question": "Are regions of the brain infarcted?",
        "question_rephrase": "NULL",
        "question_relation": "NULL",
        "question_frame": "NULL",
        "question_type": "PRES",
        "answer": "Yes",
        "answer_type": "CLOSED ",
    } | more


@pytest.fixture
def vqa_rad(tmp_path: Path) -> Path:
    base = tmp_path / "rad"
    for number in (1, 2):
        picture(base / "VQA_RAD Image Folder" / f"synpic{number}.jpg", number)
    rows = [
        rad(1, "synpic1.jpg", "freeform"),
        rad(2, "synpic1.jpg", "para", answer="MRI-DWI", answer_type="OPEN"),
        rad(3, "synpic2.jpg", "test_freeform", answer=3),
        rad(4, "synpic9.jpg", "test_para"),
    ]
    write_json(base / "VQA_RAD Dataset Public.json", rows)
    return base


def test_vqa_rad_public(vqa_rad: Path, tmp_path: Path, capsys) -> None:
    examples, quarantine = ingest(tmp_path / "out", "vqa_rad", vqa_rad)
    assert [(e.split, e.task, e.answer) for e in examples] == [
        ("align", "closed", "Yes"),
        ("align", "open", "MRI-DWI"),
        ("test", "closed", "3"),
    ]
    assert examples[0].meta["image_organ"] == "HEAD"
    assert reasons(quarantine) == [("VQA_RAD Dataset Public.json", 4, "images", "missing_image")]
    assert "train: 2 rows, published are 1797" in capsys.readouterr().err


def test_vqa_rad_shares_images_between_its_splits(vqa_rad: Path, tmp_path: Path) -> None:
    path = vqa_rad / "VQA_RAD Dataset Public.json"
    write_json(path, [*json.loads(path.read_text()), rad(5, "synpic1.jpg", "test_freeform")])
    with pytest.raises(UsageError, match="data.leaks to drop"):
        ingest(tmp_path / "out", "vqa_rad", vqa_rad)
    examples, quarantine = ingest(tmp_path / "drop", "vqa_rad", vqa_rad, leaks="drop")
    assert {e.split for e in examples} == {"test"} and len(examples) == 2
    assert [(r["row"], r["reason"]) for r in quarantine.rows] == [(4, "missing_image"), (1, "leak"), (2, "leak")]
    examples, _ = ingest(tmp_path / "allow", "vqa_rad", vqa_rad, leaks="allow")
    assert len(examples) == 4 and "share a patient or an image" in summary(tmp_path / "allow")["warnings"][-1]
    examples, _ = ingest(tmp_path / "deal", "vqa_rad", vqa_rad, original_splits=False, splits={"align": 1, "test": 1})
    by_image = {e.images[0]: {o.split for o in examples if o.images == e.images} for e in examples}
    assert len(by_image) == 2 and all(len(splits) == 1 for splits in by_image.values())


def test_vqa_rad_as_two_files(tmp_path: Path) -> None:
    base = tmp_path / "rad"
    for number in (1, 2):
        picture(base / "images" / f"synpic{number}.jpg", number)
    write_json(base / "trainset.json", [rad(1, "synpic1.jpg", "freeform")])
    write_json(base / "testset.json", [rad(1, "synpic2.jpg", "test_freeform")])
    examples, _ = ingest(tmp_path / "out", "vqa_rad", base)
    assert [(e.id, e.split) for e in examples] == [("vqa-rad-train-1", "align"), ("vqa-rad-test-1", "test")]


def test_path_vqa_as_published(tmp_path: Path) -> None:
    base = tmp_path / "pvqa"
    for split, number in (("train", 1), ("val", 2), ("test", 3)):
        picture(base / "images" / split / f"{split}_0001.jpg", number)
        rows = [{"image": f"{split}_0001", "question": "Is it benign?", "answer": "no"}]
        rows += [{"image": f"{split}_0001", "question": "What is shown?", "answer": ""}] if split == "val" else []
        folder = base / "qas" / split
        folder.mkdir(parents=True)
        (folder / f"{split}_qa.pkl").write_bytes(pickle.dumps(rows))
    examples, quarantine = ingest(tmp_path / "out", "path_vqa", base)
    assert [e.split for e in examples] == ["test", "align", "dev"] and {e.task for e in examples} == {"closed"}
    assert reasons(quarantine) == [("val_qa.pkl", 2, "answer", "empty_answer")]


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("opened"),))


def test_a_pickle_that_runs_code_is_not_opened(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train_qa.pkl").write_bytes(pickle.dumps([{"image": Trap()}]))
    with pytest.raises(UsageError, match="not a pickle of plain lists and dicts"):
        ingest(tmp_path / "out", "path_vqa", tmp_path)
    assert not (tmp_path / "opened").exists()


def test_path_vqa_of_the_hub(tmp_path: Path) -> None:
    base = tmp_path / "path-vqa"
    (base / "data").mkdir(parents=True)
    for split, number in (("train", 1), ("validation", 2), ("test", 3)):
        image = {"bytes": picture(tmp_path / "a.jpg", number).read_bytes(), "path": None}
        rows = [{"image": image, "question": "Is it benign?", "answer": "no"}]
        rows += [{"image": {"bytes": b"no image", "path": "x"}, "question": "q", "answer": "a"}]
        pq.write_table(pa.Table.from_pylist(rows), base / "data" / f"{split}-00000-of-00001-9f2.parquet")
    examples, quarantine = ingest(tmp_path / "out", "path_vqa", base)
    assert sorted(e.split for e in examples) == ["align", "dev", "test"]
    assert [(row["row"], row["reason"]) for row in quarantine.rows] == [(2, "unreadable_image")] * 3
    assert summary(tmp_path / "out")["published"] == {"hub test": 6719, "hub train": 19654, "hub validation": 6259}


def test_multiple_choice_by_hand() -> None:
    options = ["A:Diffuse pattern", "B:Focal pattern", " C:A. fumigatus", "D:None"]
    made = multiple_choice("Which?", options, "B")
    assert made["question"] == "Which?\nA. Diffuse pattern\nB. Focal pattern\nC. A. fumigatus\nD. None"
    for answer, letter in (
        ("Focal pattern", "B"),
        ("b:focal pattern", "B"),
        ("A. fumigatus", "C"),
        ("D", "D"),
        ("a.", "A"),
    ):
        assert multiple_choice("Which?", options, answer)["answer"] == letter
    for answer, reason in (
        ("E", "answer_not_an_option"),
        ("", "empty_answer"),
        ("A:Focal pattern", "answer_not_an_option"),
    ):
        with pytest.raises(RowError) as error:
            multiple_choice("Which?", options, answer)
        assert error.value.reason == reason
    with pytest.raises(RowError, match="bad_options"):
        multiple_choice("Which?", ["one"], "A")


def pmc(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("version", [1, 2])
def test_pmc_vqa(tmp_path: Path, version: int) -> None:
    base = tmp_path / "pmc"
    folder = "images" if version == 1 else "figures"
    for number in (1, 2):
        picture(base / folder / f"PMC106{number}_F1.jpg", number)
    choices = {"Choice A": " A:CT ", "Choice B": " B:MRI ", "Choice C": " C:PET ", "Choice D": " D:X-ray "}
    train = {"Figure_path": "PMC1061_F1.jpg", "Question": "What modality?", **choices}
    train |= {"Answer": "MRI", "Answer_label": "B"} if version == 1 else {"Answer": "B", "index": 7, "Caption": "c"}
    test = train | {"Figure_path": "PMC1062_F1.jpg"}
    bad = test | ({"Answer_label": "F"} if version == 1 else {"Answer": "F"})
    names = ("train.csv", "test_clean.csv") if version == 1 else ("train_2.csv", "test_2.csv")
    pmc(base / names[0], [train])
    pmc(base / names[1], [bad, test])
    if version == 1:
        pmc(base / "test.csv", [test])
    examples, quarantine = ingest(tmp_path / "out", "pmc_vqa", base)
    assert [(e.split, e.answer, e.task) for e in examples] == [("align", "B", "closed"), ("test", "B", "closed")]
    assert examples[0].question == "What modality?\nA. CT\nB. MRI\nC. PET\nD. X-ray"
    assert examples[0].meta["answer_text"] == "MRI"
    assert reasons(quarantine) == [(names[1], 1, "answer", "answer_not_an_option")]


def test_omnimed_vqa(tmp_path: Path) -> None:
    base = tmp_path / "OmniMedVQA"
    rows = []
    for number in range(4):
        picture(base / "Images" / "Chest CT Scan" / "test" / f"{number}.png", number)
        rows.append(
            {
                "dataset": "Chest CT Scan",
                "question_id": f"Chest CT Scan_{number:04d}",
                "question_type": "Modality Recognition",
                "question": "What is the imaging technique?",
                "gt_answer": "CT",
                "image_path": f"Images/Chest CT Scan/test/{number}.png",
                "option_A": "X-ray",
                "option_B": "CT",
                "option_C": "MR",
                "option_D": "US",
                "modality_type" if number else "modality": "CT(Computed Tomography)",
            }
        )
    rows.append(rows[0] | {"question_id": "", "gt_answer": "PET"})
    write_json(base / "QA_information" / "Open-access" / "Chest CT Scan.json", rows)
    write_json(base / "QA_information" / "Restricted-access" / "Other.json", [rows[1] | {"question_id": "r"}])
    examples, quarantine = ingest(tmp_path / "out", "omnimed_vqa", base, subset="Open-access", splits={"test": 1})
    assert len(examples) == 4 and {e.split for e in examples} == {"test"} and {e.answer for e in examples} == {"B"}
    assert examples[0].modality == "CT(Computed Tomography)" and examples[0].source == "omnimed_vqa"
    assert reasons(quarantine) == [("Open-access/Chest CT Scan.json", 5, "answer", "answer_not_an_option")]
    assert summary(tmp_path / "out")["published"] == {"Open-access": 88996}


def test_vgmed_boxes(tmp_path: Path) -> None:
    base = tmp_path / "VGMED"
    picture(base / "Slake" / "imgs" / "xmlab1" / "source.jpg", 1)
    picture(base / "Kvasir" / "a.jpg", 2)
    rows = [
        {"image": "Slake/imgs/xmlab1/source.jpg", "question": "Where is the liver?", "bbox": [[1, 2, 8, 9]]},
        {"image": "Kvasir/a.jpg", "question": "Where is the polyp?", "bbox": [[1, 2, 9, 11], [10, 10, 12, 13]]},
        {"image": "Kvasir/a.jpg", "question": "Where is the polyp?", "bbox": []},
    ]
    (base / "VGMED_localization.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    colour = {"image": "Kvasir/a.jpg", "question": "What colour?", "original_bboxes": [[0, 0, 5, 5]], "answer": "red"}
    (base / "VGMED_attribute.jsonl").write_text(json.dumps(colour))
    examples, quarantine = ingest(tmp_path / "out", "vgmed", base)
    assert [[r.box for r in e.regions] for e in examples] == [
        [[1, 2, 8, 9]],
        [[1, 2, 8, 9], [10, 10, 2, 3]],
        [[0, 0, 5, 5]],
    ]
    assert [e.meta["answer_given"] for e in examples] == [False, False, True] and {e.split for e in examples} == {
        "test"
    }
    assert [e.kind for e in examples] == ["localization", "localization", "attribute"]
    assert reasons(quarantine) == [("VGMED_localization.jsonl", 3, "box", "unparsable_box")]


@pytest.mark.parametrize(
    "source",
    ["vqa_rad", "path_vqa", "pmc_vqa", "omnimed_vqa", "vgmed", "iu_xray", "mimic_cxr", "mmedpo", "trl", "llava"],
)
def test_a_folder_of_something_else(tmp_path: Path, source: str) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError) as error:
            ingest(tmp_path / "out", source, path)
        assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
