"""What a thing may be called in an answer: its name, slips of the keyboard, words of every day, a finding's signs."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from clinalign.errors import UsageError
from clinalign.evaluation.suites.denials import MARK
from clinalign.evaluation.suites.vocabulary import (
    ALTERED,
    BARE,
    CLINICAL,
    EVERYDAY,
    FAMILIES,
    KINDS,
    NOBODY,
    NORMAL,
    OBJECTS,
    ORGANS,
    SIGNS,
    SOUND,
    STANDS_FOR,
)
from clinalign.language.lexicon import canonical, meanings


class Thing(NamedTuple):
    """`plain`: its name in small letters; `called`: every word for it; `loosely`: also a reference by its last word
    ("the table"); `none`: words that say there is nothing of its kind; `other`: something of its kind that is not it;
    `signs` and `normal` of a finding, which `finding` names in the concept graph; `words` that may be misspelt;
    `side` of a finding that was asked of one ("left pleural effusion"), or ""."""

    plain: str
    called: re.Pattern[str]
    loosely: re.Pattern[str]
    none: re.Pattern[str] | None
    other: re.Pattern[str] | None
    signs: re.Pattern[str] | None
    normal: re.Pattern[str] | None
    finding: str | None
    words: tuple[str, ...]
    side: str


def _listed() -> dict[str, list[str]]:
    joined = EVERYDAY.strip().replace("\n ", " ")
    return {name: words.split() for name, _, words in (line.partition(":") for line in joined.split("\n"))}


WORDS = _listed()
_FAMILY = {head: rest for head, *rest in (line.split() for line in FAMILIES.strip().split("\n"))}
_VAGUE = frozenset(
    "cell figure structure line tube disease change sign area region finding artery light vessel heart "
    "lung kidney liver bone brain joint wall node silhouette".split()
)
_ENDING = re.compile(r"(?:ations?|ings?|ions?|ments?|omas?|os[ie]s|ous|ated|ed|es|s|um|us|is|e|ia|y)$")


def _pattern(words: list[str]) -> str:
    """Words in the singular or plural, blanks and hyphens alike."""
    out = []
    for word in sorted(set(words), key=len, reverse=True):
        stem = r"[\s_-]+".join(map(re.escape, re.split(r"[\s_-]+", word)))
        if word.endswith(("ss", "x", "us")):
            out.append(rf"{stem}(?:es)?")
        elif word.endswith("y") and word[-2:-1] not in "aeou":
            out.append(rf"{stem[:-1]}(?:y|ies)")
        else:
            out.append(rf"{stem.removesuffix('s')}(?:s|es)?")
    return "|".join(out)


@lru_cache(maxsize=1024)
def thing_of(name: str) -> Thing:
    """Everything by which a thing may be known."""
    side, plain = _sided(" ".join(re.findall(r"[^\s_\-()]+", name.lower())).replace("haem", "hem"))
    if not plain:
        raise UsageError("suite hallucinogen: an example has no name of a thing in `finding`; give it one")
    single = plain.removesuffix("s") if plain not in WORDS and not plain.endswith(("ss", "is", "us")) else plain
    everyday = WORDS.get(plain, WORDS.get(single, []))
    known = None if everyday else canonical(plain, "finding") or canonical(re.sub(r"^lung ", "", plain), "finding")
    finding = known[1] if known else None
    called = [_pattern([single, *([finding] if finding else []), *everyday])]
    called += [CLINICAL[finding]] if finding in CLINICAL else []
    called += [] if everyday or single in WORDS else [_related(single)]
    above = [kind for kind, of in KINDS.items() if single in of.split(", ")]
    kinds = _pattern([*above, *(["creature"] if "animal" in above else [])]) if above else ""
    other_kind = rf"(?:{kinds})\b[^,.;]{{0,40}}?"
    mates = [mate for kind in above for mate in KINDS[kind].split(", ") if mate != single]
    others = [w for mate in mates for w in (mate, *WORDS.get(mate, []))]
    another = (
        rf"|\b(?:the|that) (?:only )?(?:\w+ )?{other_kind} (?:is (?:\w+ly )?an?|"
        rf"consists? of(?: \w+)?) (?!(?:\w+ ){{0,2}}{MARK})"
        rf"|\b(?:both|all|each) of (?:them|which|these) (?:are |being )?(?:{_pattern(others)})\b"
        rf"|\bthe only (?:\w+ )?{other_kind} are (?!(?:\w+ ){{0,2}}{MARK})"
    )
    if finding and "oed" in plain:
        called.append(plain.replace("oed", "o?ed"))
    names = rf"\b(?:{'|'.join(called)})\b(?![\s-](?:{OBJECTS})\b)(?!-like (?!is|are|was)\w)"
    head = _pattern([single.split()[-1]]) if " " in single and not finding else ""
    none = [rf"\b(?:no|any|without|not a|not a single|not one) (?:\w+ )?(?:pieces? of )?(?:{kinds})\b"] if above else []
    none += [NOBODY] if single == "person" else [BARE] if "furniture" in above else []
    return Thing(
        plain=single,
        called=re.compile(names + _after(("no ", "any ", "not a ", "without a "), head)),
        loosely=re.compile(names + _after(("no ", "any ", "the ", "this ", "that "), head)),
        none=_compiled("|".join(none)),
        other=_compiled(rf"{STANDS_FOR}(?:{_pattern(others)})\b{another}" if others else ""),
        signs=_compiled(rf"\b(?:{SIGNS[finding]})\b" if finding in SIGNS else ""),
        normal=_compiled("|".join(_normal(finding or ""))),
        finding=finding,
        side=side,
        words=tuple(w for w in {*single.split(), *everyday} if len(w) >= 5),
    )


def _sided(plain: str) -> tuple[str, str]:
    """The side that the name of a finding begins with, "" without one, and the name without it."""
    begun = re.match(r"(left|right) (?:sided )?(?=\w)", plain)
    rest = plain[begun.end() :] if begun else plain
    return (begun[1], rest) if begun and canonical(rest, "finding") else ("", plain)


def _related(name: str) -> str:
    """The last word of a finding's name, other forms of it and words of its family: "herniated" for a hernia."""
    head = name.split()[-1]
    head = next((h for h in (head, head.removesuffix("s"), head.removesuffix("es")) if h in _FAMILY), head)
    family = _FAMILY.get(head, [])
    stem = _ENDING.sub("", head)
    forms = [rf"{re.escape(stem)}\w{{0,6}}"] if len(stem) >= 5 and head not in _VAGUE else []
    alone = [] if head.removesuffix("s") in _VAGUE else [head]
    return "|".join([*forms, *([_pattern([*alone, *family])] if alone or family else [])]) or _pattern([name])


def _normal(finding: str) -> list[str]:
    """What denies a finding without its name: its place called normal, and other words."""
    organ = ORGANS.get(finding)
    sound = [rf"\b(?:{organ})\b[^.;]{{0,40}}?\b{SOUND}\b", rf"\b{SOUND}(?:-sized)? (?:{organ})\b"] if organ else []
    sound += [rf"\b(?:{organ})\b[^.;]{{0,30}}?(?:n't|\bnot|\bneither|\bnor) (?:\w+ly )?{ALTERED}"] if organ else []
    return [*sound, *([NORMAL[finding]] if finding in NORMAL else [])]


def _after(words: tuple[str, ...], head: str) -> str:
    """The last word of a name where one of these words stands before it."""
    return "".join(rf"|(?<=\b{word})(?:{head})\b" for word in words) if head else ""


def _compiled(pattern: str) -> re.Pattern[str] | None:
    return re.compile(pattern) if pattern else None


def marked(text: str, thing: Thing, *, loose: bool) -> str:
    """The text with `MARK` wherever it names the thing, and for "a small one" after that; slips set right before.

    `loose`: the question took the thing for granted, so that "the table" is the dining table."""
    named = (thing.loosely if loose else thing.called).sub(MARK, mended(text, thing))
    first, mark, rest = named.partition(MARK)
    named = first + mark + _ANAPHOR.sub(rf"\1{MARK}", rest) if mark else _ONES.sub(rf"\1{MARK}", named)
    return _of_side(named, thing.side) if thing.side else named


def _of_side(named: str, side: str) -> str:
    """The text without what it says of the thing on the opposite side alone: there instead of here is not here. The
    sides of a picture are no one's."""

    def elsewhere(part: str) -> bool:
        sides = re.findall(r"\b(left|right)\b(?!(?: \w+)? of the (?:image|film|picture|radiograph|scan))", part)
        return MARK in part and bool(sides) and side not in sides

    parts = [part[0] for part in _PART.finditer(named)]
    here = any(MARK in part and not elsewhere(part) for part in parts)

    def read(part: re.Match[str]) -> str:
        if not elsewhere(part[0]):
            return part[0]
        unsaid = here or re.search(r"\b(?:no|not|none|without|if|may|could)\b|n't\b", part[0])
        return " " if unsaid else f" no {MARK}"

    return _PART.sub(read, named)


_PART = re.compile(r"(?:(?!,? (?:but|while|whereas|and)\b)[^.;\n])+")
_ANAPHOR = re.compile(
    r"(\b(?:(?:a|an|another)(?: [\w-]+){1,3}|the (?:left|right|other|second|smaller|larger|upper|lower)) )one\b"
)

_ONES = re.compile(r"(\b(?:an?|another) (?:(?!good|no|any|that)[\w-]+ ){1,2}|^\W*(?:[\w-]+ ){1,2})ones?\b(?! of\b)")
"""One of what was asked for, in an answer that does not name it."""


def mended(text: str, thing: Thing) -> str:
    """The text with slips of the keyboard in the thing's name set right: one letter lost, doubled, swapped or wrong."""
    for word in thing.words:
        if word in text.lower():
            continue
        for found in re.findall(rf"\b{word[0]}\w{{{len(word) - 2},{len(word) + 1}}}\b", text):
            plain = found.lower()
            if meanings(plain):
                continue
            if _slip(plain, word) or _slip(plain.removesuffix("s"), word):
                text = text.replace(found, word + ("s" if plain.endswith("s") and not word.endswith("s") else ""))
    return text


def _slip(a: str, b: str) -> bool:
    """Whether two words differ by two swapped letters, or by one: lost or doubled in a long word, wrong in a longer.
    Short words that differ by a letter are words of their own ("horse", "house")."""
    if a != b and len(b) >= 6 and sorted(a) == sorted(b):
        return True
    if a == b or abs(len(a) - len(b)) > 1:
        return False
    n = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    if len(a) != len(b):
        return len(b) >= 6 and (a[n + 1 :] == b[n:] if len(a) > len(b) else a[n:] == b[n + 1 :])
    swapped = a[n : n + 2] == b[n : n + 2][::-1] and a[n + 2 :] == b[n + 2 :]
    return swapped or (len(b) >= 7 and a[n + 1 :] == b[n + 1 :])
