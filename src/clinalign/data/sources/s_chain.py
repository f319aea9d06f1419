"""S-Chain (arXiv 2510.22728): brain MRI with a visual chain of thought of four steps, in 16 languages.

    leduckhai__S-Chain__LANGUAGE__{train,test}.jsonl, as the release's script exports the hub's data set
    llava_med_mri_bbox_{train,test}_CoT.json, the training files: {id, image, conversations: [{value}, {value}]}

The first has columns Q1 to A4, "Bbox coordinates normalized (X, Y, W, H)", "Patient ID", "Slide" and image; the second
holds the chain as one text, and some files spell the key `conversatons`. An example's `full` is the chain as chat
training wants it, its `answer` the label; boxes are x, y, w, h as shares of the image. The licence allows research and
forbids passing the images on, so nothing of it is shipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clinalign.data import cells
from clinalign.data.ingest import Item, ingest
from clinalign.data.options import DataOptions
from clinalign.data.sources.layout import field, items, root
from clinalign.errors import RowError, UsageError
from clinalign.records import Example
from clinalign.storage import Quarantine

LANGUAGES = {
    "en": "English", "fr": "French", "de": "German", "ja": "Japanese", "ko": "Korean", "zh": "Chinese",
    "pt": "Portuguese", "es": "Spanish", "it": "Italian", "nl": "Dutch", "ru": "Russian", "ar": "Arabic",
    "hi": "Hindi", "vi": "Vietnamese", "th": "Thai", "id": "Indonesian",
}  # fmt: skip
BOXES = "Bbox coordinates normalized (X, Y, W, H)"
PUBLISHED = {"train": 10_783, "test": 1_542}
FINAL = "+ Final answer:"
QUESTIONS = (
    "Where are the regions that matter?",
    "What do they show?",
    "How are they graded?",
    "Which class follows?",
)
_TALK = ("conversations", "conversatons")


def chain_text(steps: Sequence[tuple[str, str]], label: str) -> str:
    """Steps (question, answer) and the label in the layout of the training files."""
    lines = [f"- Step {n}: {question}\nAnswer: {answer}" for n, (question, answer) in enumerate(steps, 1)]
    return "\n".join(lines) + f"\n\n{FINAL} {label}"


def box_text(boxes: Sequence[Sequence[float]]) -> str:
    """Boxes x, y, w, h as shares of the image, two decimals, in a step's answer."""
    return "; ".join("[" + ", ".join(f"{number:.2f}" for number in box) + "]" for box in boxes)


def question_text(questions: Sequence[str]) -> str:
    """The prompt that asks for all four steps and the final answer."""
    asked = "\n".join(f"- Step {n}: {question}" for n, question in enumerate(questions, 1))
    return f"Look at the image and answer step by step.\n{asked}\nEnd with a line '{FINAL} <label>'."


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """Both layouts, the languages of `data.language`. Raises `UsageError` for a folder with neither."""
    base = root(options)
    wanted = LANGUAGES.values() if options.language == "all" else [LANGUAGES.get(options.language, options.language)]
    files = [f for name in wanted for f in sorted(base.rglob(f"*S-Chain__{name}__*.jsonl"))]
    talks = sorted(base.rglob("llava_med_mri_bbox_*_CoT.json"))
    if not files and not talks:
        names = f"*S-Chain__{next(iter(wanted))}__*.jsonl or llava_med_mri_bbox_*_CoT.json"
        raise UsageError(f"{base}: no {names}; export the hub's data set there, or set data.language")
    given = (item for file in files or talks for item in _items(file, exported=bool(files)))
    return ingest(given, options, folder, quarantine, base=base, published=PUBLISHED)


def _items(path: Path, *, exported: bool) -> Iterator[Item]:
    split = "test" if "test" in path.stem.lower().split("__")[-1].replace("_", " ").split() else "train"
    needed = ("Q4", "A4", "image") if exported else ("image", "|".join(_TALK))
    for item in items(path, needed, _exported if exported else _talk, group=split):
        if isinstance(item.row, dict):
            language = path.stem.split("__")[-2] if exported else ""
            identity = item.row.pop("number", "") or item.number
            name = f"s-chain-{language or path.stem}-{split}-{identity}"
            item = item._replace(row=item.row | {"id": name, "split": split})
        yield item


def _exported(row: cells.Cells) -> cells.Cells:
    """A row of the hub's data set: questions and answers in columns."""
    asked = [field(row, f"Q{n}") or default for n, default in enumerate(QUESTIONS, 1)]
    answers = [field(row, f"A{n}") for n in range(1, 5)]
    boxes = _numbers(row.get(BOXES))
    if boxes:
        answers[0] = box_text(boxes)
    empty = next((n for n, answer in enumerate(answers, 1) if not answer), 0)
    if empty:
        raise RowError(f"A{empty}", "missing_step", f"step {empty} has no answer")
    label = answers[3].strip(" .")
    image = row["image"]
    return {
        "image": image if isinstance(image, str) else image.get("path") or image.get("bytes"),
        "question": question_text(asked),
        "answer": label,
        "task": "open",
        "full": chain_text(list(zip(asked, answers, strict=True)), label),
        "kind": "s_chain",
        "patient_id": field(row, "Patient ID"),
        "modality": "MR",
        "number": "",
    }


def _talk(row: cells.Cells) -> cells.Cells:
    """A row of the training files: the chain is what the second turn says."""
    turns = next((row[name] for name in _TALK if row.get(name)), None)
    if not isinstance(turns, list) or len(turns) < 2 or not all(isinstance(turn, dict) for turn in turns[:2]):
        raise RowError("conversations", "bad_conversations", "expected two turns with a value each")
    question, chain = (cells.text(turn, "value", required=True) for turn in turns[:2])
    label = re.split(r"final answer\s*:", chain, flags=re.I)[-1].strip(" .\n")
    if label == chain.strip(" .\n") or not label or "\n" in label:
        raise RowError("conversations", "no_final_answer", f"the chain does not end with '{FINAL} <label>'")
    image = field(row, "image")
    known = re.search(r"OAS\d_\d+", image)
    return {
        "image": image,
        "question": question,
        "answer": label,
        "task": "open",
        "full": chain,
        "kind": "s_chain",
        "patient_id": known[0] if known else "",
        "modality": "MR",
        "number": field(row, "id"),
    }


def _numbers(cell: Any) -> list[list[float]]:
    """The boxes of a cell: nested lists, or text with four numbers a box."""
    if cell in (None, ""):
        return []
    flat = [float(n) for n in re.findall(r"-?\d*\.?\d+(?:e-?\d+)?", str(cell), re.I)]
    if not flat or len(flat) % 4:
        raise RowError("box", "unparsable_box", f"expected four numbers a box, got {len(flat)}")
    boxes = [flat[n : n + 4] for n in range(0, len(flat), 4)]
    for x, y, w, h in boxes:
        if not (0 <= x and 0 <= y and w > 0 and h > 0 and x + w <= 1.001 and y + h <= 1.001):
            raise RowError("box", "box_outside_image", "x, y, w, h as shares of the image do not lie in it")
    return boxes
