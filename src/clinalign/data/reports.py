"""Radiology reports: sections out of the text, sentences with something taken out, the question that asks for one."""

from __future__ import annotations

import re
from collections.abc import Mapping

from clinalign.errors import RowError

QUESTION = "Write the findings and the impression of this chest X-ray."
SECTIONS = ("findings", "impression")
PLACEHOLDER = re.compile(r"XXXX|_{3,}")
"""What public reports hold where a name, a date or a number was taken out: OpenI writes XXXX, MIMIC-CXR ___."""
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
