"""Words of radiology: findings with their synonyms, and the values of sides, zones, sizes and the other slots.

Phrases are matched as whole words, longest first, plural and hyphens allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from clinalign.language.vocabulary import FINDINGS_TABLE, SLOTS_TABLE

GENERIC = frozenset({"abnormality", "acute abnormality", "other abnormality", "lesion", "lung opacity"})
"""Findings that only say that something is there; a specific finding beside them wins."""

IS_A = {
    "consolidation": ("lung opacity", "abnormality"),
    "pneumonia": ("lung opacity", "abnormality"),
    "atelectasis": ("lung opacity", "abnormality"),
    "edema": ("lung opacity", "abnormality"),
    "nodule": ("lesion", "lung opacity", "abnormality"),
    "mass": ("lesion", "lung opacity", "abnormality"),
    "tumor": ("mass", "lesion", "abnormality"),
    "metastasis": ("tumor", "lesion", "abnormality"),
    "cyst": ("lesion", "abnormality"),
    "granuloma": ("nodule", "lesion", "abnormality"),
    "cavity": ("lesion", "abnormality"),
}
"""Narrower finding -> what it also is."""

ORGAN_GROUP = {"lung": "lung", "heart": "heart", "pleura": "pleura", "mediastinum": "mediastinum", "bone": "bone"}
"""Organ called normal or clear -> the group of findings that this denies."""

ORDER = {
    "side": ("left", "right"),
    "zone": ("upper", "middle", "lower"),
    "size": ("small", "large", "moderate"),
    "severity": ("mild", "severe"),
    "count": ("1", "2", "3", "4", "5"),
    "modality": ("x-ray", "ct", "mri", "ultrasound"),
    "plane": ("axial", "sagittal", "coronal"),
    "weighting": ("t1", "t2"),
    "location": (
        "frontal lobe",
        "temporal lobe",
        "parietal lobe",
        "occipital lobe",
        "central",
        "peripheral",
        "anterior",
        "posterior",
    ),
    "organ": ("lung", "heart", "liver", "spleen", "kidney", "bladder", "stomach", "brain", "pancreas", "breast"),
    "shape": ("round", "oval", "irregular"),
    "intensity": ("high", "low"),
}
"""Values offered as plausible alternatives when a claim of that slot is turned."""


@dataclass(frozen=True, slots=True)
class FindingInfo:
    """A finding's group ("lung", "pleura", ...) and its noun: c (countable), m (mass) or b (both usages)."""

    name: str
    group: str
    noun: str


Node = dict[str, object]
END = ""


Entry = tuple[str, str, str]  # phrase, kind, value


def _rows(table: str) -> list[list[str]]:
    """The cells of each row of a vocabulary table."""
    lines = table.strip().replace("\n    ", " ").splitlines()
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def _phrases(cell: str) -> list[str]:
    return [phrase.strip() for phrase in cell.split(";") if phrase.strip()]


def _entries() -> list[Entry]:
    findings = [(p, "finding", name) for name, _, _, cell in _rows(FINDINGS_TABLE) for p in [name, *_phrases(cell)]]
    return findings + [(p, kind, value) for kind, value, cell in _rows(SLOTS_TABLE) for p in _phrases(cell)]


def _trie(entries: list[Entry]) -> Node:
    root: Node = {}
    for phrase, kind, value in entries:
        node = root
        for word in phrase.replace("-", " ").split():
            node = node.setdefault(word, {})  # type: ignore[assignment]
        node.setdefault(END, (kind, value))
    return root


FINDINGS = {name: FindingInfo(name, group, noun) for name, group, noun, _ in _rows(FINDINGS_TABLE)}
"""Canonical name -> what kind of noun it is."""

TRIE = _trie(_entries())
"""Word -> word -> ... -> "" -> (kind, canonical value)."""

SLOTS = tuple(dict.fromkeys(kind for kind, _, _ in _rows(SLOTS_TABLE) if kind != "normal"))
"""The kinds of claim besides the finding itself."""


@lru_cache(maxsize=4096)
def canonical(phrase: str, kind: str | None = None) -> tuple[str, str] | None:
    """(kind, value) of a phrase that is one lexicon entry ("Lt", "pulmonary nodules"), else None."""
    node: Node = TRIE
    for word in phrase.lower().replace("-", " ").split():
        step = node.get(word) or node.get(singular(word))
        if step is None:
            return None
        node = step  # type: ignore[assignment]
    found = node.get(END)
    return found if found and kind in (None, found[0]) else None  # type: ignore[index,return-value]


def singular(word: str) -> str:
    """A regular plural without its ending; irregular ones are listed in the lexicon."""
    if len(word) < 4 or word[-1] != "s" or word.endswith(("ss", "is", "us")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1]


def is_a(narrow: str, broad: str) -> bool:
    """Whether a finding entails another: a consolidation is a lung opacity."""
    return narrow == broad or broad in IS_A.get(narrow, ("abnormality",) if broad == "abnormality" else ())
