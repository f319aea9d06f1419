"""Multiple-choice sets: PMC-VQA (arXiv 2305.10415), figures of PubMed Central, and OmniMedVQA (arXiv 2402.09181).

    train.csv test.csv test_clean.csv + images/ (PMC-VQA, version 1), train_2.csv test_2.csv + images_2/ or figures/ (2)
    OmniMedVQA/QA_information/Open-access/*.json (and Restricted-access) + Images/...

PMC-VQA names the right option in `Answer_label` (version 1) or `Answer` (2). test.csv holds test_clean.csv: where the
clean one is there, the other is not read. Version 2 is read only where version 1 is not there. OmniMedVQA is questions
out of 73 data sets, for evaluation and without splits: images are assigned by `data.splits`; {test: 1} keeps it so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from clinalign.data import cells
from clinalign.data.ingest import ingest
from clinalign.data.options import DataOptions
from clinalign.data.sources.layout import field, first, items, kept, root
from clinalign.errors import RowError, UsageError
from clinalign.records import Example
from clinalign.storage import Quarantine

LETTERS = "ABCDEFGH"
PMC_PUBLISHED = {
    "train.csv": 176_948,
    "test.csv": 50_000,
    "test_clean.csv": 2_000,
    "train_2.csv": 152_603,
    "test_2.csv": 33_430,
}
VERSIONS = (
    ({"train.csv": "train", "test_clean.csv": "test", "test.csv": "test"}, ("images", "figures")),
    ({"train_2.csv": "train", "test_2.csv": "test"}, ("images_2", "figures", "images")),
)
PMC_FIELDS = ("Figure_path", "Question", "Choice A", "Choice B", "Answer|Answer_label")


def read_pmc_vqa(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """One version of the set. Raises `UsageError` for a folder with neither."""
    base = root(options)
    for names, images in VERSIONS:
        files = [base / name for name in names if (base / name).is_file()]
        if base / "test_clean.csv" in files:
            files = [file for file in files if file.name != "test.csv"]
        if files:
            given = (item for file in files for item in items(file, PMC_FIELDS, _PMCRow(names[file.name], file.stem)))
            where = next((base / name for name in images if (base / name).is_dir()), base)
            return ingest(given, options, folder, quarantine, base=where, published=PMC_PUBLISHED)
    raise UsageError(f"{base}: no train.csv, test.csv or train_2.csv; give the folder of PMC-VQA")


class _PMCRow:
    def __init__(self, split: str, stem: str) -> None:
        self.split, self.stem = split, stem

    def __call__(self, row: cells.Cells) -> cells.Cells:
        choices = [field(row, f"Choice {letter}") for letter in "ABCD" if f"Choice {letter}" in row]
        answer = field(row, "Answer_label") or field(row, "Answer")
        made = multiple_choice(field(row, "Question"), choices, answer)
        meta = made["meta"] | kept(row, "Caption")
        number = field(row, "index")
        given = {"id": f"pmc-vqa-{self.stem}-{number}"} if number else {}
        return made | given | {"image": field(row, "Figure_path"), "split": self.split, "meta": meta}


OMNIMED_PUBLISHED = {"Open-access": 88_996}
OMNIMED_FIELDS = ("question", "gt_answer", "image_path", "option_A")


def read_omnimed_vqa(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """All question files, or those of `data.subset`. Raises `UsageError` for a folder without any."""
    info = first(root(options), "QA_information", "*/QA_information", what="give the folder OmniMedVQA")
    files = sorted(info.glob(f"{options.subset or '*'}/*.json")) or sorted(info.glob("*.json"))
    if not files:
        raise UsageError(f"{info}: no question files below {options.subset or 'it'}; check data.subset")
    given = (
        item
        for file in files
        for item in items(
            file, OMNIMED_FIELDS, _omnimed_row, group=file.parent.name, file=f"{file.parent.name}/{file.name}"
        )
    )
    return ingest(given, options, folder, quarantine, base=info.parent, published=OMNIMED_PUBLISHED)


def _omnimed_row(row: cells.Cells) -> cells.Cells:
    choices = [field(row, f"option_{letter}") for letter in "ABCDEF" if field(row, f"option_{letter}")]
    made = multiple_choice(field(row, "question"), choices, field(row, "gt_answer"))
    return made | {
        "id": field(row, "question_id"),
        "image": field(row, "image_path"),
        "modality": field(row, "modality_type") or field(row, "modality"),
        "meta": made["meta"] | kept(row, "dataset", "question_type"),
    }


def multiple_choice(question: str, options: list[str], answer: str) -> cells.Cells:
    """Question with lettered options, one a line, and the letter of the right one as the answer.

    `answer` is a letter or the text of an option, either with the letter in front ("B:text") or not. Raises `RowError`
    where it is neither, and for fewer than two options.
    """
    texts = [_without_letter(text, letter) for letter, text in zip(LETTERS, options)]
    if len(texts) < 2 or not all(texts):
        raise RowError("answer", "bad_options", "a multiple-choice question needs at least two options, none empty")
    for name, value in (("question", question), ("answer", answer)):
        if not value:
            raise RowError(name, f"empty_{name}", "fill the cell or delete the row")
    spoken = {text.lower(): letter for letter, text in reversed(list(zip(LETTERS, texts)))}
    named = {f"{letter.lower()}:{text}": letter for text, letter in spoken.items()}
    letters = {letter.lower(): letter for letter in LETTERS[: len(texts)]}
    said = answer.strip().lower()
    letter = (
        spoken.get(said) or named.get(re.sub(r"^([a-h])\s*[:)]\s*", r"\1:", said)) or letters.get(said.rstrip(".:) "))
    )
    if letter is None:
        raise RowError("answer", "answer_not_an_option", "the answer is none of the options")
    listed = "\n".join(f"{name}. {text}" for name, text in zip(LETTERS, texts))
    meta = {"answer_text": texts[LETTERS.index(letter)]}
    asked = f"{question.strip()}\n{listed}"
    return {"question": asked, "answer": letter, "task": "closed", "options": texts, "meta": meta}


def _without_letter(text: str, letter: str) -> str:
    return re.sub(rf"^\s*{letter}\s*[:)]\s*", "", text).strip()
