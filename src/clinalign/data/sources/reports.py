"""Radiology reports: sections out of the text, sentences with something taken out, the question that asks for one; and
the annotation.json of R2Gen (Chen et al., EMNLP 2020), in which IU-Xray and MIMIC-CXR are often passed on:

    {"train": [{"id": ..., "report": ..., "image_path": ["CXR2384_IM-0942/0.png", ...], "split": "train"}, ...], ...}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from clinalign.data import cells
from clinalign.data.ingest import Item
from clinalign.data.sources.layout import field, items
from clinalign.errors import RowError

QUESTION = "Write the findings and the impression of this chest X-ray."
SECTIONS = ("findings", "impression")
_TITLES = (
    "findings and impressions?|findings ?/ ?impressions?|impressions? and findings|findings?|impressions?|conclusions?|"
    "addend(?:um|a)|indications?|clinical (?:history|indication|information)|history|reason for (?:this |the )?exam"
    "(?:ination)?|techniques?|comparisons?|examination|exam|procedure|wet read|recommendations?|notifications?"
)
_HEADING = re.compile(rf"^[ \t]*(?:((?i:{_TITLES}))|([A-Z][A-Z /&,()-]{{2,60}})):", re.MULTILINE)
_SAID = ("findings", "impression", "addendum")
_NAMES = {"impressions": "impression", "conclusion": "impression", "conclusions": "impression", "finding": "findings",
          "addenda": "addendum"}  # fmt: skip


def sections(text: str) -> dict[str, str]:
    """Sections of a report by their headings in lower case ("FINDINGS: ..." at the start of a line, known titles in any
    case), white space as single blanks. A heading that occurs twice is joined; "findings and impression" are findings.

    A heading of no section within findings or impression ("PORTABLE AP CHEST:") stays part of them. What follows a
    blank line below another section has no heading: it stands under "".
    """
    found: dict[str, str] = {}
    marks: list[tuple[str, int, int]] = []
    for mark in _HEADING.finditer(text):
        if mark.group(1) is not None or not marks or marks[-1][0] not in _SAID:
            marks.append((_name(mark.group(1) or mark.group(2)), mark.start(), mark.end()))
    for (name, _, start), (_, end, _) in zip(marks, [*marks[1:], ("", len(text), 0)]):
        body, *rest = re.split(r"\n[ \t]*\n", text[start:end].lstrip("\n"), maxsplit=0 if name in _SAID else 1)
        kept = [body, *rest] if name in _SAID else [body]
        _add(found, name, " ".join(kept))
        if name not in _SAID and rest:
            _add(found, "", rest[0])
    return found


def _name(title: str) -> str:
    """The name of a section: "IMPRESSIONS" and "Conclusion" are "impression"."""
    lower = " ".join(title.lower().split())
    return "findings" if "finding" in lower and "impression" in lower else _NAMES.get(lower, lower)


def _add(found: dict[str, str], name: str, body: str) -> None:
    words = " ".join(body.split())
    if words or name:
        found[name] = f"{found.get(name, '')} {words}".strip()


def findings_and_impression(parts: Mapping[str, str]) -> str:
    """The part of a report that an image can answer for, with addenda; where no section is named so, what stands below
    no heading. Raises `RowError` where there is neither."""
    impression = parts.get("impression", "") or parts.get("conclusion", "")
    said = [text.strip() for text in (parts.get("findings", ""), impression, parts.get("addendum", "")) if text.strip()]
    said = said or [text for text in (parts.get("", "").strip(),) if text]
    if not said:
        raise RowError("answer", "empty_answer", "the report has neither findings nor an impression")
    return " ".join(said)


def report_items(path: Path, views: str) -> Iterator[Item]:
    """An item a report, counted by split."""

    def convert(row: cells.Cells) -> cells.Cells:
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
