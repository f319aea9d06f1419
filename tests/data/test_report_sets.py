"""IU-Xray and MIMIC-CXR-JPG in their published layouts: sections, views, placeholders, published splits."""

import csv
import gzip
from pathlib import Path

import pytest
from sources import ingest, picture, reasons, summary, write_json

from clinalign.data.row import without_placeholders
from clinalign.data.sources.reports import findings_and_impression, sections
from clinalign.errors import RowError, UsageError


def report_xml(uid: str, images: list[tuple[str, str]], findings: str, impression: str) -> str:
    views = "".join(
        f'<parentImage id="{name}"><figureId>F1</figureId><caption>{caption}</caption>'
        f'<panel type="single"><url>/hadoop/storage/radiology/extract/{name}.jpg</url></panel></parentImage>'
        for name, caption in images
    )
    return (
        f'<?xml version="1.0" encoding="utf-8"?><eCitation><meta type="rr"/><uId id="{uid}"/>'
        '<MedlineCitation Owner="Indiana University"><Article PubModel="Electronic"><Abstract>'
        '<AbstractText Label="COMPARISON">None.</AbstractText>'
        '<AbstractText Label="INDICATION">XXXX-year-old</AbstractText>'
        f'<AbstractText Label="FINDINGS">{findings}</AbstractText>'
        f'<AbstractText Label="IMPRESSION">{impression}</AbstractText></Abstract></Article></MedlineCitation>'
        f"<MeSH><major>normal</major></MeSH>{views}</eCitation>"
    )


@pytest.fixture
def openi(tmp_path: Path) -> Path:
    base = tmp_path / "openi"
    names = ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001", "CXR2_IM-0652-1001", "CXR2_IM-0652-2001", "CXR10_IM-1-1"]
    for number, name in enumerate(names):
        picture(base / "NLMCXR_png" / f"{name}.png", number)
    both, pa, lateral = "Xray Chest PA and Lateral", "Chest, PA view", "CHEST LATERAL"
    reports = {
        "1": report_xml(
            "CXR1",
            [(n, both) for n in names[:2]],
            "No edema. There are no XXXX of an effusion.",
            "Normal chest x-XXXX.",
        ),
        "2": report_xml("CXR2", [(names[2], lateral), (names[3], pa)], "Clear lungs.", "No acute disease."),
        "3": report_xml("CXR3", [], "Clear lungs.", ""),
        "4": report_xml("CXR4", [(names[4], pa)], "", ""),
        "5": report_xml("CXR5", [(names[4], pa)], "XXXX opacity.", "See XXXX."),
        "10": report_xml("CXR10", [(names[4], pa)], "", "Normal."),
        "11": "<eCitation><uId id='CXR11'/>",
    }
    for name, text in reports.items():
        path = base / "NLMCXR_reports" / "ecgen-radiology" / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return base


def test_openi(openi: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    examples, quarantine = ingest(out, "iu_xray", openi, splits={"align": 1, "test": 1})
    assert [(e.id, e.answer, len(e.images)) for e in examples] == [
        ("CXR1", "No edema.", 2),
        ("CXR2", "Clear lungs. No acute disease.", 2),
        ("CXR10", "Normal.", 1),
    ]
    assert examples[0].meta["placeholders_cut"] == 2 and examples[0].meta["mesh"] == ["normal"]
    assert (
        all(e.task == "report" and e.modality == "CR" for e in examples) and len({e.patient_id for e in examples}) == 3
    )
    assert reasons(quarantine) == [
        ("3.xml", 1, "images", "no_image"),
        ("4.xml", 1, "answer", "empty_answer"),
        ("5.xml", 1, "answer", "placeholder"),
        ("11.xml", 1, "row", "unparsable_row"),
    ]
    assert summary(out)["rows"] == {"reports": 7} and summary(out)["published"] == {"reports": 3955}


def test_which_of_several_views(openi: Path, tmp_path: Path) -> None:
    every = {e.id: e.images for e in ingest(tmp_path / "a", "iu_xray", openi)[0]}
    frontal = {e.id: e.images for e in ingest(tmp_path / "b", "iu_xray", openi, views="frontal")[0]}
    first = {e.id: e.images for e in ingest(tmp_path / "c", "iu_xray", openi, views="first")[0]}
    assert frontal["CXR2"] == every["CXR2"][1:], "its caption says PA"
    assert first["CXR2"] == every["CXR2"][:1] and frontal["CXR1"] == every["CXR1"][:1]


def annotated(split: str, name: str, **more) -> dict:
    return {"id": name, "report": "the lungs are clear .", "image_path": [f"{name}/0.png"], "split": split} | more


def test_iu_xray_of_r2gen(tmp_path: Path) -> None:
    base = tmp_path / "iu_xray"
    for number, name in enumerate(("CXR1_IM-0001", "CXR2_IM-0652", "CXR3_IM-1384")):
        picture(base / "images" / name / "0.png", number)
        picture(base / "images" / name / "1.png", number + 10)
    two = {"image_path": ["CXR1_IM-0001/0.png", "CXR1_IM-0001/1.png"]}
    annotation = {
        "train": [annotated("train", "CXR1_IM-0001", **two)],
        "val": [annotated("val", "CXR2_IM-0652"), annotated("val", "CXR9_IM-2")],
        "test": [annotated("test", "CXR3_IM-1384")],
    }
    write_json(base / "annotation.json", annotation)
    examples, quarantine = ingest(tmp_path / "out", "iu_xray", base)
    assert [(e.split, len(e.images)) for e in examples] == [("align", 2), ("dev", 1), ("test", 1)]
    assert reasons(quarantine) == [("annotation.json", 3, "images", "missing_image")]
    assert summary(tmp_path / "out")["published"]["annotation.json train"] == 2069
    write_json(base / "annotation.json", annotation | {"test": [annotated("test", "CXR1_IM-0002", **two)]})
    with pytest.raises(UsageError, match=r"one patient is in split 'align' \(annotation.json row 1\)"):
        ingest(tmp_path / "leak", "iu_xray", base)


REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___-year-old woman with cough.

 FINDINGS:

 The cardiac silhouette is normal.  Compared to ___, the effusion
 is smaller. No pneumothorax.

 IMPRESSION:  No acute cardiopulmonary process.
"""


def table(path: Path, rows: list[dict]) -> None:
    opened = gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="")
    with opened as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def mimic(tmp_path: Path) -> Path:
    """Three patients, one of them with two studies; the rows of a study are apart in the list."""
    base = tmp_path / "mimic"
    images = [
        ("d1", "50000001", "10000032", "train", "LATERAL"),
        ("d2", "50000002", "10000032", "train", "AP"),
        ("d3", "50000001", "10000032", "train", "PA"),
        ("d4", "50000003", "11000001", "validate", "LL"),
        ("d5", "50000004", "12000001", "test", "PA"),
        ("d6", "50000005", "12000001", "test", "PA"),
    ]
    for number, (dicom, study, subject, _, _) in enumerate(images):
        picture(base / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}" / f"{dicom}.jpg", number)
        text = base / "mimic-cxr-reports" / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(REPORT if study != "50000005" else " FINAL REPORT\n WET READ: nothing")
    split = [dict(zip(("dicom_id", "study_id", "subject_id", "split"), image)) for image in images]
    split.append(split[0] | {"dicom_id": "d7", "study_id": "50000009"})
    table(base / "mimic-cxr-2.0.0-split.csv.gz", split)
    shown = [{"dicom_id": image[0], "subject_id": image[2], "ViewPosition": image[4], "Rows": 24} for image in images]
    table(base / "mimic-cxr-2.0.0-metadata.csv", shown)
    return base


def test_mimic_cxr_jpg(mimic: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    examples, quarantine = ingest(out, "mimic_cxr", mimic)
    assert [(e.id, e.split, e.meta["views"]) for e in examples] == [
        ("s50000001", "align", ["PA", "LATERAL"]),
        ("s50000002", "align", ["AP"]),
        ("s50000003", "dev", ["LL"]),
        ("s50000004", "test", ["PA"]),
    ]
    assert examples[0].answer == "The cardiac silhouette is normal. No pneumothorax. No acute cardiopulmonary process."
    assert examples[0].meta["placeholders_cut"] == 1 and examples[0].patient_id == examples[1].patient_id
    assert "10000032" not in str(examples[0].patient_id)
    assert reasons(quarantine) == [
        ("mimic-cxr-2.0.0-split.csv.gz", 7, "answer", "missing_report"),
        ("mimic-cxr-2.0.0-split.csv.gz", 6, "answer", "empty_answer"),
    ]
    assert summary(out)["published"]["studies train"] == 222758


def test_mimic_frontal_views_only(mimic: Path, tmp_path: Path) -> None:
    examples, quarantine = ingest(tmp_path / "out", "mimic_cxr", mimic, views="frontal")
    assert [len(e.images) for e in examples] == [1, 1, 1]
    assert "no_frontal_view" in [row["reason"] for row in quarantine.rows]


def test_mimic_of_r2gen_and_without_reports(mimic: Path, tmp_path: Path) -> None:
    base = tmp_path / "r2gen"
    picture(base / "images" / "p10" / "p10000032" / "s5" / "a.jpg", 1)
    row = annotated("train", "a", image_path=["p10/p10000032/s5/a.jpg"], study_id=5, subject_id=10000032)
    write_json(base / "annotation.json", {"train": [row], "val": [], "test": []})
    [example], _ = ingest(tmp_path / "a", "mimic_cxr", base, limit=1)
    assert example.meta["study"] == "5" and example.source == "mimic_cxr"
    for path in (mimic / "mimic-cxr-reports").rglob("*.txt"):
        path.unlink()
    with pytest.raises(UsageError, match="mimic-cxr-reports.zip"):
        ingest(tmp_path / "b", "mimic_cxr", mimic)


def test_sections_by_hand() -> None:
    parts = sections(REPORT)
    assert list(parts) == ["examination", "indication", "findings", "impression"]
    assert parts["findings"].startswith("The cardiac") and parts["impression"] == "No acute cardiopulmonary process."
    assert findings_and_impression({"findings": "", "conclusion": "Normal."}) == "Normal."


def test_placeholders() -> None:
    assert without_placeholders("Clear. XXXX seen. No effusion.", "report") == ("Clear. No effusion.", 1)
    assert without_placeholders("left", "open") == ("left", 0)
    for answer, task in (("XXXX", "open"), ("the XXXX lung", "closed"), ("XXXX. See ___.", "report")):
        with pytest.raises(RowError, match="placeholder"):
            without_placeholders(answer, task)
