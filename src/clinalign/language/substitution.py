"""One value or finding in the place of another: which ones a reader could have said, and how they are written there."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from clinalign.language.graph import CONCEPTS, GENERIC, Concept, related
from clinalign.language.lexicon import OPPOSITE, ORDER, narrowed, singular
from clinalign.language.parse import Mention, Parse, parse
from clinalign.language.tokens import MILLIMETRES
from clinalign.records import Example

TextEdit = tuple[int, int, str]

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


def apply(text: str, changes: list[TextEdit]) -> str:
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


def replace_mention(parsed: Parse, m: Mention, value: str) -> list[TextEdit]:
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


def _replace_length(m: Mention, value: str, old: str) -> list[TextEdit]:
    """Another length in the unit that stands there: "8 cm" for "4 cm"."""
    found = re.fullmatch(r"([\d.]+)(\W*)([^\W\d]+)", old)
    factor = MILLIMETRES.get(found.group(3).lower()) if found else None
    if found is None or factor is None:
        return []
    number = f"{float(value.split()[0]) / factor:g}"
    return [(m.start, m.start + len(found.group(1)), number)]


def _replace_finding(parsed: Parse, m: Mention, value: str, old: str) -> list[TextEdit]:
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


def _with_article(parsed: Parse, word: int, span: tuple[int, int], new: str) -> list[TextEdit]:
    if word and parsed.words[word - 1] in ("a", "an"):
        fitting = article(new)
        if fitting != parsed.words[word - 1]:
            start, end = parsed.spans[word - 1]
            return [(start, end, cased(parsed.text[start:end], fitting)), (*span, new)]
    return [(*span, new)]


Choices = Mapping[str, Sequence[str]]

_ONE_OR_MANY = ("0", "1", "many")
_CHEST = ("lung", "pleura", "heart", "mediastinum")
_FIRST = ("nodule", "consolidation", "atelectasis", "lung mass", "pneumonia", "pulmonary edema")
"""What is named where all was denied and nothing is known of the image: findings of a chest."""


def wrong_value(
    kind: str, value: str, rng: random.Random, choices: Choices, avoid: set[str] | frozenset[str] = frozenset()
) -> str | None:
    """Another value of the same kind, drawn evenly; for a denied one a value of the lexicon; None where none is."""
    if value == "none":
        return "present" if kind != "finding" else rng.choice(tuple(choices.get("finding", ())) or _FIRST)
    if kind in ("count", "number"):  # one and many have another grammar
        return (
            str(max(2, int(value) + rng.choice((-1, 1))) if value != "2" else 3) if value not in _ONE_OR_MANY else None
        )
    if kind == "measurement":
        return _other_length(value, rng)
    found = [v for v in _options(kind, value, tuple(choices.get(kind, ()))) if v not in avoid]
    if kind == "size" and len(found) > 1 and "moderate" in found and value != "moderate":
        found.remove("moderate")  # "large" for "small" is a mistake; "moderate" is a matter of taste
    if kind == "finding" and value in CONCEPTS:
        found = [v for v in found if not any(related(v, a) for a in avoid if a in CONCEPTS and a not in GENERIC)]
        alike = [v for v in found if v in CONCEPTS and (CONCEPTS[v].noun == "m") == (CONCEPTS[value].noun == "m")]
        found = alike or found
    return rng.choice(found) if found else None


def _other_length(value: str, rng: random.Random) -> str | None:
    """Twice or half of a single length."""
    number, _, unit = value.partition(" ")
    if " " in unit or unit != "mm":
        return None
    return f"{float(number) * rng.choice((2.0, 0.5)):g} mm"


@lru_cache(maxsize=4096)
def _options(kind: str, value: str, given: tuple[str, ...]) -> tuple[str, ...]:
    if kind == "finding" and value in CONCEPTS:
        corpus = tuple(v for v in given if v != value and v in CONCEPTS and _could_be(CONCEPTS[v], CONCEPTS[value]))
        return corpus or confusable(value)
    if given and len(set(given) - {value, "none"}) > 0:
        return tuple(v for v in given if v not in (value, "none"))
    if kind == "location":
        near = ORDER["location"] if value in ORDER["location"] else (OPPOSITE[value],) if value in OPPOSITE else ()
        return tuple(v for v in near if v != value)
    return tuple(v for v in ORDER.get(kind, ()) if v != value)


@lru_cache(maxsize=4096)
def confusable(finding: str) -> tuple[str, ...]:
    """The findings that a reader could mistake a finding for: of its family, seen on the same kind of image, and no
    kinds of one another."""
    own = CONCEPTS[finding]
    if not own.family:
        return ()
    family = [c for c in CONCEPTS.values() if c.family == own.family and c.name != finding]
    return tuple(c.name for c in family if _could_be(c, own) and not related(c.name, finding))


def _could_be(other: Concept, own: Concept) -> bool:
    """Whether one finding could be named for another on the same kind of image, in the same part of the body."""
    place = (own.group == other.group) or (own.group in _CHEST and other.group in _CHEST)
    return place and bool(own.modality & other.modality) and own.group != "device"


def values_of(examples: Sequence[Example]) -> dict[str, list[str]]:
    """{"finding": names} of the examples' questions, truths and slots; empty where there are fewer than three."""
    found: set[str] = set()
    for example in examples:
        found.update(name for name in example.slots if name in CONCEPTS)
        texts = [example.question] + ([example.answer] if example.task != "report" else [])
        found.update(m.value for text in texts for m in parse(text).of("finding"))
    named = sorted(name for name in found if name in CONCEPTS and CONCEPTS[name].group not in ("any", "device"))
    return {"finding": named} if len(named) > 2 else {}
