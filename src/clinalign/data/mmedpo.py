"""The preference files of MMedPO (arXiv 2412.06141): LLaVA conversations with a rejected one beside each.

    data/slake_dpo_weighted.json: [{"id", "image", "conversations", "rejected_conversations", "weighted_score"}, ...]

The clinical weight is kept in `meta.weighted_score`. Images are those of the underlying set: name their folder in
`data.images`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clinalign.data import rows
from clinalign.data.conversations import images_of, preference, turns
from clinalign.data.ingest import ingest
from clinalign.data.layout import field, items, kept
from clinalign.data.options import DataOptions
from clinalign.errors import RowError
from clinalign.records import Example
from clinalign.storage import Quarantine, user_path

PUBLISHED = {
    "iuxray_dpo_weighted.json": 2069,
    "mimic_dpo_weighted.json": 800,
    "slake_dpo_weighted.json": 4919,
    "vqa-rad_dpo_weighted.json": 1797,
}
FIELDS = ("conversations", "rejected_conversations")


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """One file. Raises `UsageError` for a file that is none of these."""
    path = user_path(options.path)
    return ingest(items(path, FIELDS, _convert), options, folder, quarantine, base=path.parent, published=PUBLISHED)


def _convert(row: rows.Row) -> rows.Row:
    [turn, *more] = turns(row["conversations"], "conversations")
    [(_, rejected, _), *others] = turns(row["rejected_conversations"], "rejected_conversations")
    if more or others:
        raise RowError("conversations", "several_turns", "a preference is about one answer; split the conversation")
    made = preference(turn.question, turn.answer, rejected)
    return made | images_of(row, turn.images) | {"id": field(row, "id"), "meta": kept(row, "weighted_score")}
