"""One value or finding in the place of another: surface forms, capitals, and "a" or "an" before it."""

from __future__ import annotations

import re

from clinalign.language.graph import CONCEPTS
from clinalign.language.lexicon import narrowed, singular
from clinalign.language.measures import MILLIMETRES
from clinalign.language.parse import Mention, Parse

Change = tuple[int, int, str]

_VOWEL = re.compile(r"(?!uni|use|usu|eu|one\b|ur[aeio])[aeiou]|hour|x-ray|x ray|mri\b|mr\b|nc", re.I)
_BRINGS = frozenset(
    "is are was were shows show showing contains contain containing has have with reveals reveal demonstrates , and "
    "demonstrate demonstrating revealing of for , but".split()
)

_SURFACES = {
    ("apical", "lower"): "basal", ("apical", "middle"): "mid", ("apex", "lower"): "base", ("apices", "lower"): "bases",
    ("basal", "upper"): "apical", ("basilar", "upper"): "apical", ("base", "upper"): "apex",
    ("bases", "upper"): "apices",
    ("superior", "lower"): "inferior", ("inferior", "upper"): "superior", ("top", "lower"): "bottom",
    ("bottom", "upper"): "top", ("mildly", "severe"): "severely", ("slightly", "severe"): "markedly",
    ("slight", "severe"): "marked", ("severely", "mild"): "mildly", ("markedly", "mild"): "mildly",
    ("moderately", "small"): "mildly", ("moderately", "large"): "severely", ("bilaterally", "left"): "on the left",
    ("bilaterally", "right"): "on the right", ("lt", "right"): "rt", ("rt", "left"): "lt",
    ("leftward", "right"): "rightward", ("rightward", "left"): "leftward", ("anteriorly", "posterior"): "posteriorly",
    ("posteriorly", "anterior"): "anteriorly", ("both lungs", "left"): "the left lung",
    ("both lungs", "right"): "the right lung", ("both sides", "left"): "the left side",
    ("both sides", "right"): "the right side", ("bibasilar", "upper"): "biapical", ("biapical", "lower"): "bibasilar",
    ("bibasilar", "left"): "left basilar", ("bibasilar", "right"): "right basilar", ("rul", "left"): "LUL",
    ("rll", "left"): "LLL", ("lul", "right"): "RUL", ("lll", "right"): "RLL", ("rul", "lower"): "RLL",
    ("rll", "upper"): "RUL", ("lul", "lower"): "LLL", ("lll", "upper"): "LUL", ("biapical", "left"): "left apical",
    ("biapical", "right"): "right apical",
}  # fmt: skip
_SPELLED = {"x-ray": "X-ray", "ct": "CT", "mri": "MRI", "t1": "T1", "t2": "T2", "flair": "FLAIR", "dwi": "DWI"}
_COUNTS = {"1": "one", "2": "two", "3": "three", "4": "four", "5": "five"}


def apply(text: str, changes: list[Change]) -> str:
    """The text with the replacements made; ranges that overlap or repeat are taken once."""
    out, at = [], 0
    for start, end, new in sorted(set(changes)):
        if start < at:
            continue
        out += [text[at:start], new]
        at = end
    return "".join([*out, text[at:]])


def cased(old: str, new: str) -> str:
    """`new` with the capitalisation of `old`: "Left" for "Right", "YES" for "NO"."""
    if old.isupper() and len(old) > 1 and new.islower():
        return new.upper()
    return new[:1].upper() + new[1:] if old[:1].isupper() and (len(old) == 1 or not old.isupper()) else new


def article(word: str) -> str:
    """ "a" or "an" before a word."""
    return "an" if _VOWEL.match(word) else "a"


def replace_mention(parsed: Parse, m: Mention, value: str) -> list[Change]:
    """Another value in the place of a mention, with "a" and "an" put right."""
    old = parsed.text[m.start : m.end]
    if m.kind == "finding":
        return _replace_finding(parsed, m, value, old)
    if m.kind == "measurement":
        return _replace_length(m, value, old)
    new = _SURFACES.get((old.lower(), value))
    if new is None:
        new = _COUNTS.get(value, value) if m.kind == "count" else _SPELLED.get(value, value)
        if m.kind == "number":
            new = value
    if m.kind not in ("modality", "weighting") or not old.isupper():  # "MRI" is no shouting
        new = cased(old, new)
    return _with_article(parsed, m.first, (m.start, m.end), new)


def _replace_length(m: Mention, value: str, old: str) -> list[Change]:
    """Another length in the unit that stands there: "8 cm" for "4 cm"."""
    found = re.fullmatch(r"([\d.]+)(\W*)([^\W\d]+)", old)
    factor = MILLIMETRES.get(found.group(3).lower()) if found else None
    if found is None or factor is None:
        return []
    number = f"{float(value.split()[0]) / factor:g}"
    return [(m.start, m.start + len(found.group(1)), number)]


def _replace_finding(parsed: Parse, m: Mention, value: str, old: str) -> list[Change]:
    value = _short(parsed, m, value)
    noun = CONCEPTS[value].noun if value in CONCEPTS else "c"
    last = parsed.words[m.last - 1]
    if last.endswith(("ed", "ic", "ous")):
        return []  # "calcified", "atelectatic": no noun to put another in the place of
    if singular(last) != last and noun != "m" and value not in ("pneumothorax",):
        return [(m.start, m.end, cased(old, value + "s"))]
    before = parsed.words[m.first - 1] if m.first else ""
    if noun == "m" and before in ("a", "an"):
        start = parsed.spans[m.first - 1][0]
        return [(start, m.end, cased(parsed.text[start : m.end], value))]
    if noun == "c" and _bare(parsed, m) and CONCEPTS[m.value].noun != "c":
        return [(m.start, m.end, cased(old, f"{article(value)} {value}"))]
    return _with_article(parsed, m.first, (m.start, m.end), cased(old, value))


def _short(parsed: Parse, m: Mention, value: str) -> str:
    """The name of a finding without its place where the sentence names that: a "mass" of the lung."""
    first, last = parsed.sentence(m.first)
    head = value.split()[-1]
    organs = [o.value for o in parsed.mentions if o.kind == "organ" and first <= o.first < last]
    return head if head != value and any(narrowed(head, organ) == value for organ in organs) else value


def _bare(parsed: Parse, m: Mention) -> bool:
    """Whether the finding stands without determiner or adjective: "there is cardiomegaly"."""
    return m.first == 0 or parsed.words[m.first - 1] in _BRINGS or m.first == parsed.sentence(m.first)[0]


def _with_article(parsed: Parse, word: int, span: tuple[int, int], new: str) -> list[Change]:
    if word and parsed.words[word - 1] in ("a", "an"):
        fitting = article(new)
        if fitting != parsed.words[word - 1]:
            start, end = parsed.spans[word - 1]
            return [(start, end, cased(parsed.text[start:end], fitting)), (*span, new)]
    return [(*span, new)]
