"""Names, numbers and dates of a DICOM header, so that a table's own text can be searched for them.

A header never leaves its file, but a question or a report that names the patient would. A row whose text holds what the
header of its image says about the patient is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

NUMBERS = ("PatientID", "AccessionNumber", "StudyID", "IssuerOfPatientID", "OtherPatientIDs")
NAMES = ("PatientName", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "OtherPatientNames")
DATES = ("PatientBirthDate",)
PLACES = ("InstitutionName", "InstitutionAddress")
SHORTEST = 5
DATE_FORMS = ("{y}{m}{d}", "{y}-{m}-{d}", "{d}.{m}.{y}", "{m}/{d}/{y}", "{d}/{m}/{y}")


def identifiers(data: Any) -> list[list[str]]:
    """What identifies somebody in a header: each entry is words that do so together (family and given name).

    Numbers need a digit and five characters, single names and places five letters: shorter ones are words of the
    language too often.
    """
    found = [[value] for name in NUMBERS for value in _values(data, name) if re.search(r"\d", value)]
    found += [[value] for name in PLACES for value in _values(data, name)]
    for name in NAMES:
        for value in _values(data, name):
            words = [word for word in re.split(r"[\^=\s,]+", value) if len(word) > 1][:2]
            found.append(words)
    for name in DATES:
        for value in _values(data, name):
            if re.fullmatch(r"\d{8}", value):
                parts = {"y": value[:4], "m": value[4:6], "d": value[6:]}
                found += [[form.format(**parts)] for form in DATE_FORMS]
    return [words for words in found if words and (len(words) > 1 or len(words[0]) >= SHORTEST)]


def named_in(text: str, found: Iterable[list[str]]) -> bool:
    """Whether a text holds all words of an entry, as whole words, in any case."""
    return any(
        all(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in words) for words in found
    )


def _values(data: Any, name: str) -> list[str]:
    value = data.get(name)
    many = value if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]
    return [str(one).strip() for one in many if one is not None and str(one).strip()]
