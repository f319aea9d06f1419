"""HALLUCINOGEN, S-Chain and the sets for text versus vision in their published layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sources import ingest, picture, reasons, summary, write_json

from clinalign.data.sources import hallucinogen, s_chain
from clinalign.data.sources.text_vision import LABELS
from clinalign.errors import UsageError


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def queries(thing: str) -> dict[str, str]:
    """The queries in the order of the published files: the second is stored first."""
    return {f"query_{n}": f"Query {n} about the {thing}?" for n in (2, 1, 3, 4, 5)}


@pytest.fixture
def general(tmp_path: Path) -> Path:
    base = tmp_path / "hallucinogen"
    image = "COCO_val2014_000000310196.jpg"
    picture(base / "images" / image, 1)
    rows = [
        {"question_id": 1, "image": image, "text": "Is there a snowboard in the image?", "label": "yes"},
        {"question_id": 2, "image": image, "text": "Is there an umbrella in the image?", "label": "no"},
        {"question_id": 3, "image": image, "text": "A dog?", "label": "no"},
        {"question_id": 4, "image": image, "text": "Is there a dog in the image?", "label": "perhaps"},
    ]
    rows = [row | queries("thing") for row in rows]
    lines(base / "data" / "cf" / "cf_POPE_adv.json", rows)
    lines(base / "data" / "id" / "id_POPE_adv.json", rows[:2])
    return base


def test_hallucinogen_general_json_lines_named_json(general: Path, tmp_path: Path, capsys: Any) -> None:
    examples, quarantine = ingest(tmp_path / "out", "hallucinogen", general, images=str(general / "images"))
    assert len(examples) == 20 and {e.split for e in examples} == {"test"}
    first = next(e for e in examples if e.id == "cf_POPE_adv-1-q1")
    assert (first.answer, first.question, first.task) == ("yes", "Query 1 about the thing?", "closed")
    assert {e.id.partition("_")[0] for e in examples} == {"cf", "id"}
    bad = {(row, field, reason) for _, row, field, reason in reasons(quarantine)}
    assert bad == {(3, "text", "unparsable_text"), (4, "label", "unknown_label")}
    assert "cf_POPE_adv.json: 4 rows, published are 3000" in capsys.readouterr().err


def test_hallucinogen_med_has_no_ids_and_an_underscore(tmp_path: Path) -> None:
    base = tmp_path / "med"
    for name in ("00000003_003", "00000003_004"):
        picture(base / "images_001" / "images" / f"{name}.png", int(name[-1]))
    rows = [
        {"image": "images_001/images/00000003_003.png", "diseases": "Pleural_Thickening", "label": "Yes"},
        {"image": "images_001/images/00000003_004.png", "diseases": "Hernia", "label": "No"},
    ]
    for row in rows:
        row |= queries(row["diseases"])
    del rows[1]["query_5"]
    lines(base / "data" / "loc" / "loc_med_hallucinogen_data.json", rows)
    examples, quarantine = ingest(tmp_path / "out", "hallucinogen", base, subset="med")
    assert len(examples) == 9 and len({e.patient_id for e in examples}) == 1
    assert examples[0].answer == "yes" and "Pleural_Thickening" in examples[0].question
    assert examples[0].id == "loc_med_hallucinogen_data-1-q1"
    assert reasons(quarantine) == [("loc_med_hallucinogen_data.json", 2, "query_5", "missing_field")]
    assert summary(tmp_path / "out")["published"] == {"loc_med_hallucinogen_data.json": 3004}
    with pytest.raises(UsageError, match="general and med"):
        ingest(tmp_path / "again", "hallucinogen", base, subset="ct")


def test_a_hallucinogen_file_of_another_layout_is_named(tmp_path: Path) -> None:
    base = tmp_path / "other"
    lines(base / "id_POPE_adv.json", [{"question": "a"}, {"question": "b"}])
    with pytest.raises(UsageError, match=r"id_POPE_adv.json: no field 'image'") as error:
        ingest(tmp_path / "out", "hallucinogen", base)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("attack", hallucinogen.PROMPTS)
def test_the_bank_holds_the_thing_once_and_nothing_of_the_label(attack: str) -> None:
    """Five different prompts an attack, the same for things that are there and that are not."""
    for style in hallucinogen.STYLES:
        bank = hallucinogen.prompts("pleural_thickening", attack, style)
        assert len(set(bank)) == 5 and all(p.count("pleural thickening") == 1 for p in bank)
        words = {w.strip("?.,:'").lower() for p in bank for w in p.split()}
        assert not words & {"yes", "no", "not", "absent", "present", "isn't", "none", "correct"}


def exported(n: int, **more: Any) -> dict[str, Any]:
    return {
        "Q1": "Where?", "A1": "", "Q2": "What?", "A2": "Wide sulci.", "Q3": "Grade?", "A3": "MTA: B",
        "Q4": "Class?", "A4": "Mild-Dementia", s_chain.BOXES: [[0.1, 0.2, 0.3, 0.4], [0.5, 0.2, 0.3, 0.4]],
        "Deliverable": "x", "Notes": None,
        "Patient ID": f"OAS1_{n:04d}", "Slide": n, "image": {"path": f"images/{n}.jpg"},
        "image_with_bboxes": None,
    } | more  # fmt: skip


def test_s_chain_as_exported(tmp_path: Path) -> None:
    base = tmp_path / "s"
    for n in range(4):
        picture(base / "images" / f"{n}.jpg", n)
    stem = "leduckhai__S-Chain__{}__{}.jsonl"
    rows = [exported(0), exported(1, A3=""), exported(2, **{s_chain.BOXES: "(0.1, 0.2, 0.3)"})]
    lines(base / stem.format("English", "train"), rows)
    lines(base / stem.format("English", "test"), [exported(3)])
    lines(base / stem.format("Vietnamese", "test"), [exported(3, A2="Rãnh rộng.")])
    examples, quarantine = ingest(tmp_path / "out", "s_chain", base)
    assert [(e.split, e.answer) for e in examples] == [("test", "Mild-Dementia"), ("align", "Mild-Dementia")]
    assert {(field, reason) for _, _, field, reason in reasons(quarantine)} == {
        ("A3", "missing_step"),
        ("box", "unparsable_box"),
    }
    assert len({e.patient_id for e in examples}) == 2
    vietnamese, _ = ingest(tmp_path / "vi", "s_chain", base, language="vi")
    assert len(vietnamese) == 1 and vietnamese[0].id == "s-chain-Vietnamese-test-1"
    everything, _ = ingest(tmp_path / "all", "s_chain", base, language="all")
    assert len(everything) == 3
    with pytest.raises(UsageError, match="S-Chain__French__"):
        ingest(tmp_path / "fr", "s_chain", base, language="fr")


def test_a_patient_in_both_splits_ends_the_run(tmp_path: Path) -> None:
    base = tmp_path / "s"
    for n in range(2):
        picture(base / "images" / f"{n}.jpg", n)
    for n, split in enumerate(("train", "test")):
        row = exported(n, **{"Patient ID": "OAS1_0001"})
        lines(base / f"leduckhai__S-Chain__English__{split}.jsonl", [row])
    with pytest.raises(UsageError, match="one patient is in split"):
        ingest(tmp_path / "out", "s_chain", base)


@pytest.mark.parametrize("key", ["conversations", "conversatons"])
def test_s_chain_training_files_and_their_misspelt_key(tmp_path: Path, key: str) -> None:
    base = tmp_path / "s"
    chain = s_chain.chain_text([("a?", s_chain.box_text([[0.1, 0.2, 0.3, 0.4]]))] + [("b?", "c")] * 3, "Non-Dementia")
    rows = []
    for n in range(3):
        picture(base / f"OAS1_000{n}_MR1_100.jpg", n)
        talk = [{"value": "Which class?"}, {"value": chain if n < 2 else "no idea"}]
        rows.append({"id": f"q{n}", "image": f"OAS1_000{n}_MR1_100.jpg", key: talk})
    write_json(base / "llava_med_mri_bbox_test_CoT.json", rows)
    examples, quarantine = ingest(tmp_path / "out", "s_chain", base)
    assert [e.answer for e in examples] == ["Non-Dementia"] * 2 and {e.split for e in examples} == {"test"}
    assert examples[0].id == "s-chain-llava_med_mri_bbox_test_CoT-test-q0"
    assert reasons(quarantine) == [("llava_med_mri_bbox_test_CoT.json", 3, "conversations", "no_final_answer")]


def mimic(base: Path) -> Path:
    image, report = "files/p10/p10000032/s50414267/a.jpg", "mimic-cxr-reports/files/p10/p10000032/s50414267.txt"
    picture(base / image, 1)
    (base / "mimic-cxr-2.0.0-split.csv").write_text(
        "dicom_id,study_id,subject_id,split\na,50414267,10000032,test\nb,50414268,10000032,test\n"
    )
    (base / "mimic-cxr-2.0.0-metadata.csv").write_text("dicom_id,ViewPosition\na,PA\nb,PA\n")
    (base / report).parent.mkdir(parents=True)
    (base / report).write_text(
        "INDICATION: ___F with cough. Evaluate for acute process.\n\n"
        "FINDINGS: There is a large pneumothorax.\n\nIMPRESSION: Pneumothorax.\n"
    )
    cells = dict.fromkeys(LABELS, "") | {"Pneumothorax": "1.0", "Edema": "-1.0", "Cardiomegaly": "0.0"}
    header, values = ",".join(cells), ",".join(cells.values())
    (base / "mimic-cxr-2.0.0-chexpert.csv").write_text(f"subject_id,study_id,{header}\n10000032,50414267,{values}\n")
    return base


def test_mimic_labels_with_the_text_written_before_the_image(tmp_path: Path) -> None:
    examples, quarantine = ingest(tmp_path / "out", "mimic_labels", mimic(tmp_path / "mimic"))
    assert len(examples) == 13 and {e.split for e in examples} == {"test"}
    answers = {e.id.removeprefix("s50414267-"): e.answer for e in examples}
    assert answers["pneumothorax"] == "yes" and answers["cardiomegaly"] == answers["atelectasis"] == "no"
    assert "edema" not in answers and summary(tmp_path / "out")["filtered"]
    text = "Evaluate for acute process."
    assert all(e.question.startswith(f"Clinical information: {text}\n") for e in examples)
    assert not any("a large pneumothorax" in e.question or "FINDINGS" in e.question for e in examples)
    assert [reason for *_, reason in reasons(quarantine)] == ["missing_report"]


def test_dementia_in_three_stages(tmp_path: Path) -> None:
    table = tmp_path / "stages.csv"
    for n in range(4):
        picture(tmp_path / f"{n}.png", n)
    table.write_text(
        "image,context,stage,patient_id,split\n0.png,MMSE 29,CN,a,test\n1.png,MMSE 25,MCI,b,test\n"
        "2.png,MMSE 15,AD,c,test\n3.png,MMSE 20,severe,d,test\n"
    )
    examples, quarantine = ingest(tmp_path / "out", "dementia", table)
    assert [e.answer for e in examples] == ["normal", "mild cognitive impairment", "dementia"]
    assert reasons(quarantine) == [("stages.csv", 4, "stage", "unknown_stage")]


@pytest.mark.parametrize("source", ["hallucinogen", "s_chain", "mimic_labels", "dementia"])
def test_a_folder_of_something_else(tmp_path: Path, source: str) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError) as error:
            ingest(tmp_path / "out", source, path)
        assert "\n" not in str(error.value) and str(path.name) in str(error.value)
