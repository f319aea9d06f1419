"""EH-Benchmark (arXiv 2507.22929): ophthalmic multiple-choice questions in a taxonomy, four or five options each.

    *.json: [{"id": "images/NAME.jpg", "question": "stem\\nA. ...\\nB. ...", "answer": "B"}] + images/

The id is the path of the image. A file's name says which subclass its questions belong to (`SUBCLASSES`). The published
distractors are drawn without a seed, so a set is known by `items_hash`, and two of its files list their options in one
fixed order, in which the letter is the grade: options are always shuffled here by `data.seed`, and the fixed order is
kept as `fixed_order` to be reported beside it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from clinalign.data.cells import Cells
from clinalign.data.ingest import ingest
from clinalign.data.options import DataOptions
from clinalign.data.sources.layout import field, items, root
from clinalign.data.sources.multiple_choice import LETTERS, multiple_choice
from clinalign.errors import RowError, UsageError
from clinalign.records import Example
from clinalign.storage import Quarantine, key_of

VISUAL, LOGICAL = "Visual Understanding", "Logical Composition"
LOCALISATION, RECOGNITION = "lesion localisation", "disease recognition"
GRADING, GLAUCOMA, OTHER = "retinopathy grading", "glaucoma category", "other"
TAXONOMY = {LOCALISATION: VISUAL, RECOGNITION: VISUAL, GRADING: LOGICAL, GLAUCOMA: LOGICAL, OTHER: VISUAL}
"""Subclass -> class of the taxonomy. The subclasses are those that the data builders show; the paper's own names are
not known."""
SUBCLASSES = (
    (r"exudate|idrid|fgadr", LOCALISATION),
    (r"dr_?grade|retinal.?lesions", GRADING),
    (r"grape|papila|g1020|g1210|les.?av|glaucoma", GLAUCOMA),
    (r"odir|octdl|oct5k|oimhs|classification", RECOGNITION),
)
"""Pattern in a file's name -> subclass; the first that is found."""
FIXED_ORDER = re.compile(r"dr_?grade|grape", re.I)
"""Files whose options stand in one order in every question."""
DISTRACTORS = 4
_LETTERED = re.compile(r"^\s*([A-H])[.):]\s*(.+?)\s*$")
_EYE = re.compile(r"\b(OD|OS)\b|\b(right|left) eye\b", re.I)


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """All question files of a folder. Raises `UsageError` for a folder without any."""
    base = root(options)
    files = sorted(base.glob("*.json")) or sorted(base.glob("*/*.json"))
    if not files:
        raise UsageError(f"{base}: no question files (*.json); give the folder that holds them and images/")
    given = (
        item
        for file in files
        for item in items(file, ("id", "question", "answer"), _Converter(file.stem, options.seed), group=file.name)
    )
    return ingest(given, options, folder, quarantine, base=base)


def subclass_of(name: str) -> str:
    """The subclass that a file's name tells; "other" where it tells none."""
    return next((subclass for pattern, subclass in SUBCLASSES if re.search(pattern, name, re.I)), OTHER)


def lettered_question(stem: str, gold: str, wrong: Sequence[str], key: str, *, distractors: int = DISTRACTORS) -> Cells:
    """A question whose distractors are drawn from the wrong options and shuffled in, all by `key` (seed and item).

    The gold answer is never among the distractors, nor an option twice. Raises `RowError` for too few wrong options.
    """
    pool = sorted({text for text in wrong if text.strip().lower() != gold.strip().lower()})
    if len(pool) < distractors:
        raise RowError("options", "bad_options", f"{len(pool)} wrong options for {distractors} distractors")
    rng = random.Random(f"eh/{key}")
    chosen = [*rng.sample(pool, distractors), gold]
    rng.shuffle(chosen)
    return multiple_choice(stem, chosen, LETTERS[chosen.index(gold)])


def shuffled(stem: str, options: Sequence[str], gold: str, key: str) -> Cells:
    """The question with its own options in another order, by `key`."""
    order = sorted(options)
    random.Random(f"eh/{key}").shuffle(order)
    return multiple_choice(stem, order, LETTERS[order.index(gold)])


def items_hash(examples: Iterable[Example]) -> str:
    """Hash of what was asked: every item's id, options in their order and gold letter."""
    return key_of(sorted([example.id, example.options, example.answer] for example in examples))


class _Converter:
    def __init__(self, stem: str, seed: int) -> None:
        self.stem, self.seed = stem, seed
        self.subclass, self.fixed = subclass_of(stem), bool(FIXED_ORDER.search(stem))

    def __call__(self, row: Cells) -> Cells:
        image, question, answer = field(row, "id"), field(row, "question"), field(row, "answer").strip().upper()
        lines = question.strip().splitlines()
        found = [m for line in lines if (m := _LETTERED.match(line))]
        if [m[1] for m in found] != list(LETTERS[: len(found)]) or len(found) < 2:
            raise RowError("question", "bad_options", "options are lines 'A. ...', 'B. ...' in order")
        if answer not in LETTERS[: len(found)] or len(answer) != 1:
            raise RowError("answer", "answer_not_an_option", "the answer is the letter of an option")
        stem = "\n".join(line for line in lines if not _LETTERED.match(line)).strip()
        texts = [m[2] for m in found]
        if len({text.lower() for text in texts}) < len(texts):
            raise RowError("question", "bad_options", "an option stands there twice")
        made = shuffled(stem, texts, texts[LETTERS.index(answer)], f"{self.seed}/{image}/{stem}")
        return made | {
            "image": image,
            "modality": modality(self.stem),
            "split": "test",
            "kind": self.subclass,
            "slots": {"taxonomy": TAXONOMY[self.subclass]},
            "laterality": laterality(question),
            "fixed_order": texts if self.fixed else [],
        }


def laterality(text: str) -> str:
    """The eye that a text names: OD (right), OS (left), or "" where it names none or both."""
    named = {"OD" if m[0].lower() in ("od", "right eye") else "OS" for m in _EYE.finditer(text)}
    return named.pop() if len(named) == 1 else ""


def modality(name: str) -> str:
    """OCT where the file's name says so, fundus photograph otherwise."""
    return "OCT" if re.search(r"oct|oimhs", name, re.I) else "fundus"
