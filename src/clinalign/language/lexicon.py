"""Phrases of clinical text: findings of the concept graph, and the values of sides, zones, sizes and the other slots.

Phrases are matched as whole words, longest first, plural and hyphens allowed, British and common wrong spellings read
as the usual one.
"""

from __future__ import annotations

from functools import lru_cache

from clinalign.language.graph import CONCEPTS, is_a, rows

ORDER = {
    "side": ("left", "right"),
    "zone": ("upper", "middle", "lower"),
    "size": ("small", "large", "moderate"),
    "severity": ("mild", "severe"),
    "count": ("1", "2", "3", "4", "5"),
    "modality": ("x-ray", "ct", "mri", "ultrasound"),
    "plane": ("axial", "sagittal", "coronal"),
    "weighting": ("t1", "t2"),
    "location": ("frontal lobe", "temporal lobe", "parietal lobe", "occipital lobe"),
    "organ": ("lung", "heart", "liver", "spleen", "kidney", "bladder", "stomach", "brain", "pancreas", "breast"),
    "shape": ("round", "oval", "irregular"),
    "intensity": ("high", "low"),
}
"""Values offered as plausible alternatives when a claim of that slot is turned."""

OPPOSITE = {"central": "peripheral", "anterior": "posterior", "medial": "lateral", "proximal": "distal"}
OPPOSITE |= {b: a for a, b in OPPOSITE.items()}
"""Places that only their opposite can stand in for."""

Node = dict[str, object]
END = ""

Meanings = tuple[tuple[str, str], ...]  # (kind, canonical value) of a phrase; "RUL" has a side and a zone


@lru_cache(maxsize=1)
def _spellings() -> dict[str, str]:
    return {wrong: right for wrong, right, *_ in rows("spellings.tsv")}


_BRITISH = tuple(
    pair.split(":")
    for pair in "haem:hem oedem:edem tumour:tumor oesoph:esoph ischaem:ischem anaem:anem leukaem:leukem paed:ped "
    "faec:fec fibre:fiber foet:fet centimetre:centimeter millimetre:millimeter visualis:visualiz localis:localiz "
    "vascularis:vasculariz mineralis:mineraliz generalis:generaliz calibre:caliber colour:color coeliac:celiac "
    "gynaec:gynec diarrhoea:diarrhea recognis:recogniz characteris:characteriz grey:gray organis:organiz "
    "hyalinis:hyaliniz keratinis:keratiniz".split()
)


@lru_cache(maxsize=65536)
def spelled(word: str) -> str:
    """A lower-case word in its usual spelling: "oedema" as "edema", "rigth" as "right"."""
    known = _spellings().get(word)
    if known is not None:
        return known
    for british, american in _BRITISH:
        if british in word:
            word = word.replace(british, american)
    return word


def _split(phrase: str) -> list[str]:
    return [spelled(word) for word in phrase.lower().replace("-", " ").replace("/", " ").split()]


def _slots() -> list[tuple[str, Meanings]]:
    out = []
    for kind, value, cell in rows("slots.tsv"):
        meanings = tuple(zip(kind.split("+"), value.split("+"), strict=True))
        out += [(phrase, meanings) for phrase in cell.split("; ")]
    return out


def _trie() -> Node:
    root: Node = {}
    findings: list[tuple[str, Meanings]] = [(c.name, (("finding", c.name),)) for c in CONCEPTS.values()]
    findings += [(phrase, (("finding", c.name),)) for c in reversed(CONCEPTS.values()) for phrase in c.synonyms]
    for phrase, meanings in [*_slots(), *findings]:
        node = root
        for word in _split(phrase):
            node = node.setdefault(word, {})  # type: ignore[assignment]
        node.setdefault(END, meanings)
    return root


TRIE = _trie()
"""Word -> word -> ... -> "" -> ((kind, canonical value), ...)."""

SLOTS = tuple(
    dict.fromkeys(
        [kind for kinds, _, _ in rows("slots.tsv") for kind in kinds.split("+") if kind not in ("normal", "image")]
    )
) + ("measurement", "level")
"""The kinds of claim besides the finding itself."""


@lru_cache(maxsize=4096)
def meanings(phrase: str) -> Meanings:
    """Every (kind, value) of a phrase that is one lexicon entry; none where it is not."""
    node: Node = TRIE
    for word in _split(phrase):
        step = node.get(word) or node.get(singular(word))
        if step is None:
            return ()
        node = step  # type: ignore[assignment]
    return node.get(END, ())  # type: ignore[return-value]


def canonical(phrase: str, kind: str | None = None) -> tuple[str, str] | None:
    """(kind, value) of a phrase that is one lexicon entry ("Lt", "pulmonary nodules"), else None."""
    return next((found for found in meanings(phrase) if kind in (None, found[0])), None)


@lru_cache(maxsize=1)
def _organ_words() -> dict[str, list[str]]:
    return {value: cell.split("; ") for kind, value, cell in rows("slots.tsv") if kind == "organ"}


@lru_cache(maxsize=8192)
def narrowed(finding: str, organ: str, said: str = "") -> str | None:
    """The kind of a finding that an organ makes it, as the lexicon names it: "mass" of the kidney, "kidney mass". With
    the words that said it a compound of them counts too: "narrowing" of the joint space is its own finding."""
    for word in _organ_words().get(organ, ()):
        found = canonical(f"{word} {finding}", "finding")
        if found is not None and found[1] != finding and is_a(found[1], finding):
            return found[1]
        found = canonical(f"{word} {said}", "finding") if said else None
        if found is not None:
            return found[1]
    return None


def singular(word: str) -> str:
    """A regular plural without its ending; irregular ones are listed in the lexicon."""
    if len(word) < 4 or word[-1] != "s" or word.endswith(("ss", "is", "us")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1]


_LONG = 7
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@lru_cache(maxsize=65536)
def corrected(word: str) -> str:
    """A word of a text in its usual spelling, slips of the keyboard in long clinical words mended."""
    word = spelled(word)
    return word if len(word) < _LONG - 1 or not word.isalpha() or word in _vocabulary() else _mended(word)


def _mended(word: str) -> str:
    """The one long word of the vocabulary that differs by two letters exchanged, one left out or one doubled."""
    found = {word[: i - 1] + word[i] + word[i - 1] + word[i + 1 :] for i in range(1, len(word))}
    found |= {word[:i] + word[i + 1 :] for i in range(1, len(word)) if word[i] == word[i - 1]}
    found |= {word[:i] + letter + word[i:] for i in range(1, len(word)) for letter in _LETTERS}
    meant = [w for w in found & _vocabulary() if len(w) >= _LONG]
    return meant[0] if len(meant) == 1 else word


@lru_cache(maxsize=1)
def _vocabulary() -> frozenset[str]:
    """The words of the package's own concepts and slots, in singular and plural."""
    phrases = [p for c in CONCEPTS.values() if c.source == "clinalign" for p in (c.name, *c.synonyms)]
    phrases += [p for _, _, cell in rows("slots.tsv") for p in cell.split("; ")]
    words = {spelled(w) for phrase in phrases for w in phrase.split()}
    return frozenset(words | {singular(w) for w in words} | {f"{w}s" for w in words})
