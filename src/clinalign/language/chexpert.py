"""The fourteen CheXpert observations (arXiv 1901.07031) of a report, read by rules, each with its side and zone.

As there, a present mention wins over an uncertain one and that over an absent one, no class implies another, and "No
Finding" is present where no class besides support devices is present or uncertain. Unlike there, a text that says
nothing of any finding has no label at all: garbled text is not a normal report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clinalign.language.parse import ABSENT, PRESENT, UNCERTAIN
from clinalign.language.reports import Fact, facts

NO_FINDING = "No Finding"
DEVICES = "Support Devices"
FINDINGS_OF = {
    "Enlarged Cardiomediastinum": ("enlarged mediastinum",),
    "Cardiomegaly": ("cardiomegaly",),
    "Lung Lesion": ("nodule", "mass", "granuloma", "cavity", "tumor", "metastasis", "lesion"),
    "Lung Opacity": ("lung opacity", "fibrosis"),
    "Edema": ("edema",),
    "Consolidation": ("consolidation",),
    "Pneumonia": ("pneumonia", "tuberculosis"),
    "Atelectasis": ("atelectasis",),
    "Pneumothorax": ("pneumothorax",),
    "Pleural Effusion": ("pleural effusion",),
    "Pleural Other": ("pleural thickening",),
    "Fracture": ("fracture",),
    DEVICES: ("device",),
}
"""Class -> findings of the lexicon that it covers."""

CLASSES = (NO_FINDING, *FINDINGS_OF)
_CLASS_OF = {finding: name for name, found in FINDINGS_OF.items() for finding in found}
_RANK = {ABSENT: 0, UNCERTAIN: 1, PRESENT: 2}


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
        if fact.finding in _CLASS_OF:
            grouped.setdefault(_CLASS_OF[fact.finding], []).append(fact)
    out = {name: _merged(grouped[name]) for name in FINDINGS_OF if name in grouped}
    if every and all(label.status == ABSENT or name == DEVICES for name, label in out.items()):
        out = {NO_FINDING: Label(PRESENT)} | out
    return out


def _merged(found: list[Fact]) -> Label:
    status = max((f.status for f in found), key=_RANK.__getitem__)
    there = [f for f in found if f.status == status == PRESENT]
    sides = {side for f in there if (side := f.get("side"))}
    if sides >= {"left", "right"}:
        sides = {"bilateral"}
    return Label(status, frozenset(sides), frozenset(zone for f in there if (zone := f.get("zone"))))
