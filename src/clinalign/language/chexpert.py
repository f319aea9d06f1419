"""The fourteen CheXpert observations (arXiv 1901.07031) of a report, read by rules, each with its side and zone.

As there, a present mention wins over an uncertain one and that over an absent one, and no class implies another;
infiltrates and scars are Lung Opacity, fibrosis is Pleural Other, infection is Pneumonia, congestion and heart failure
are Edema, granulomas are no Lung Lesion. "No Finding" is present where nothing besides support devices, operations and
variants is said to be present or possible, in these classes or outside them.

Unlike there: a text that says nothing of any finding has no label at all, for garbled text is not a normal report;
history and indication give no label; stents, clips and sternotomy wires are Support Devices; haemothorax and empyema
are Pleural Effusion, tuberculosis is Pneumonia; the heart or mediastinum called normal denies Cardiomegaly or Enlarged
Cardiomediastinum, and "mediastinum" alone mentions nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from clinalign.language.graph import CONCEPTS
from clinalign.language.parse import ABSENT, PRESENT, UNCERTAIN
from clinalign.language.reports import Fact, facts

NO_FINDING = "No Finding"
DEVICES = "Support Devices"
FINDINGS_OF = {
    "Enlarged Cardiomediastinum": ("enlarged mediastinum",),
    "Cardiomegaly": ("cardiomegaly",),
    "Lung Lesion": (
        "nodule",
        "lung mass",
        "mass",
        "cavity",
        "tumor",
        "malignancy",
        "carcinoma",
        "metastasis",
        "lesion",
    ),
    "Lung Opacity": ("lung opacity", "scarring", "bronchial wall thickening"),
    "Edema": ("edema", "pulmonary edema", "vascular congestion", "heart failure"),
    "Consolidation": ("consolidation",),
    "Pneumonia": ("pneumonia", "infection"),
    "Atelectasis": ("atelectasis",),
    "Pneumothorax": ("pneumothorax",),
    "Pleural Effusion": ("pleural effusion",),
    "Pleural Other": ("pleural thickening", "fibrosis", "pulmonary fibrosis"),
    "Fracture": ("fracture",),
    DEVICES: ("device",),
}
"""Class -> findings that it covers, with the kinds of them that a chest image shows."""

CLASSES = (NO_FINDING, *FINDINGS_OF)
_CLASS_OF = {finding: name for name, found in FINDINGS_OF.items() for finding in found}
_LEFT_OUT = frozenset({"granuloma", "pleural plaque", "granulomatous disease"})
_SHOWN = frozenset(("lung", "pleura", "heart", "mediastinum", "device"))
_NO_ABNORMALITY = frozenset({"anatomic variant", "low lung volumes", "breast density", "intrauterine pregnancy"})
_RANK = {ABSENT: 0, UNCERTAIN: 1, PRESENT: 2}


@lru_cache(maxsize=4096)
def class_of(finding: str) -> str | None:
    """The class of a finding: its own, or the nearest of what it is a kind of."""
    concept = CONCEPTS.get(finding)
    if finding in _LEFT_OUT or concept is None:
        return None
    if finding in _CLASS_OF:
        return _CLASS_OF[finding]
    found = [name for parent in concept.is_a if (name := class_of(parent)) is not None]
    if concept.group not in _SHOWN:
        found = [name for name in found if name == "Fracture"]
    return found[0] if found else None


def abnormal(finding: str) -> bool:
    """Whether a finding that is there makes an image abnormal: not so a device, an operation, a variant."""
    concept = CONCEPTS.get(finding)
    return concept is None or not (concept.group == "device" or concept.swap == "surgery" or finding in _NO_ABNORMALITY)


@dataclass(frozen=True, slots=True)
class Label:
    """present, uncertain or absent; `sides` and `zones` are those said of it where it is present."""

    status: str
    sides: frozenset[str] = frozenset()
    zones: frozenset[str] = frozenset()


def chexpert(text: str, slots: Mapping[str, Any] | None = None) -> dict[str, Label]:
    """The classes that a report speaks of. `slots` (finding -> {"presence", "side", "zone"}) win over the text."""
    return label_facts(facts(text, slots))


def label_facts(said: Iterable[Fact]) -> dict[str, Label]:
    """The classes of some facts, in the order of `CLASSES`; a class that none speaks of is left out."""
    every = list(said)
    grouped: dict[str, list[Fact]] = {}
    for fact in every:
        name = class_of(fact.finding)
        if name is not None:
            grouped.setdefault(name, []).append(fact)
    out = {name: _merged(grouped[name]) for name in FINDINGS_OF if name in grouped}
    if every and not any(fact.status != ABSENT and abnormal(fact.finding) for fact in every):
        out = {NO_FINDING: Label(PRESENT)} | out
    return out


def _merged(found: list[Fact]) -> Label:
    status = max((f.status for f in found), key=_RANK.__getitem__)
    there = [f for f in found if f.status == status == PRESENT]
    sides = {side for f in there if (side := f.get("side"))}
    if sides >= {"left", "right"}:
        sides = {"bilateral"}
    return Label(status, frozenset(sides), frozenset(zone for f in there if (zone := f.get("zone"))))
