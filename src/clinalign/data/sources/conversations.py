"""Chat-shaped rows as sources: preference files in the formats of `data/preferences.py` (the chosen answer is the
truth, the rejected one travels beside it, for `pair.editor: dataset`), TRL's files of prompts and completions, and
LLaVA's conversations (also LLaVA-Med's), every exchange of which becomes an example: a later question that leans on an
earlier one loses it.

    data/slake_dpo_weighted.json: [{"id", "image", "conversations", "rejected_conversations", "weighted_score"}, ...]
    RRPO: [{"question", "answer", "pred", "answer_masked", "pred_masked", "src", "sample_id", "image" | "images"}, ...]
    LLaVA: [{"id": "1", "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\n..."}, ...]}, ...]
    TRL: {"prompt": [...], "chosen": [...], "rejected": [...], "images": ["a.png"]}, ...

Images of MMedPO are those of the underlying set: name their folder in `data.images`. The authors' own RRPO data are
videos, which are not read: such rows go to the quarantine. Spans are found anew when pairs are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from clinalign.data import cells, files, messages, preferences
from clinalign.data.cells import Cells, guarded
from clinalign.data.ingest import Item, ingest
from clinalign.data.messages import Turn, answer_of, images_of, messages_of, task_of, turns
from clinalign.data.options import DataOptions
from clinalign.data.sources.layout import Convert, field, items, kept
from clinalign.errors import RowError, UsageError
from clinalign.records import Example
from clinalign.storage import Quarantine, is_file, user_path

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


def read_llava(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """A file of conversations; image paths are relative to it. Raises `UsageError` for another file."""
    path = user_path(options.path)
    if not is_file(path):
        raise UsageError(f"data.path: {options.path}: no such file; source llava is a JSON or JSONL file")
    return ingest(_llava_items(path), options, folder, quarantine, base=path.parent)


def _llava_items(path: Path) -> Iterator[Item]:
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
