"""Text into words, sentences and measurements. Wrapped lines are joined; bullets, table cells, JSON and headings are
told apart; lengths are converted to millimetres.

Offsets always point into the text as given: whatever is rewritten here keeps its length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from clinalign.language.graph import rows
from clinalign.language.lexicon import END, Node, corrected

_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_][^\W_]*(?:['\u2019][st]\b)?|\n\n|\n|[^\w\s]")
STOPS = frozenset((".", "!", "?", "\n", "\n\n"))
_ABBREVIATIONS = frozenset(("dr", "mr", "mrs", "ms", "vs", "e.g", "i.e", "approx", "fig", "st", "g", "e", "i"))
_BULLET = re.compile(r"(?:[-\u2022\u2023\u25aa\u25cf\u2013\u2014*>+]|\(?\d{1,2}[.)])\s+\S")
_LABEL = re.compile(r"[A-Z][A-Za-z /&(),-]{1,40}:")
_CELLS = re.compile(r"\s*\|")
_WRAPPED = 60
_GOES_ON = frozenset(
    "a an the of no and or with without in on at to for is are was were has have from by than nor".split()
)
VALUES = frozenset(
    "no none nil absent negative neg normal clear yes present positive true false denied unremarkable".split()
)
"""Words that answer a label: "Pneumothorax: none", "Fracture? No."."""
_CONTROL = str.maketrans(
    {"\u2028": "\n", "\u2029": "\n", "\x85": "\n", "\x0b": "\n", "\x0c": "\n", "\r": " ", "\u00a0": " ", "\t": "|"}
    | dict.fromkeys("*_`#", " ")
)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Words (lower case, usual spelling), their character ranges, sentences as word ranges, and what kind of section
    each sentence stands in: "" (findings), "history", "indication" or "technique"."""

    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    sentences: tuple[tuple[int, int], ...]
    sections: tuple[str, ...]


def tokenise(text: str) -> Tokens:
    """The words and sentences of a text."""
    words, spans = [], []
    for match in _WORD.finditer(_lines(_plain(text))):
        words.append(corrected(match.group().lower().replace("\u2019", "'")))
        spans.append(match.span())
    sentences, sections = _sentences(words, text, spans)
    return Tokens(tuple(words), tuple(spans), tuple(sentences), tuple(sections))


def _plain(text: str) -> str:
    """Marks of emphasis as blanks; JSON as sentences of "key: value"."""
    bullets = re.sub(r"(?m)^(\s*)[*+](?=\s)", r"\1-", text)
    plain = bullets.translate(_CONTROL)
    if '":' not in plain:
        return plain
    return re.sub(r'["{}\[\]]', " ", re.sub(r',(?=\s*["{\[])', ".", plain))


def _lines(text: str) -> str:
    """The text with a blank for every line break that is no end of a sentence."""
    if "\n" not in text:
        return text
    lines = text.split("\n")
    listed = sum(_BULLET.match(line.lstrip()) is not None for line in lines) > 1
    out = [lines[0]]
    for before, line in zip(lines, lines[1:]):
        out.append("\n" if _breaks(before.strip(), line.strip(), listed) else " ")
        out.append(line)
    return re.sub(r"\n[^\S\n]*\n", lambda m: "\n" + "\n" * (len(m.group()) - 1), "".join(out))


def _breaks(before: str, line: str, listed: bool) -> bool:
    """Whether a line break ends a sentence; a line as long as a page is wide has been wrapped."""
    if not before or not line:
        return True
    if before[-1] in ".!?;" or _CELLS.match(line):
        return True
    if before[-1] == ":":
        return False
    bullet = _BULLET.match(line) is not None
    first = line.split(None, 1)[0]
    if len(before) + len(first) >= _WRAPPED:
        label = _LABEL.match(line)
        return (bullet and listed) or (label is not None and label.group().isupper())
    if bullet or _LABEL.match(line):
        return True
    last = before.split()[-1].lower()
    return last not in _GOES_ON and before[-1] != "," and not line[0].islower()


@lru_cache(maxsize=1)
def _titles() -> Node:
    root: Node = {}
    for title, kind, *_ in rows("headings.tsv"):
        node = root
        for word in title.split():
            node = node.setdefault(word, {})  # type: ignore[assignment]
        node.setdefault(END, kind)
    return root


def heading(words: list[str], i: int) -> tuple[str, int] | None:
    """The kind of section that begins at word i with a known title and a colon, and the word after the colon."""
    node, at = _titles(), i
    while at < len(words):
        if words[at] == ":" and END in node and at > i:
            return str(node[END]), at + 1
        step = node.get(words[at]) if words[at] not in ("/", "&", "(", ")", "-") else node
        if step is None:
            return None
        node, at = step, at + 1  # type: ignore[assignment]
    return None


def _sentences(words: list[str], text: str, spans: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[str]]:
    out: list[tuple[int, int]] = []
    sections: list[str] = []
    first, section = 0, ""

    def close(last: int) -> None:
        if last > first:
            out.append((first, last))
            sections.append(section)

    skip = -1
    for i, word in enumerate(words):
        if i < skip:
            continue
        found = heading(words, i) if i == first or _shouted(text, spans[i]) else None
        if found is not None and i > first and found[0] == "technique":
            found = None  # "CT HEAD WITHOUT CONTRAST: no hemorrhage"
        if found is not None:
            close(i)
            section, first = found
            skip = first
            continue
        if word in STOPS and _ends(words, i, first):
            close(i)
            first = i + 1
            if word == "\n\n" or section == "technique" or (section and _reports(words, first)):
                section = (
                    ""  # history goes on to the next paragraph, heading or finding, technique to the next sentence
                )
    close(len(words))
    return out, sections


_OPENS_A_FINDING = frozenset(
    "no there the normal clear lungs heart mild moderate severe small large right left bilateral stable unchanged "
    "interval mildly moderately diffuse focal patchy degenerative multiple a an".split()
)
_REPORTED = frozenset(
    "seen identified visualized terminates unremarkable clear intact normal evidence enlarged noted demonstrated "
    "is are remains remain".split()
)
_ASKS = frozenset(
    "evaluate assess eval assessment evaluation please rule r query patient pt year old history prior status s p "
    "presents presenting presented admitted now recent recently known concern suspected question check confirm "
    "follow he she her his male female man woman was were had ? looking interval placement".split()
)


def _reports(words: list[str], first: int) -> bool:
    """Whether the sentence that begins at a word reports a finding, and so is no part of the history before it."""
    last = next((i for i in range(first, len(words)) if words[i] in STOPS), len(words))
    sentence = words[first:last]
    if not sentence or _ASKS & set(sentence):
        return False
    return sentence[0] in _OPENS_A_FINDING and bool(_REPORTED & set(sentence) or sentence[0] == "no")


def _shouted(text: str, span: tuple[int, int]) -> bool:
    """Whether a word is written in capitals, as a heading within a line is."""
    return span[1] - span[0] > 4 and text[span[0] : span[1]].isupper()


def _ends(words: list[str], i: int, first: int) -> bool:
    """Whether a stop ends its sentence: not after "vs", nor between a question and its one-word answer."""
    following = words[i + 1] if i + 1 < len(words) else ""
    if words[i] == ".":
        return not (i > first and words[i - 1] in _ABBREVIATIONS)
    if words[i] == "?":
        return not (i - first <= 6 and following in VALUES and (i + 2 >= len(words) or words[i + 2] in STOPS))
    return True


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
