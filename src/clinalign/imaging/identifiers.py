"""Names, numbers and dates of a DICOM header, so that a table's own text can be searched for them.

A header never leaves its file, but a question or a report that names the patient would. A row whose text holds what the
header of its image says about the patient is left out. Both are compared without case, accents and forms of one letter
(NFKD), and a header whose character set is missing or wrong is also read in the usual code pages.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

NUMBERS = (
    "PatientID",
    "AccessionNumber",
    "StudyID",
    "IssuerOfPatientID",
    "OtherPatientIDs",
    "PatientTelephoneNumbers",
    "MedicalRecordLocator",
    "InsurancePlanIdentification",
    "DeviceSerialNumber",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
)
NAMES = (
    "PatientName",
    "OtherPatientNames",
    "PatientBirthName",
    "PatientMotherBirthName",
    "ResponsiblePerson",
    "ReferringPhysicianName",
    "RequestingPhysician",
    "PerformingPhysicianName",
    "NameOfPhysiciansReadingStudy",
    "PhysiciansOfRecord",
    "OperatorsName",
)
DATES = ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
PLACES = ("InstitutionName", "InstitutionAddress", "PatientAddress", "StationName")
SHORTEST = 5
CODE_PAGES = (
    "utf-8",
    "gb18030",
    "big5",
    "shift_jis",
    "euc_jp",
    "euc_kr",
    "cp1250",
    "cp1251",
    "koi8_r",
    "iso8859_5",
    "cp1252",
    "cp1253",
    "iso8859_7",
    "cp1254",
    "cp1255",
    "iso8859_8",
    "cp1256",
    "iso8859_6",
    "cp874",
)
MONTHS = "january february march april may june july august september october november december".split()
DATE_FORMS = (
    "{y}{mm}{dd} {y}-{mm}-{dd} {y}/{mm}/{dd} {y}.{mm}.{dd} {dd}.{mm}.{y} {d}.{m}.{y} {dd}/{mm}/{y} {d}/{m}/{y} "
    "{mm}/{dd}/{y} {m}/{d}/{y} {dd}-{mm}-{y} {mm}-{dd}-{y} {d}~{month}~{y} {dd}~{month}~{y} {d}~{mon}~{y} "
    "{dd}~{mon}~{y} {month}~{d},~{y} {mon}~{d},~{y}"
).split()
"""How a date is written; ~ is a blank."""
UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3130-\u318f\u3400-\u9fff"
    r"\uac00-\ud7af\uf900-\ufaff]"
)
"""Letters of scripts that are written without blanks between words, or with endings joined on."""


def identifiers(data: Any) -> list[list[str]]:
    """What identifies somebody in a header: each entry is words that do so together (family and given name).

    Numbers need a digit and five characters, single names and places five letters (two where a letter is a syllable or
    a word): shorter ones are words of the language too often. Call it before a value of the header is looked at.
    """
    found = [[value] for name in NUMBERS for value in _values(data, name) if re.search(r"\d", value)]
    found += [[value] for name in PLACES for value in _values(data, name)]
    for name in NAMES:
        for value in _values(data, name):
            found += [words for group in value.split("=") for words in _person(group)]
    for name in DATES:
        for value in _values(data, name):
            found += [[form] for form in _written(value)]
    usable = [words for words in found if words and (len(words) > 1 or _long_enough(words[0]))]
    return [list(words) for words in dict.fromkeys(map(tuple, usable))]


def _person(group: str) -> Iterator[list[str]]:
    """A name of one script: family^given^middle^prefix^suffix, each perhaps of several words."""
    parts = [[word for word in re.split(r"[\s,]+", part) if word] for part in group.split("^")]
    family, given = parts[0], [word for part in parts[1:3] for word in part]
    if family and given:
        yield from ([a, b] for a in _telling(family) for b in _telling(given))
    else:
        words = _telling(family or given)
        yield words[:2]


def _telling(words: list[str]) -> list[str]:
    """Without initials and particles ("de", "la"), unless there is nothing else."""
    long = [word for word in words if len(word.strip(".")) > 2 or UNSPACED.search(word)]
    return long or [word for word in words if len(word) > 1]


def _written(date: str) -> list[str]:
    if not re.fullmatch(r"\d{8}", date) or not 1 <= int(date[4:6]) <= 12:
        return []
    month = MONTHS[int(date[4:6]) - 1]
    parts = {"y": date[:4], "mm": date[4:6], "dd": date[6:], "m": int(date[4:6]), "d": int(date[6:])}
    parts |= {"month": month, "mon": month[:3]}
    return [form.format(**parts).replace("~", " ") for form in DATE_FORMS]


def _long_enough(word: str) -> bool:
    return len(word) >= (2 if UNSPACED.search(word) else SHORTEST)


def named_in(text: str, found: Iterable[list[str]]) -> bool:
    """Whether a text holds all words of an entry: as whole words, in any case and with or without accents; in a script
    without blanks one right beside the other."""
    plain = _plain(text)
    return any(_holds(plain, words) for words in found)


def _holds(plain: str, words: list[str]) -> bool:
    if any(UNSPACED.search(word) for word in words):
        joined = [r"[\W_]{0,3}".join(re.escape(_plain(word)) for word in order) for order in (words, words[::-1])]
        return any(re.search(pattern, plain) for pattern in joined)
    return all(_whole_word(word).search(plain) for word in words)


@lru_cache(maxsize=4096)
def _whole_word(word: str) -> re.Pattern[str]:
    """A word as a whole; marks inside it (MRN-000123) may be other ones, or none."""
    runs = re.findall(r"[^\W\d_]+|\d+", _plain(word))
    inside = r"[\W_]{0,2}".join(map(re.escape, runs)) if runs else re.escape(_plain(word))
    return re.compile(rf"(?<![^\W_]){inside}(?![^\W_])")


def _plain(text: str) -> str:
    """Case, accents and forms of a letter taken away, digits of every script as 0-9."""
    spread = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    kept = (letter for letter in spread if not unicodedata.combining(letter) and unicodedata.category(letter) != "Cf")
    return "".join(str(unicodedata.digit(c)) if c.isdigit() else c for c in kept)


def _values(data: Any, name: str) -> list[str]:
    """The values of an attribute, as its character set says and, where that is not plain ASCII, in every code page."""
    raw = data.get_item(name)
    held = getattr(raw, "value", None)
    if isinstance(held, bytes) and not held.isascii():
        texts = [_decoded(held, page) for page in CODE_PAGES]
        values = [value for text in texts if text for value in text.split("\\")]
    else:
        values = []
    try:
        value = data.get(name)
    except Exception:  # a header that cannot be decoded has been read in the code pages above
        value = None
    many = value if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]
    values += [str(one) for one in many if one is not None]
    return list(dict.fromkeys(value.strip("\0 \t\r\n") for value in values if value.strip("\0 \t\r\n")))


def _decoded(held: bytes, page: str) -> str:
    try:
        return held.decode(page)
    except UnicodeDecodeError:
        return ""
