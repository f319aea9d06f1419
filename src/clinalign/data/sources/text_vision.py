"""Two data sets for text versus vision ("Why Text Prevails", arXiv 2512.13747): text and image of one patient.

mimic_labels: MIMIC-CXR-JPG as for `mimic_cxr`, with mimic-cxr-2.0.0-chexpert.csv[.gz]: a yes/no question for each of
the 14 labels that is 1 or 0 (-1, uncertain, is left out; an empty cell, not mentioned, is no). The text is the
indication and history of the report, never its findings, impression or anything else that was written from the image.

dementia: a CSV or JSONL file with the columns image, context, stage (normal, mci or dementia; NC, CN, AD and the like
are known) and patient_id. The paper's own files are not public.

The example's slots hold "context" and the bare "question"; its question is both in one frame.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from clinalign.data import cells, files
from clinalign.data.cells import guarded
from clinalign.data.ingest import ingest
from clinalign.data.options import DataOptions
from clinalign.data.row import PLACEHOLDER, Filtered, Item
from clinalign.data.sources.layout import field, first, items
from clinalign.data.sources.mimic_cxr import REPORTS, studies
from clinalign.data.sources.reports import sections
from clinalign.errors import RowError, UsageError
from clinalign.records import Example
from clinalign.storage import Quarantine, user_path

LABELS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
    "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
STAGES = ("normal", "mild cognitive impairment", "dementia")
_STAGE_NAMES = {
    "normal": STAGES[0], "nc": STAGES[0], "cn": STAGES[0], "control": STAGES[0], "cognitively normal": STAGES[0],
    "mci": STAGES[1], "mild cognitive impairment": STAGES[1],
    "dementia": STAGES[2], "ad": STAGES[2], "alzheimer's disease": STAGES[2], "alzheimers disease": STAGES[2],
}  # fmt: skip
_BEFORE_THE_IMAGE = re.compile(r"indication|history|clinical (?:information|indication)|reason for")
FRAME = "Clinical information: {context}\n{question}"
LABEL_QUESTION = "Does this chest X-ray show {label}? Answer yes or no."
STAGE_QUESTION = "Which stage is it: normal, mild cognitive impairment or dementia?"


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """Both sources. Raises `UsageError` for a folder without the labels, or a file without the columns."""
    path = user_path(options.path)
    if options.source == "dementia":
        if not path.is_file():
            raise UsageError(f"data.path: {options.path}: no such file; source dementia is a CSV or JSONL file")
        given = items(path, ("image", "stage", "context"), _staged)
        return ingest(given, options, folder, quarantine, base=path.parent, several=False)
    if not path.is_dir():
        raise UsageError(f"data.path: {options.path}: no such folder; source mimic_labels is a folder")
    split, metadata, labels = (
        first(path, f"mimic-cxr-2*-{name}.csv", f"mimic-cxr-2*-{name}.csv.gz", what="MIMIC-CXR-JPG has one")
        for name in ("split", "metadata", "chexpert")
    )
    reports = next((path / name for name in REPORTS if any((path / name).glob("p1*/p1*/s*.txt"))), None)
    if reports is None:
        raise UsageError(f"{path}: no reports; unpack mimic-cxr-reports.zip there")
    return ingest(
        _labelled(studies(split, metadata, reports, options.views), _labels(labels), reports),
        options,
        folder,
        quarantine,
        base=path / "files",
    )


def _labels(path: Path) -> dict[str, str]:
    """Study -> its 14 labels as one letter each: y, n or u (uncertain), in the order of `LABELS`."""
    letters = {"1": "y", "1.0": "y", "0": "n", "0.0": "n", "": "n", "-1": "u", "-1.0": "u"}
    found: dict[str, str] = {}
    for number, row in files.raw_rows(path):
        if isinstance(row, RowError):
            continue
        missing = [name for name in ("study_id", *LABELS) if name not in row]
        if number == 1 and missing:
            raise UsageError(f"{path}: no column '{missing[0]}'; is it the right file?")
        found[field(row, "study_id")] = "".join(letters.get(field(row, label), "u") for label in LABELS)
    return found


def _labelled(given: Iterator[Item], labels: dict[str, str], reports: Path) -> Iterator[Item]:
    """A study's item into one a label."""
    for item in given:
        if not isinstance(item.row, dict):
            yield item
            continue
        study = str(item.row["id"])[1:]
        context = guarded(partial(_context, reports, str(item.row["patient_id"]), study), item.row)
        if isinstance(context, RowError) or study not in labels:
            error = context if isinstance(context, RowError) else RowError("label", "missing_label", "no such study")
            yield item._replace(row=error)
            continue
        for label, letter in zip(LABELS, labels[study], strict=True):
            part = label.lower().replace(" ", "-")
            made = Filtered("uncertain label") if letter == "u" else _asked(item.row, label, letter, context, part)
            yield item._replace(row=made, part=part)


def _context(reports: Path, patient: str, study: str) -> str:
    """What was written before the image was read, without sentences in which something was taken out."""
    text = (reports / patient[:3] / patient / f"s{study}.txt").read_text(encoding="utf-8", errors="replace")
    said = [words for name, words in sections(text).items() if _BEFORE_THE_IMAGE.search(name)]
    sentences = re.split(r"(?<=[.!?])\s+", " ".join(said))
    context = " ".join(s for s in sentences if s and not PLACEHOLDER.search(s))
    if not context:
        raise RowError("context", "no_context", "the report has no indication or history")
    return context


def _asked(row: cells.Cells, label: str, letter: str, context: str, part: str) -> cells.Cells:
    answer = "yes" if letter == "y" else "no"
    question = LABEL_QUESTION.format(label="no abnormality" if label == "No Finding" else label.lower())
    return {name: row[name] for name in ("images", "split", "patient_id", "modality")} | {
        "id": f"{row['id']}-{part}",
        "question": FRAME.format(context=context, question=question),
        "answer": answer,
        "task": "closed",
        "finding": label.lower(),
        "kind": "label",
        "slots": {"presence": answer, "context": context, "question": question},
    }


def _staged(row: cells.Cells) -> cells.Cells:
    stage = _STAGE_NAMES.get(field(row, "stage").lower())
    if stage is None:
        raise RowError("stage", "unknown_stage", "expected normal, mci or dementia")
    context = field(row, "context")
    slots = {"context": context, "question": STAGE_QUESTION, "classes": list(STAGES)}
    return {
        "image": field(row, "image"),
        "question": FRAME.format(context=context, question=STAGE_QUESTION) if context else STAGE_QUESTION,
        "answer": stage,
        "task": "open",
        "kind": "stage",
        "slots": slots,
        "patient_id": field(row, "patient_id"),
        "split": field(row, "split"),
        "modality": "MR",
    }
