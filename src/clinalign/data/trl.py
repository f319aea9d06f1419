"""TRL's data sets: preferences (prompt, chosen, rejected), with or without the prompt in both sides, plain or as
messages, and prompt-completion or conversations; with `images` or `image`.

    {"prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "..."}]}],
     "chosen": [{"role": "assistant", "content": "..."}], "rejected": [...], "images": ["a.png"]}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clinalign.data import rows
from clinalign.data.conversations import Said, Turn, answer_of, images_of, preference, said, task_of, turns
from clinalign.data.ingest import ingest
from clinalign.data.layout import field, items
from clinalign.data.options import DataOptions
from clinalign.errors import RowError
from clinalign.records import Example
from clinalign.storage import Quarantine, user_path

FIELDS = ("chosen|completion|messages",)


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """A JSON, JSONL or Parquet file. Raises `UsageError` for a file without TRL's columns."""
    path = user_path(options.path)
    return ingest(items(path, FIELDS, _convert), options, folder, quarantine, base=path.parent)


def _convert(row: rows.Row) -> rows.Row:
    common = {"id": field(row, "id"), "split": field(row, "split")}
    if row.get("chosen") is not None:
        turn = _exchange(row.get("prompt"), row["chosen"], "chosen")
        rejected = _exchange(row.get("prompt"), row.get("rejected"), "rejected").answer
        return preference(turn.question, turn.answer, rejected) | common | images_of(row, turn.images)
    if row.get("completion") is not None:
        turn = _exchange(row.get("prompt"), row["completion"], "completion")
    else:
        turn = _only(turns(row.get("messages"), "messages"), "messages")
    return (
        {"question": turn.question, "answer": turn.answer} | task_of(turn.answer) | common | images_of(row, turn.images)
    )


def _exchange(prompt: Any, side: Any, name: str) -> Turn:
    """The question and one side; a side without a prompt of its own holds the question as its first message."""
    if side is None:
        raise RowError(name, f"empty_{name}", "fill it or delete the row")
    if not isinstance(side, str | list) or not side:
        raise RowError(name, f"bad_{name}", "expected a text or a list of messages")
    if isinstance(side, list) and prompt is None:
        return _only(turns(side, name), name)
    if isinstance(side, list) and len(side) > 1:
        raise RowError(name, "several_turns", "one answer a side; split the conversation")
    asked = _asked(prompt)
    return Turn(asked.text, answer_of(side if isinstance(side, str) else side[0], name), asked.images)


def _only(found: list[Turn], name: str) -> Turn:
    if len(found) > 1:
        raise RowError(name, "several_turns", "one question and one answer a row; split the conversation")
    return found[0]


def _asked(prompt: Any) -> Said:
    """A prompt: a text, or its only user message."""
    if not isinstance(prompt, list):
        return said(prompt, "prompt")
    asked = [message for message in prompt if isinstance(message, dict) and message.get("role") != "system"]
    if len(asked) != 1:
        raise RowError("prompt", "several_turns", "one question a row; split the conversation")
    return said(asked[0], "prompt")
