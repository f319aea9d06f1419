"""The annotation.json of R2Gen (Chen et al., EMNLP 2020), in which IU-Xray and MIMIC-CXR are often passed on.

{"train": [{"id": ..., "report": ..., "image_path": ["CXR2384_IM-0942/0.png", ...], "split": "train"}, ...], ...}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clinalign.data import rows
from clinalign.data.ingest import Item
from clinalign.data.layout import field, items
from clinalign.data.reports import QUESTION
from clinalign.errors import RowError


def report_items(path: Path, views: str) -> Iterator[Item]:
    """An item a report, counted by split."""

    def convert(row: rows.Row) -> rows.Row:
        images = row["image_path"] if isinstance(row["image_path"], list) else [row["image_path"]]
        if not images:
            raise RowError("images", "no_image", "the report has no image")
        subject, study = field(row, "subject_id"), field(row, "study_id")
        return {
            "id": field(row, "id"),
            "images": images if views == "all" else images[:1],
            "question": QUESTION,
            "answer": field(row, "report"),
            "task": "report",
            "split": field(row, "split"),
            "patient_id": subject or field(row, "id").partition("_")[0],
            "modality": "CR",
            "meta": {"views": len(images)} | ({"study": study} if study else {}),
        }

    for item in items(path, ("id", "report", "image_path", "split"), convert):
        split = item.row.get("split", "") if isinstance(item.row, dict) else ""
        yield item._replace(group=f"{path.name} {split}".strip())
