"""LLaVA's JSON (also LLaVA-Med's): a list of conversations, every exchange of which becomes an example.

    [{"id": "1", "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\n..."},
      {"from": "gpt", "value": "..."}]}, ...]

The exchanges of a conversation are taken apart: a later question that leans on an earlier one loses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clinalign.data import rows
from clinalign.data.conversations import images_of, task_of, turns
from clinalign.data.ingest import Item, ingest
from clinalign.data.layout import field, kept
from clinalign.data.options import DataOptions
from clinalign.errors import RowError, UsageError
from clinalign.records import Example
from clinalign.storage import Quarantine


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """A file of conversations; image paths are relative to it. Raises `UsageError` for another file."""
    path = Path(options.path).expanduser()
    if not path.is_file():
        raise UsageError(f"data.path: {options.path}: no such file; source llava is a JSON or JSONL file")
    return ingest(_items(path), options, folder, quarantine, base=path.parent)


def _items(path: Path) -> Iterator[Item]:
    for number, row in rows.raw_rows(path):
        if isinstance(row, RowError):
            yield Item(path.name, number, row)
            continue
        if number == 1 and not {"conversations", "conversatons", "messages"} & set(row):
            raise UsageError(f"{path}: no field 'conversations'; is it LLaVA's JSON?")
        try:
            yield from (Item(path.name, number, turn) for turn in _turns(row))
        except RowError as error:
            yield Item(path.name, number, error)


def _turns(row: rows.Row) -> Iterator[rows.Row]:
    talk = row.get("conversations") or row.get("conversatons") or row.get("messages")  # LLaVA-Med's pairs have the typo
    found = turns(talk, "conversations")
    images = images_of(row)
    given = field(row, "id") or field(row, "question_id")
    for turn, (question, answer) in enumerate(found):
        name = f"{given}-{turn}" if given and len(found) > 1 else given
        yield (
            {
                "id": name,
                "question": question,
                "answer": answer,
                "split": field(row, "split"),
                "meta": {"turn": turn} | kept(row, "domain", "pair_id", "fig_caption", "answer_type"),
            }
            | images
            | task_of(answer)
        )
