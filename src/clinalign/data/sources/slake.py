"""SLAKE 1.0 (arXiv 2102.09542): bilingual questions on CT, MR and X-ray, organs and diseases outlined.

    Slake1.0/train.json validate.json test.json mask.txt
    Slake1.0/imgs/xmlab1/source.jpg mask.png detection.json

A question's regions are those outlined labels that its question or answer names, diseases before organs, labels of the
answer first. `mask.png` holds one number a label (mask.txt), `detection.json` boxes [x, y, w, h].
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from clinalign.data import cells
from clinalign.data.ingest import Filtered, ingest
from clinalign.data.options import DataOptions
from clinalign.data.sources.layout import field, first, items, kept, root
from clinalign.errors import RowError, UsageError
from clinalign.records import Example
from clinalign.storage import Quarantine, parse_json, read_text

PUBLISHED = {
    "en": {"train.json": 4919, "validate.json": 1053, "validation.json": 1053, "test.json": 1061},
    "zh": {"train.json": 4916, "validate.json": 1046, "validation.json": 1046, "test.json": 1033},
    "all": {"train.json": 9835, "validate.json": 2099, "validation.json": 2099, "test.json": 2094},
}
SPLITS = {"train.json": "train", "validate.json": "val", "validation.json": "val", "test.json": "test"}
FIELDS = ("img_name", "question", "answer", "q_lang")
DISEASE = re.compile(
    r"cancer|tumou?r|edema|effusion|pneumon|pneumothorax|nodule|mass|atelectasis|infiltrat|cardiomegaly|lesion|disease"
    r"|consolidation|fibrosis|emphysema|thickening|hernia",
    re.IGNORECASE,
)


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """The three splits as published; questions in other languages than `data.language` are filtered and counted.

    Raises `UsageError` for a folder without the question files.
    """
    base = first(root(options), "train.json", "*/train.json", "test.json", what="give the folder Slake1.0").parent
    files = [base / name for name in SPLITS if (base / name).is_file()]
    labels = _labels(base / "mask.txt")
    given = (item for file in files for item in items(file, FIELDS, _Converter(base, file.name, options, labels)))
    published = PUBLISHED.get(options.language, {})
    return ingest(given, options, folder, quarantine, base=base / "imgs", published=published)


class _Converter:
    """One file's rows into ours."""

    def __init__(self, base: Path, file: str, options: DataOptions, labels: dict[str, int]) -> None:
        self.imgs, self.split, self.language, self.labels = base / "imgs", SPLITS[file], options.language, labels

    def __call__(self, row: cells.Cells) -> cells.Cells | Filtered:
        language = field(row, "q_lang")
        if self.language not in ("all", language):
            return Filtered(f"q_lang {language or 'empty'}")
        image, number = field(row, "img_name"), field(row, "qid")
        text = (field(row, "question"), field(row, "answer"))
        return {
            "id": f"slake-{number}" if number else "",
            "image": image,
            "question": text[0],
            "answer": text[1],
            "task": "closed" if field(row, "answer_type").upper() == "CLOSED" else "open",
            "split": self.split,
            "modality": field(row, "modality"),
            "regions": self._regions(image, text),
            "meta": kept(row, "location", "content_type", "base_type", "triple", "q_lang"),
        }

    def _regions(self, image: str, text: tuple[str, str]) -> list[dict[str, Any]]:
        folder = Path(image).parent
        boxes = _boxes(self.imgs / folder / "detection.json")
        mask = str(folder / "mask.png") if (self.imgs / folder / "mask.png").is_file() else ""
        named = [label for label in {**boxes, **(self.labels if mask else {})} if _mentioned(label, *text)]
        out = []
        for label in sorted(named, key=lambda name: _rank(name, *text)):
            inside = {"mask": mask, "mask_value": self.labels[label]} if mask and label in self.labels else {}
            there: list[list[float] | None] = [*boxes.get(label, [])]
            for box in there or [None]:
                out.append({"label": label, "box": box, "optional": True} | inside)
        return out


def _rank(label: str, question: str, answer: str) -> tuple[bool, bool]:
    return (not DISEASE.search(label), not _says(label, answer))


def _mentioned(label: str, question: str, answer: str) -> bool:
    return _says(label, question) or _says(label, answer)


def _says(label: str, text: str) -> bool:
    """Whether a text names a label. One of a pair ("Left Lung") is meant, too, where no side is said at all."""
    words = text.lower()
    whole = label.lower()
    side = whole.split()[0] if whole.split()[0] in ("left", "right") else ""
    if re.search(rf"\b{re.escape(whole)}(s|es)?\b", words):
        return True
    organ = whole.removeprefix(side).strip()
    sided = re.search(r"\b(left|right)\b", words)
    return bool(side and not sided and re.search(rf"\b{re.escape(organ)}(s|es)?\b", words))


@lru_cache(maxsize=64)
def _boxes(path: Path) -> dict[str, list[list[float]]]:
    """Boxes by label: [{"Liver": [x, y, w, h]}, ...]; no file, no boxes."""
    if not path.is_file():
        return {}
    try:
        listed = parse_json(read_text(path))
        pairs = [pair for entry in (listed if isinstance(listed, list) else [listed]) for pair in entry.items()]
    except (ValueError, AttributeError) as error:
        raise RowError("box", "unparsable_box", f"detection.json is damaged ({type(error).__name__})") from error
    out: dict[str, list[list[float]]] = {}
    for label, box in ((str(label).strip(), box) for label, box in pairs if str(label).strip()):
        many = box if isinstance(box, list) and box and isinstance(box[0], list) else [box]
        out.setdefault(label, []).extend(b for one in many if (b := cells.box({"box": one})))
    return out


def _labels(path: Path) -> dict[str, int]:
    """mask.txt: one "70:Liver" a line."""
    if not path.is_file():
        return {}
    out = {}
    for number, line in enumerate(_lines(path), 1):
        value, colon, label = line.strip().partition(":")
        if line.strip() and not (colon and re.fullmatch(r"\s*[0-9]{1,9}\s*", value)):
            raise UsageError(f"{path}:{number}: expected a number and a label such as 70:Liver")
        if line.strip():
            out[label.strip()] = int(value)
    return out


def _lines(path: Path) -> list[str]:
    try:
        return read_text(path).split("\n")
    except UnicodeError as error:
        raise UsageError(f"{path}: not UTF-8; download it again") from error
