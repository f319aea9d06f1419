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
from clinalign.data.conversations import images_of, preference, said, task_of, turns
from clinalign.data.ingest import ingest
from clinalign.data.layout import field, items, plain_question
from clinalign.data.options import DataOptions
from clinalign.errors import RowError
from clinalign.records import Example
from clinalign.storage import Quarantine

FIELDS = ("chosen|completion|messages",)


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """A JSON, JSONL or Parquet file. Raises `UsageError` for a file without TRL's columns."""
    path = Path(options.path).expanduser()
    return ingest(items(path, FIELDS, _convert), options, folder, quarantine, base=path.parent)


def _convert(row: rows.Row) -> rows.Row:
    common = images_of(row) | {"id": field(row, "id"), "split": field(row, "split")}
    if row.get("chosen") is not None:
        question, chosen = _exchange(row.get("prompt"), row["chosen"], "chosen")
        _, rejected = _exchange(row.get("prompt"), row.get("rejected"), "rejected")
        return preference(question, chosen, rejected) | common
    if row.get("completion") is not None:
        question, answer = _exchange(row.get("prompt"), row["completion"], "completion")
    else:
        [(question, answer), *more] = turns(row.get("messages"), "messages")
        if more:
            raise RowError("messages", "several_turns", "one question and one answer a row; split the conversation")
    return {"question": question, "answer": answer} | task_of(answer) | common


def _exchange(prompt: Any, side: Any, name: str) -> tuple[str, str]:
    """The question and one side; a side without a prompt of its own holds the question as its first message."""
    if side is None:
        raise RowError(name, f"empty_{name}", "fill it or delete the row")
    if isinstance(side, str):
        return plain_question(_last(prompt)), rows.text({name: side}, name)
    if not isinstance(side, list) or not side:
        raise RowError(name, f"bad_{name}", "expected a text or a list of messages")
    if prompt is None:
        [(question, answer), *more] = turns(side, name)
        if more:
            raise RowError(name, "several_turns", "one question and one answer a row; split the conversation")
        return question, answer
    return plain_question(_last(prompt)), said(side[-1], name)


def _last(prompt: Any) -> str:
    """The text of a prompt: itself, or its only user message."""
    if not isinstance(prompt, list):
        return said(prompt, "prompt")
    asked = [message for message in prompt if isinstance(message, dict) and message.get("role") != "system"]
    if len(asked) != 1:
        raise RowError("prompt", "several_turns", "one question a row; split the conversation")
    return said(asked[0], "prompt")
