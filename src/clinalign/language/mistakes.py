"""Plausible wrong values: what a reader could have said in the place of a right one."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import lru_cache

from clinalign.language.graph import CONCEPTS, GENERIC, Concept, related
from clinalign.language.lexicon import OPPOSITE, ORDER

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
        return corpus or swaps(value)
    if given and len(set(given) - {value, "none"}) > 0:
        return tuple(v for v in given if v not in (value, "none"))
    if kind == "location":
        near = ORDER["location"] if value in ORDER["location"] else (OPPOSITE[value],) if value in OPPOSITE else ()
        return tuple(v for v in near if v != value)
    return tuple(v for v in ORDER.get(kind, ()) if v != value)


@lru_cache(maxsize=4096)
def swaps(finding: str) -> tuple[str, ...]:
    """The findings that a reader could mistake a finding for: of its family, seen on the same kind of image, and no
    kinds of one another."""
    own = CONCEPTS[finding]
    if not own.swap:
        return ()
    family = [c for c in CONCEPTS.values() if c.swap == own.swap and c.name != finding]
    return tuple(c.name for c in family if _could_be(c, own) and not related(c.name, finding))


def _could_be(other: Concept, own: Concept) -> bool:
    """Whether one finding could be named for another on the same kind of image, in the same part of the body."""
    place = (own.group == other.group) or (own.group in _CHEST and other.group in _CHEST)
    return place and bool(own.modality & other.modality) and own.group != "device"
