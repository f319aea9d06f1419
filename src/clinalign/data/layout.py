"""What the readers of published data sets share: finding files, checking that they are what they should be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from clinalign.data import rows
from clinalign.data.border import guarded
from clinalign.data.ingest import Filtered, Item
from clinalign.data.options import DataOptions
from clinalign.errors import RowError, UsageError
from clinalign.storage import is_file, user_path

Convert = Callable[[rows.Row], "rows.Row | Filtered"]
LETTERS = "ABCDEFGH"


def root(options: DataOptions) -> Path:
    """The folder of the data set. Raises `UsageError` where there is none."""
    folder = user_path(options.path)
    if not folder.is_dir():
        raise UsageError(f"data.path: {options.path}: no such folder; source {options.source} is a folder")
    return folder


def first(folder: Path, *patterns: str, what: str) -> Path:
    """The first file or folder below `folder` that a glob pattern finds, patterns in their order."""
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
    raise UsageError(f"{folder}: no {' or '.join(patterns)}; {what}")


def items(path: Path, needed: Iterable[str], convert: Convert, *, group: str = "", file: str = "") -> Iterator[Item]:
    """The rows of a file, each through `convert`, which gives our columns or raises `RowError`.

    `needed` fields may have aliases: "Answer|Answer_label". Raises `UsageError` when the first row has none of all
    these fields: the file is another one.
    """
    name = file or path.name
    if not is_file(path):
        raise UsageError(f"{path}: no such file; check data.path")
    fields = [tuple(names.split("|")) for names in needed]
    number = 0
    for number, row in rows.raw_rows(path):
        made: rows.Row | RowError | Filtered = row
        if not isinstance(row, RowError):
            if number == 1 and not any(alias in row for names in fields for alias in names):
                there = rows.listed(path, row)
                raise UsageError(f"{path}: no field '{fields[0][0]}'; {there}. Is it the right file?")
            made = guarded(partial(_converted, row, fields, convert), row)
        yield Item(name, number, made, group)
    if number == 0:
        raise UsageError(f"{path}: no rows; is it the right file?")


def _converted(row: rows.Row, fields: list[tuple[str, ...]], convert: Convert) -> rows.Row | Filtered:
    missing = next((names for names in fields if not any(alias in row for alias in names)), None)
    if missing:
        raise RowError(missing[0], "missing_field", f"the row has no {' or '.join(missing)}")
    return convert(row)


def multiple_choice(question: str, options: list[str], answer: str) -> rows.Row:
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


def field(row: rows.Row, name: str) -> str:
    """A field as text; a missing one is empty."""
    return rows.text(row, name)


def kept(row: rows.Row, *names: str) -> dict[str, Any]:
    """Those of the fields that hold something, for `meta`."""
    return {name: row[name] for name in names if row.get(name) not in (None, "", [])}
