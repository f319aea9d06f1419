"""The text of an answer in one spelling, its sentences and its clauses."""

from __future__ import annotations

import re

from clinalign.evaluation.suites import phrases
from clinalign.language.wordings import cleaned

_SPELLED = (
    (re.compile("[\u2019\u2018\u00b4`]"), "'"),
    (re.compile("[\u201c\u201d\u00ab\u00bb\u201e]"), '"'),
    (re.compile("\uff0c"), ", "),
    (re.compile("[\u3002\uff01]"), ". "),
    (re.compile("\uff1f"), "? "),
    (re.compile("\uff1a"), ": "),
    (re.compile("\uff1b"), "; "),
    (re.compile("\u2026"), "... "),
    (re.compile(r"\s*(?:\u2192|\u21d2|-+>|=+>)\s*"), "; "),
    (re.compile(r"haem(?=orrh|at|o)"), "hem"),
    (re.compile(r"\bw/o\b"), "without"),
    (re.compile(r"\bw/ ?(?=\w)|\bwith/"), "with "),
    (re.compile(r"\bb/c\b|\bbc\b|\bcuz\b|\bcos\b"), "because"),
    (re.compile(r"\bb/l\b|\bbilat\b\.?"), "bilateral"),
    (re.compile(" & "), " and "),
    (re.compile("\\s*[\u2717\u2718\u2715\u2612\u274c\u2716]"), ": no"),
    (re.compile("\\s*[\u2713\u2714\u2611\u2705]"), ": yes"),
    (re.compile(r"\b(is|are|does|do|did|was|were|has|have|had|would|could|should|ca|wo)nt\b"), r"\1n't"),
    (re.compile(r"\btheres\b"), "there's"),
    (
        re.compile(
            r", (?:however|though|it seems|in fact|of course|unfortunately|sadly|as far as i can (?:see|tell)|i think|"
            r"i'm afraid|i believe|to my eye),(?= (?:is|are|was|were|has|have|had|does|do|did|can|cannot|could|will|"
            r"would|not|isn't|aren't|wasn't|doesn't|don't|can't)\b)"
        ),
        "",
    ),
    (
        re.compile(
            r"\b(?:un|non-?)(?=(?:dilated|thickened|enlarged|displaced|fractured|broken|ruptured|torn|calcified|swollen|"
            r"distorted|inflamed|obstructed|herniated|infarcted|narrowed|involved|affected|widened)\b)"
        ),
        "not ",
    ),
    (re.compile(r"\bther (?=is\b|are\b)"), "there "),
)
"""Signs and short forms of one meaning -> how they are read."""


_NULL = ("unknown", "none")
"""What a field without a value says: of a place, that there is none."""


def plain(text: str) -> str:
    """A text in small letters and one spelling, the fields of JSON as lines."""
    text = re.sub(r"\(([^()]*)\?\)", r"(\1)", re.sub(r"\n(?=\s*[a-z])", " ", text).lower())
    for sign, spelling in _SPELLED:
        text = sign.sub(spelling, text)
    return _fields(text)


_RUNS = (
    (re.compile(r"<\|[^<>|]{1,40}\|>"), " "),
    (re.compile(r"[^\S\n]+"), " "),
    (re.compile(r" ?\n\s*"), "\n"),
    (re.compile(r"((?:[^\w\s] ?){3})(?:[^\w\s] ?){9,}"), r"\1"),
    (re.compile(r"[\w-]{61,}"), " "),
)
"""Special tokens, and runs of blanks, signs or letters, on which patterns take the square of the length."""


def spelled(answer: str) -> str:
    """An answer in small letters and one spelling, without thoughts, marks of emphasis, tokens and long runs."""
    return _short(cleaned(plain(_short(answer)))).strip()


def _short(text: str) -> str:
    for run, short in _RUNS:
        text = run.sub(short, text)
    return text


def _fields(text: str) -> str:
    """A text with the fields of JSON as lines "key: value", without those that only repeat what was asked."""
    if not phrases.FIELD.search(text):
        return text
    words = {"true": "yes", "false": "no", "[]": "none"}
    fields = [(key.replace("_", " "), value.strip('"')) for key, value in phrases.FIELD.findall(text)]
    fields = [(k, _NULL[phrases.PLACED.match(k) is not None] if v == "null" else v) for k, v in fields]
    return "\n".join(f"{key}: {words.get(value, value)}" for key, value in fields if not phrases.ASKED.match(key))


_SHORT = re.compile(r"\b(s/p|vs|e\.g|i\.e|approx|ca|dr|no(?=\. \d))\.")
_ENDS = re.compile(r"(?<=[.!?])[\s\"')\]]+(?=\S)|\s*\n\s*")
_ITEM = re.compile(r"^\W*\d+[.)]\s+|^\s*[-*\u2022]\s+")


def sentences(answer: str) -> list[str]:
    """The sentences and lines of an answer, without the marks of a list."""
    parts = _ENDS.split(_SHORT.sub(r"\1", answer))
    return [" ".join(_ITEM.sub("", part).split()) for part in parts if part.strip()]


def clauses_of(sentence: str) -> list[str]:
    """The clauses of a sentence: what stands before a conjunction or a comma and has a verb, and what goes on after."""
    out: list[str] = []
    subordinate = phrases.SUBORDINATE.match(sentence)
    begun = [sentence[: subordinate.end(1)], sentence[subordinate.end() :]] if subordinate else [sentence]
    for part in begun:
        at = 0
        for cut in phrases.CUT.finditer(part):
            before = part[at : cut.start()]
            if cut[1] is not None or phrases.HAS_VERB.search(before):
                out.append(before)
                at = cut.end()
        out.append(part[at:])
    return [clause for clause in (c.strip(" ,") for c in out) if clause]
