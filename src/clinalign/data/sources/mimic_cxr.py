"""MIMIC-CXR-JPG 2 (arXiv 1901.07042) with the reports of MIMIC-CXR: chest radiographs by study.

    mimic-cxr-2.0.0-split.csv[.gz] mimic-cxr-2.0.0-metadata.csv[.gz]
    files/p10/p10000032/s50414267/02aa804e-....jpg
    mimic-cxr-reports/files/p10/p10000032/s50414267.txt, or annotation.json of R2Gen beside images/

An example is a study with its views (`data.views`), frontal ones first; the answer is its findings and impression
without sentences that hold ___. Splits are the published ones.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path

from clinalign.data import cells, files
from clinalign.data.cells import guarded
from clinalign.data.ingest import Item, ingest
from clinalign.data.options import DataOptions
from clinalign.data.sources.layout import first, root
from clinalign.data.sources.reports import QUESTION, findings_and_impression, report_items, sections
from clinalign.errors import RowError, UsageError
from clinalign.records import Example
from clinalign.storage import Quarantine

PUBLISHED = {
    "studies train": 222_758,
    "studies validate": 1_808,
    "studies test": 3_269,
    "annotation.json train": 270_790,
    "annotation.json val": 2_130,
    "annotation.json test": 3_858,
}
FRONTAL = ("PA", "AP", "AP AXIAL")
REPORTS = ("mimic-cxr-reports/files", "reports/files", "mimic-cxr-reports", "reports", "files")
IMAGES = """
create table images(dicom text, study text, subject text, split text, view text default '', number integer);
create index studies on images(subject, study);
create unique index dicoms on images(dicom);
"""


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """Both layouts. Raises `UsageError` for a folder with neither, or without the reports."""
    base = root(options)
    annotation = next((p for p in (base / "annotation.json", *base.glob("*/annotation.json")) if p.is_file()), None)
    if annotation:
        images = annotation.parent / "images"
        given = report_items(annotation, options.views)
        return ingest(given, options, folder, quarantine, base=images if images.is_dir() else base, published=PUBLISHED)
    split = first(base, "mimic-cxr-2*-split.csv", "mimic-cxr-2*-split.csv.gz", what="MIMIC-CXR-JPG has one")
    metadata = first(base, "mimic-cxr-2*-metadata.csv", "mimic-cxr-2*-metadata.csv.gz", what="MIMIC-CXR-JPG has one")
    reports = next((base / name for name in REPORTS if any((base / name).glob("p1*/p1*/s*.txt"))), None)
    if reports is None:
        raise UsageError(
            f"{base}: no reports; unpack mimic-cxr-reports.zip as {base.name}/mimic-cxr-reports/files/p10/..."
        )
    given = _studies(split, metadata, reports, options.views)
    return ingest(given, options, folder, quarantine, base=base / "files", published=PUBLISHED)


def _studies(split: Path, metadata: Path, reports: Path, views: str) -> Iterator[Item]:
    """One item a study, in the order of patients and studies. The lists of images are sorted on disk."""
    database = sqlite3.connect("", isolation_level=None)
    try:
        database.executescript("pragma journal_mode = off;" + IMAGES + "begin;")
        yield from _list_images(split, metadata, database)
        found = database.execute("select subject, study, split, dicom, view, number from images order by 1, 2, number")
        for (subject, study), images in groupby(found, key=lambda image: (image[0], image[1])):
            listed = list(images)
            item = guarded(partial(_study, str(subject), str(study), listed, reports, views))
            yield Item(split.name, int(listed[0][5]), item, f"studies {listed[0][2]}")
    finally:
        database.close()


def _list_images(split: Path, metadata: Path, database: sqlite3.Connection) -> Iterator[Item]:
    """Fills the list of images; rows that cannot be used are passed on."""
    for file, fields in (
        (split, ("dicom_id", "study_id", "subject_id", "split")),
        (metadata, ("dicom_id", "ViewPosition")),
    ):
        for number, row in files.raw_rows(file):
            if isinstance(row, RowError):
                yield Item(file.name, number, row)
                continue
            if number == 1 and (missing := [name for name in fields if name not in row]):
                raise UsageError(f"{file}: no column '{missing[0]}'; is it the right file?")
            values = guarded(partial(_texts, row, fields))
            if isinstance(values, RowError):
                yield Item(file.name, number, values)
                continue
            if file == split:
                database.execute(
                    "insert or ignore into images(dicom, study, subject, split, number) values (?, ?, ?, ?, ?)",
                    (*values, number),
                )
            else:
                database.execute("update images set view = ? where dicom = ?", (values[1], values[0]))


def _texts(row: cells.Cells, fields: tuple[str, ...]) -> list[str]:
    return [cells.text(row, name) for name in fields]


def _study(subject: str, study: str, images: list[tuple[str, ...]], reports: Path, views: str) -> cells.Cells:
    folder = f"p{subject[:2]}/p{subject}"
    path = reports / folder / f"s{study}.txt"
    if not path.is_file():
        raise RowError("answer", "missing_report", f"no report s{study}.txt")
    parts = sections(path.read_text(encoding="utf-8", errors="replace"))
    ordered = sorted(images, key=lambda image: (image[4] not in FRONTAL, image[5]))
    shown = ordered if views == "all" else ordered[:1] if views == "frontal" else images[:1]
    if views == "frontal" and shown[0][4] not in FRONTAL:
        raise RowError("images", "no_frontal_view", "the study has no frontal view; set data.views to all")
    return {
        "id": f"s{study}",
        "images": [f"{folder}/s{study}/{image[3]}.jpg" for image in shown],
        "question": QUESTION,
        "answer": findings_and_impression(parts),
        "task": "report",
        "split": images[0][2],
        "patient_id": f"p{subject}",
        "modality": "CR",
        "meta": {"views": [image[4] for image in shown]},
    }
