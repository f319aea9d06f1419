"""Measurements: numbers with a unit, lengths converted to millimetres."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MILLIMETRES = {
    "mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "cm": 10.0, "centimeter": 10.0, "centimeters": 10.0,
    "cms": 10.0, "inch": 25.4, "inches": 25.4,
}  # fmt: skip
OTHER_UNITS = {
    "ml": "ml", "cc": "ml", "milliliter": "ml", "milliliters": "ml", "%": "%", "percent": "%", "degree": "degrees",
    "degrees": "degrees", "hu": "hu", "fr": "fr", "french": "fr",
}  # fmt: skip
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_BETWEEN = ("x", "by", "to", "-", "\u2013", "\u00d7", "*")


@dataclass(frozen=True, slots=True)
class Measure:
    """A measurement by its word range: "34 x 12 mm", "5 to 7 mm", "40 %"."""

    value: str
    first: int
    last: int


def measures(words: Sequence[str], first: int, last: int) -> list[Measure]:
    """The measurements in a range of words."""
    out: list[Measure] = []
    i = first
    while i < last:
        if words[i][0].isdigit():
            found = _measure(words, i, last)
            if found is not None:
                out.append(found)
                i = found.last
                continue
        i += 1
    return out


def _measure(words: Sequence[str], i: int, last: int) -> Measure | None:
    """One measurement that begins at word i: numbers joined by "x", "by" or "to", each with or without the unit."""
    numbers: list[float] = []
    joints: list[str] = []
    at, unit = i, ""
    while at < last and _NUMBER.fullmatch(words[at]):
        numbers.append(float(words[at]))
        at += 1
        if at < last and words[at] == "-" and at + 1 < last and _unit(words[at + 1]):
            at += 1
        if at < last and _unit(words[at]):
            unit = words[at]
            at += 1
        if at + 1 < last and words[at] in _BETWEEN and _NUMBER.fullmatch(words[at + 1]):
            joints.append("to" if words[at] in ("to", "-", "\u2013") else "x")
            at += 1
            continue
        break
    if not unit:
        return None
    return Measure(_value(numbers, joints, unit), i, at)


def _unit(word: str) -> bool:
    return word in MILLIMETRES or word in OTHER_UNITS


def _value(numbers: list[float], joints: list[str], unit: str) -> str:
    factor = MILLIMETRES.get(unit, 1.0)
    shown = [f"{round(n * factor, 2):g}" for n in numbers]
    text = shown[0] + "".join(f" {joint} {n}" for joint, n in zip(joints, shown[1:]))
    return f"{text} {'mm' if unit in MILLIMETRES else OTHER_UNITS[unit]}"


def measured(text: str) -> list[str]:
    """The values of every measurement in a text: "2.0 centimeters" gives "20 mm"."""
    words = re.findall(r"\d+(?:\.\d+)?|[^\W\d_]+|[^\w\s]", text.lower().replace("centimetre", "centimeter"))
    return [m.value for m in measures(words, 0, len(words))]
