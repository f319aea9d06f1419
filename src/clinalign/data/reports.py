"""Radiology reports: sections out of the text, sentences with something taken out, the question that asks for one."""

from __future__ import annotations

import re
from collections.abc import Mapping

from clinalign.errors import RowError

QUESTION = "Write the findings and the impression of this chest X-ray."
SECTIONS = ("findings", "impression")
PLACEHOLDER = re.compile(r"XXXX|_{3,}")
"""What public reports hold where a name, a date or a number was taken out: OpenI writes XXXX, MIMIC-CXR ___."""
_HEADING = re.compile(r"^[ \t]*([A-Z][A-Z /&,()-]{2,60}):", re.MULTILINE)


def sections(text: str) -> dict[str, str]:
    """Sections of a report by their headings in lower case ("FINDINGS: ..." at the start of a line), white space as
    single blanks. A heading that occurs twice is joined."""
    found: dict[str, str] = {}
    marks = list(_HEADING.finditer(text))
    for mark, after in zip(marks, [*marks[1:], None]):
        body = " ".join(text[mark.end() : after.start() if after else len(text)].split())
        name = mark.group(1).strip().lower()
        found[name] = f"{found.get(name, '')} {body}".strip()
    return found


def findings_and_impression(parts: Mapping[str, str]) -> str:
    """The part of a report that an image can answer for. Raises `RowError` where both sections are missing or empty."""
    impression = parts.get("impression", "") or parts.get("conclusion", "")
    said = [text.strip() for text in (parts.get("findings", ""), impression) if text.strip()]
    if not said:
        raise RowError("answer", "empty_answer", "the report has neither findings nor an impression")
    return " ".join(said)


def without_placeholders(answer: str, task: str) -> tuple[str, int]:
    """A report without the sentences that hold a placeholder, and how many those were.

    Raises `RowError` for a report of which nothing is left, and for any other answer with a placeholder: a model must
    not learn to say one, and the words around it cannot be trusted.
    """
    if not PLACEHOLDER.search(answer):
        return answer, 0
    if task != "report":
        raise RowError("answer", "placeholder", "the answer holds XXXX or ___ where something was taken out")
    sentences = [s for s in re.split(r"(?<=[.!?])\s+|\n{2,}", answer) if s.strip()]
    whole = [s for s in sentences if not PLACEHOLDER.search(s)]
    if not any(len(s.split()) > 1 for s in whole):
        raise RowError("answer", "placeholder", "every sentence of the report holds XXXX or ___")
    return " ".join(whole), len(sentences) - len(whole)
