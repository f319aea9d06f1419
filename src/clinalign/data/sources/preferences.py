"""Preference files as sources, in the formats of `data/preferences.py`: the chosen answer is the truth, the rejected
one travels beside it, for `pair.editor: dataset`. TRL's files of prompts and completions, or of conversations, too.

    data/slake_dpo_weighted.json: [{"id", "image", "conversations", "rejected_conversations", "weighted_score"}, ...]
    RRPO: [{"question", "answer", "pred", "answer_masked", "pred_masked", "src", "sample_id", "image" | "images"}, ...]
    TRL: {"prompt": [...], "chosen": [...], "rejected": [...], "images": ["a.png"]}, ...

Images of MMedPO are those of the underlying set: name their folder in `data.images`. The authors' own RRPO data are
videos, which are not read: such rows go to the quarantine. Spans are found anew when pairs are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from clinalign.data import preferences
from clinalign.data.cells import Cells
from clinalign.data.ingest import ingest
from clinalign.data.messages import Turn, answer_of, images_of, messages_of, task_of, turns
from clinalign.data.options import DataOptions
from clinalign.data.sources.layout import Convert, field, items, kept
from clinalign.errors import RowError
from clinalign.records import Example
from clinalign.storage import Quarantine, user_path

PUBLISHED = {
    "iuxray_dpo_weighted.json": 2069,
    "mimic_dpo_weighted.json": 800,
    "slake_dpo_weighted.json": 4919,
    "vqa-rad_dpo_weighted.json": 1797,
}


def read_mmedpo(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """One file. Raises `UsageError` for a file that is none of these."""
    fields = ("conversations", "rejected_conversations")
    return _read(options, folder, quarantine, fields, _mmedpo_row, PUBLISHED)


def read_rrpo(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """One file. Raises `UsageError` for a file that is none of these."""
    return _read(options, folder, quarantine, ("question", "answer|answer_masked", "pred|pred_masked"), _rrpo_row)


def read_trl(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """A JSON, JSONL or Parquet file. Raises `UsageError` for a file without TRL's columns."""
    return _read(options, folder, quarantine, ("chosen|completion|messages",), _trl_row)


def _read(
    options: DataOptions,
    folder: Path,
    quarantine: Quarantine,
    fields: tuple[str, ...],
    convert: Convert,
    published: Mapping[str, int] | None = None,
) -> Iterator[Example]:
    path = user_path(options.path)
    rows = items(path, fields, convert)
    return ingest(rows, options, folder, quarantine, base=path.parent, published=published)


def _mmedpo_row(row: Cells) -> Cells:
    made = preferences.read_mmedpo(row).cells()
    return made | {"id": field(row, "id"), "meta": kept(row, "weighted_score")}


def _rrpo_row(row: Cells) -> Cells:
    marked = {
        f"{name}_phrases": [phrase.strip() for phrase in preferences.MARKED.findall(field(row, f"{name}_masked"))]
        for name in ("answer", "pred")
    }
    meta = {name: phrases for name, phrases in marked.items() if phrases} | kept(row, "src")
    name = field(row, "sample_id") or field(row, "id")
    return preferences.read_rrpo(row).cells() | {"id": name, "meta": meta}


def _trl_row(row: Cells) -> Cells:
    common = {"id": field(row, "id"), "split": field(row, "split")}
    if row.get("chosen") is not None:
        return preferences.read_trl(row).cells() | common
    turn = _completion(row) if row.get("completion") is not None else _only(turns(row.get("messages"), "messages"))
    images = images_of(row, turn.images)
    return {"question": turn.question, "answer": turn.answer} | task_of(turn.answer) | common | images


def _completion(row: Cells) -> Turn:
    """A prompt and its completion, texts or messages; a completion without a prompt holds it as its first message."""
    side = row["completion"]
    if not isinstance(side, str | list) or not side:
        raise RowError("completion", "bad_completion", "expected a text or a list of messages")
    if isinstance(side, list) and row.get("prompt") is None:
        return _only(turns(side, "completion"))
    asked = messages_of(row.get("prompt"), "prompt")
    if (isinstance(side, list) and len(side) > 1) or [role for role, _ in asked] != ["user"]:
        raise RowError("prompt", "several_turns", "one question and one answer a row; split the conversation")
    message = asked[0][1]
    return Turn(message.text, answer_of(side if isinstance(side, str) else side[0], "completion"), message.images)


def _only(exchanges: list[Turn]) -> Turn:
    if len(exchanges) > 1:
        raise RowError("messages", "several_turns", "one question and one answer a row; split the conversation")
    return exchanges[0]
