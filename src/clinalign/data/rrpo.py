"""The preference files of RRPO (arXiv 2504.12083): answer and prediction, the differing phrases in <MASK> tags.

    [{"question", "answer", "pred", "answer_masked", "pred_masked", "src", "sample_id", "image" | "images"}, ...]

The authors' own data are videos, which are not read: such rows go to the quarantine. Spans are found anew when pairs
are made; the authors' marked phrases stay in `meta`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from clinalign.data import rows
from clinalign.data.conversations import images_of, preference, said
from clinalign.data.ingest import ingest
from clinalign.data.layout import field, items, kept
from clinalign.data.options import DataOptions
from clinalign.records import Example
from clinalign.storage import Quarantine, user_path

FIELDS = ("question", "answer|answer_masked", "pred|pred_masked")
MARKED = re.compile(r"<MASK>((?:(?!<MASK>).)*?)</MASK>", re.DOTALL)


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """One file. Raises `UsageError` for a file that is none of these."""
    path = user_path(options.path)
    return ingest(items(path, FIELDS, _convert), options, folder, quarantine, base=path.parent)


def _convert(row: rows.Row) -> rows.Row:
    chosen, rejected = (_plain(row, name) for name in ("answer", "pred"))
    asked = said(row.get("question"), "question")
    made = preference(asked.text, chosen, rejected)
    marked = {
        f"{name}_phrases": [phrase.strip() for phrase in MARKED.findall(field(row, f"{name}_masked"))]
        for name in ("answer", "pred")
    }
    meta = {name: phrases for name, phrases in marked.items() if phrases} | kept(row, "src")
    return made | images_of(row, asked.images) | {"id": field(row, "sample_id") or field(row, "id"), "meta": meta}


def _plain(row: rows.Row, name: str) -> str:
    given = field(row, name)
    return given or " ".join(MARKED.sub(r" \1 ", field(row, f"{name}_masked")).split())
