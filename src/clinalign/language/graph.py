"""The concept graph: findings with their synonyms, what they are kinds of, and where they are seen.

Read from `data/concepts.tsv` (written for this package) and `data/imported.tsv` (from other dictionaries,
built by `tools/build_vocabulary.py`). One concept a line, with where it comes from and under which licence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files

DATA = files(__package__) / "data"


@dataclass(frozen=True, slots=True)
class Concept:
    """A finding. `group` and `organ`: where it is; `noun`: c (countable), m (mass) or b (both); `is_a`: what it is a
    kind of; `modality`: the kinds of image that show it; `sides`, `sizes`: what is commonly said of it; `states` and
    `normal`: the states of an organ that mean it ("enlarged") and the organs whose normality denies it; `family`: the
    family of findings that a reader could mistake for each other; `source`, `licence`: provenance."""

    name: str
    group: str
    noun: str
    is_a: tuple[str, ...]
    organ: str
    modality: frozenset[str]
    sides: frozenset[str]
    sizes: frozenset[str]
    states: tuple[str, ...]
    normal: tuple[str, ...]
    family: str
    synonyms: tuple[str, ...]
    source: str
    licence: str


def rows(name: str) -> list[list[str]]:
    """The cells of a tab-separated data file, its heading left out."""
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()[1:]
    return [line.split("\t") for line in lines if line]


def _list(cell: str) -> tuple[str, ...]:
    return tuple(part for part in cell.split("; ") if part)


def _words(cell: str) -> frozenset[str]:
    return frozenset(cell.split())


def _concept(cells: list[str]) -> Concept:
    name, group, noun, is_a, organ, modality, sides, sizes, state, normal, family, synonyms, source, licence = cells
    return Concept(
        name,
        group,
        noun,
        _list(is_a),
        organ,
        _words(modality),
        _words(sides),
        _words(sizes),
        _list(state),
        _list(normal),
        family,
        _list(synonyms),
        source,
        licence,
    )


def _concepts() -> dict[str, Concept]:
    """The package's own concepts, those imported, and the imported wordings of the own ones."""
    found = {c.name: c for c in map(_concept, rows("concepts.tsv"))}
    for concept in map(_concept, rows("imported.tsv")):
        known = found.get(concept.name)
        more = known and replace(known, synonyms=known.synonyms + concept.synonyms)
        found[concept.name] = more or concept
    return found


CONCEPTS = _concepts()
"""Canonical name -> concept."""

GENERIC = frozenset(
    {"abnormality", "acute abnormality", "other abnormality", "lesion", "lung opacity", "device", "fluid", "gas"}
)
"""Findings that only say that something is there; a specific finding beside them wins."""

STATES = {
    (organ, state): c.name
    for c in reversed(CONCEPTS.values())
    for state in c.states
    for organ in (*c.normal, c.organ)
    if organ
}
"""(organ, state) -> the finding that "the heart is enlarged" states."""

NORMALS = {
    organ: tuple(c.name for c in CONCEPTS.values() if organ in c.normal)
    for k in CONCEPTS.values()
    for organ in k.normal
}
"""Organ -> the findings that "the heart is normal" denies."""

ORGAN_GROUP = {"lung": "lung", "pleura": "pleura", "breast": "breast", "eye": "eye"}
"""Organ called normal or clear -> the whole group of findings that this denies."""


@lru_cache(maxsize=8192)
def ancestors(name: str) -> frozenset[str]:
    """Everything that a finding is a kind of, itself left out. Any finding is an abnormality."""
    concept = CONCEPTS.get(name)
    found = {"abnormality"} - {name}
    for parent in concept.is_a if concept else ():
        found |= {parent} | ancestors(parent)
    return frozenset(found)


def is_a(narrow: str, broad: str) -> bool:
    """Whether a finding entails another: a consolidation is a lung opacity. "lung abnormality" names a whole group."""
    if narrow == broad or broad in ancestors(narrow):
        return True
    group = broad.removesuffix(" abnormality")
    return group != broad and broad not in CONCEPTS and narrow in CONCEPTS and CONCEPTS[narrow].group == group


def related(a: str, b: str) -> bool:
    """Whether two findings could be one: one is a kind of the other, or of the other without its place, as a tumor
    is of "mass" in "lung mass"."""
    return is_a(a, b) or is_a(b, a) or _placed(a, b) or _placed(b, a)


def _placed(a: str, b: str) -> bool:
    """Whether `b` is a head with a place before it, and `a`, which names no place, is a kind of that head."""
    one, other = CONCEPTS.get(a), CONCEPTS.get(b)
    if one is None or other is None or one.organ or not other.organ:
        return False
    return any(b.endswith(f" {head}") and head not in GENERIC and is_a(a, head) for head in other.is_a)
