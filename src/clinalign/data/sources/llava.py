"""LLaVA's JSON (also LLaVA-Med's): a list of conversations, every exchange of which becomes an example.

    [{"id": "1", "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\n..."},
      {"from": "gpt", "value": "..."}]}, ...]

The exchanges of a conversation are taken apart: a later question that leans on an earlier one loses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from clinalign.data import cells, files, messages
from clinalign.data.cells import guarded
from clinalign.data.ingest import Item, ingest
from clinalign.data.messages import images_of, task_of, turns
from clinalign.data.options import DataOptions
from clinalign.data.sources.layout import field, kept
from clinalign.errors import RowError, UsageError
from clinalign.records import Example
from clinalign.storage import Quarantine, is_file, user_path


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """A file of conversations; image paths are relative to it. Raises `UsageError` for another file."""
    path = user_path(options.path)
    if not is_file(path):
        raise UsageError(f"data.path: {options.path}: no such file; source llava is a JSON or JSONL file")
    return ingest(_items(path), options, folder, quarantine, base=path.parent)


def _items(path: Path) -> Iterator[Item]:
    for number, row in files.raw_rows(path):
        if isinstance(row, RowError):
            yield Item(path.name, number, row)
            continue
        if number == 1 and not {"conversations", "conversatons", "messages"} & set(row):
            raise UsageError(f"{path}: no field 'conversations'; is it LLaVA's JSON?")
        found = guarded(partial(_turns, row, f"{path.stem}-{number}"), row)
        for turn in [found] if isinstance(found, RowError) else found:
            yield Item(path.name, number, turn)


def _turns(row: cells.Cells, name: str) -> list[cells.Cells]:
    """The exchanges of a row; one without an id goes by `name`. Each sees the images that were placed up to it; where
    no placeholder says which, it sees all.
    """
    talk = row.get("conversations") or row.get("conversatons") or row.get("messages")  # LLaVA-Med's pairs have the typo
    found = turns(talk, "conversations")
    images = images_of(row, [image for turn in found for image in turn.images]).get("images", [])
    placed = [messages.places(turn.question) for turn in found]
    messages.check_places(sum(placed), len(images), "conversations")
    given = field(row, "id") or field(row, "question_id") or (name if len(found) > 1 else "")
    meta = kept(row, "domain", "pair_id", "fig_caption", "answer_type")
    return [
        {
            "id": f"{given}-{number}" if len(found) > 1 else given,
            "images": images[: sum(placed[: number + 1])] if sum(placed) else images,
            "question": messages.without_places(turn.question),
            "answer": turn.answer,
            "split": field(row, "split"),
            "meta": {"turn": number} | meta,
        }
        | task_of(turn.answer)
        for number, turn in enumerate(found)
    ]
