"""A row of any source under our column names, typed: every cell is parsed here, once, before a file is read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from clinalign.data import cells
from clinalign.data.cells import Cells, ImageCell
from clinalign.data.messages import check_places, places, refuse_places, without_places
from clinalign.errors import RowError, UsageError
from clinalign.imaging.pixels import file_window, parse_window

PLACEHOLDER = re.compile(r"XXXX|_{3,}")
"""What public reports hold where a name, a date or a number was taken out: OpenI writes XXXX, MIMIC-CXR ___."""


class Filtered(NamedTuple):
    """A row that is left out because the settings say so: counted, and no error."""

    why: str


class Item(NamedTuple):
    """A row under our column names, or why there is none; `number` counts from 1 in the file. Rows are counted by
    `group`, the file where it is empty. `part` tells questions of one row apart. `meta` in a row is kept as it is."""

    file: str
    number: int
    row: Cells | RowError | Filtered
    group: str = ""
    part: str = ""


@dataclass(slots=True)
class Row:
    """The parsed cells of a row; empty where there is no cell.

    `images` are paths or bytes; `regions` dicts of label, box, mask, and, where they differ from the row's, mask_value
    and optional; `cut` counts the sentences of a report that were taken out; `cells` is what was parsed.
    """

    cells: Cells
    question: str
    answer: str
    task: str
    cut: int
    split: str
    id: str
    images: list[ImageCell]
    patient_id: str
    modality: str
    window: str
    frame: int | None
    mask: str
    mask_value: int | None
    regions: list[dict[str, Any]]
    finding: str
    slot: str
    kind: str
    prior: str
    full: str
    slots: dict[str, Any]
    rejected: str
    counterfactual: str
    laterality: str
    options: list[str] = field(default_factory=list)
    fixed_order: list[str] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)


def parse_row(row: Cells) -> Row:
    """The row of some cells. Raises `RowError` for the first that does not hold what its column says."""
    question = cells.text(row, "question", required=True)
    answer = cells.text(row, "answer", required=True)
    task = cells.choice(row, "task", {name: name for name in cells.TASKS}) or _task(answer)
    answer, cut = without_placeholders(answer, task)
    images, rejected = cells.paths(row), cells.text(row, "rejected")
    check_places(places(question), len(images), "question")
    for name, value in (("question", question), ("answer", answer), ("rejected", rejected)):
        refuse_places(value, name)
    question = without_places(question)
    if not question:
        raise RowError("question", "empty_question", "it holds nothing but the place of an image")
    texts = ("id", "patient_id", "modality", "mask", "finding", "slot", "kind", "full", "counterfactual", "laterality")
    return Row(
        cells=row,
        question=question,
        answer=answer,
        task=task,
        cut=cut,
        split=cells.choice(row, "split", cells.SPLITS),
        images=images,
        window=_window(row),
        frame=cells.whole_number(row, "frame", 0) if cells.text(row, "frame") else None,
        mask_value=cells.label_value(row),
        regions=_regions(row),
        prior=cells.choice(row, "prior", {name: name for name in cells.PRIORS}),
        slots=cells.slots(row),
        rejected=rejected,
        options=row.get("options") or [],
        fixed_order=row.get("fixed_order") or [],
        meta=cells.plain(row["meta"], "meta") if isinstance(row.get("meta"), dict) else {},
        **{name: cells.text(row, name) for name in texts},
    )


def _task(answer: str) -> str:
    """Without a task column: yes, no and a single letter are closed, anything else is open."""
    word = answer.strip(" .").lower()
    return "closed" if word in ("yes", "no") or (len(word) == 1 and word.isalpha()) else "open"


def _regions(row: Cells) -> list[dict[str, Any]]:
    """The row's regions, or the one of its mask and box."""
    box, mask = cells.box(row), cells.text(row, "mask")
    label = cells.text(row, "label") or cells.text(row, "finding") or "region"
    own = [{"box": box, "mask": mask, "label": label}] if box or mask else []
    return row.get("regions") or own


def _window(row: Cells) -> str:
    """The row's own window, checked here so that a bad one costs the row and not the run."""
    window = cells.text(row, "window")
    if not window or window == "auto" or file_window(window) is not None:
        return window
    try:
        parse_window(window)
    except UsageError as error:
        detail = f"{cells.described(window)} is no window: auto, file:N, a name such as lung, or low/high"
        raise RowError("window", "unknown_window", detail) from error
    return window


def without_placeholders(answer: str, task: str) -> tuple[str, int]:
    """A report without the sentences that hold a placeholder, and how many those were.

    Raises `RowError` for a report of which nothing is left, and for any other answer with a placeholder: a model must
    not learn to say one, and the words around it cannot be trusted.
    """
    if not PLACEHOLDER.search(answer):
        return answer, 0
    if task != "report":
        raise RowError("answer", "placeholder", "the answer holds XXXX or ___ where something was taken out")
    sentences = [s for s in re.split(r"(?<=[.!?])\s+|\n{2,}", answer) if s.strip()]
    whole = [s for s in sentences if not PLACEHOLDER.search(s)]
    if not any(len(s.split()) > 1 for s in whole):
        raise RowError("answer", "placeholder", "every sentence of the report holds XXXX or ___")
    return " ".join(whole), len(sentences) - len(whole)
