"""Two values of one attribute compared: the same, another, or not to be matched."""

from __future__ import annotations

import re
from functools import lru_cache

from clinalign.language.graph import is_a
from clinalign.language.lexicon import OPPOSITE

ATTRIBUTES = ("side", "zone", "location", "size", "severity", "count", "measurement", "level", "shape", "intensity")
"""What a closed question can name of a finding and an answer has to agree with."""

PARTS = {
    "head": "brain skull sinus eye ventricle brainstem face mastoid ear nose scalp cistern",
    "chest": "lung heart pleura mediastinum rib trachea aorta diaphragm clavicle sternum hilum esophagus",
    "abdomen": "liver spleen kidney pancreas stomach gallbladder colon bowel bladder adrenal appendix intestine",
    "pelvis": "bladder uterus prostate ovary femur hip",
    "brain": "brainstem ventricle cistern",
    "eye": "retina macula lens cornea vitreous",
    "bone": "rib spine clavicle femur humerus skull pelvis scapula sternum tibia fibula forearm patella",
    "intestine": "colon appendix",
    "bowel": "colon appendix",
}  # fmt: skip
"""Organ -> what it holds."""

_FAMILIES = [
    set(family.split(", "))
    for family in (
        "frontal lobe, temporal lobe, parietal lobe, occipital lobe, cerebellum, basal ganglia, thalamus",
        "central, peripheral",
        "anterior, posterior",
        "medial, lateral",
        "proximal, distal",
        "upper outer quadrant, upper inner quadrant, lower outer quadrant, lower inner quadrant",
        "pancreatic head, pancreatic body, pancreatic tail",
        "superotemporal, inferotemporal, superonasal, inferonasal",
    )
]
"""Places of which one excludes the others."""


_OVERLAP = frozenset(
    frozenset(pair)
    for pair in (
        ("copd", "emphysema"),
        ("copd", "hyperinflation"),
        ("emphysema", "hyperinflation"),
        ("consolidation", "pneumonia"),
        ("infiltrate", "pneumonia"),
        ("airspace opacity", "pneumonia"),
        ("airspace opacity", "consolidation"),
        ("infiltrate", "consolidation"),
        ("heart failure", "pulmonary edema"),
        ("degenerative disc disease", "spondylosis"),
    )
)
"""Findings that often are one thing under two names, without one being a kind of the other."""


def same(kind: str, said: str, truth: str) -> bool | None:
    """Whether a said value is the true one. None where it says less than the truth, or part of it."""
    if said == truth:
        return True
    if kind == "finding":
        if is_a(said, truth):
            return True
        return None if is_a(truth, said) or frozenset((said, truth)) in _OVERLAP else False
    if kind == "side" and "bilateral" in (said, truth):
        return None
    if kind in ("size", "severity") and {said, truth} & {*said.split(" to "), *truth.split(" to ")} == {said, truth}:
        return False
    if kind in ("size", "severity"):
        return None if set(said.split(" to ")) & set(truth.split(" to ")) else False
    if kind == "count":
        return _counts(said, truth)
    if kind == "measurement":
        return _measurements(said, truth)
    if kind == "plane" and "frontal" in (said, truth) and {said, truth} & {"pa", "ap"}:
        return True if truth == "frontal" else None
    if kind == "organ":
        return None if part_of(said, truth) or part_of(truth, said) else False
    if kind == "location":
        apart = any(said in family and truth in family for family in _FAMILIES)
        return False if apart or OPPOSITE.get(said) == truth else None
    return overlap(said, truth) >= 0.5 if kind == "box" else False


def part_of(part: str, whole: str) -> bool:
    """Whether an organ lies in another."""
    return part in PARTS.get(whole, "").split()


def _counts(said: str, truth: str) -> bool | None:
    if "many" in (said, truth):
        other = truth if said == "many" else said
        return None if other.isdigit() and int(other) > 1 else False
    return said == truth


def _measurements(said: str, truth: str) -> bool:
    """Whether two measurements have one unit and differ by a twentieth at most."""
    one, other = numbers(said), numbers(truth)
    if said.split()[-1] != truth.split()[-1] or not one or not other:
        return False
    return abs(max(one) - max(other)) <= 0.05 * max(other)


@lru_cache(maxsize=8192)
def numbers(text: str) -> tuple[float, ...]:
    """The numbers in a text."""
    return tuple(float(n) for n in re.findall(r"\d+(?:\.\d+)?", text))


def overlap(a: str, b: str) -> float:
    """Intersection over union of two boxes "[x, y, w, h]"."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = numbers(a), numbers(b)
    width, height = min(ax + aw, bx + bw) - max(ax, bx), min(ay + ah, by + bh) - max(ay, by)
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (aw * ah + bw * bh - shared) if shared else 0.0
