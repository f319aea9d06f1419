"""Reports compared claim by claim with a reference report, or with true values where a data set has them; and the
fourteen CheXpert observations (arXiv 1901.07031) of a report, read by rules, each with its side and zone.

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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from clinalign.language.claims import Claim, claims
from clinalign.language.graph import CONCEPTS, GENERIC, ORGAN_GROUP, is_a, related
from clinalign.language.parse import ABSENT, PRESENT, UNCERTAIN, Mention

COMPARED = ("side", "zone", "size", "severity")
"""Slots in which two claims of the same finding can disagree."""


OLD = frozenset(
    ("granuloma", "calcification", "emphysema", "fibrosis", "degenerative change", "device", "tortuous aorta")
)
"""Findings that a report may mention and still call the organ clear."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that the reference says of a finding."""

    finding: str
    status: str
    slots: tuple[tuple[str, str], ...] = ()

    def get(self, slot: str) -> str | None:
        return dict(self.slots).get(slot)


@dataclass(frozen=True, slots=True)
class ClinicalError:
    """A claim that contradicts the reference: "slot" (`mention` is wrong, `value` true), "invented" or "denied"."""

    kind: str
    claim: Claim
    mention: Mention | None = None
    value: str | None = None


def facts(truth: str, slots: Mapping[str, Any] | None = None) -> tuple[Fact, ...]:
    """The reference's facts: from `slots` (finding -> {"presence", "side", ...}) or from the text."""
    given = {k: v for k, v in (slots or {}).items() if isinstance(v, Mapping) and "presence" in v}
    if not given:
        return _facts_of_text(truth)
    return tuple(
        Fact(
            finding,
            PRESENT if said["presence"] in ("yes", True, PRESENT) else ABSENT,
            tuple((slot, str(said[slot])) for slot in COMPARED if said.get(slot)),
        )
        for finding, said in given.items()
    )


@lru_cache(maxsize=4096)
def _facts_of_text(truth: str) -> tuple[Fact, ...]:
    return tuple(_fact(c) for c in claims(truth) if c.about_now)


def _fact(claim: Claim) -> Fact:
    slots = tuple((slot, v) for slot in COMPARED if (v := claim.value(slot)) is not None)
    return Fact(claim.finding, claim.status, slots)


def compare(own: Sequence[Claim], reference: Sequence[Fact]) -> tuple[list[ClinicalError], list[Fact]]:
    """The errors of a report's claims, and the reference's findings that the report leaves out."""
    there = [f for f in reference if f.status == PRESENT and f.finding not in GENERIC]
    maybe = [f for f in reference if f.status == UNCERTAIN]
    errors: list[ClinicalError] = []
    matched: set[int] = set()
    for claim in own:
        if not claim.about_now or claim.status == UNCERTAIN or (claim.status == ABSENT and _fact(claim) in reference):
            continue  # what the reference itself says is no error, even where it contradicts itself
        if claim.status == ABSENT:
            errors += _denied(claim, there, matched)
        elif claim.finding not in CONCEPTS:
            errors += _abnormal(claim, reference)
        elif claim.finding not in GENERIC and not _matches(claim, maybe):
            errors += _stated(claim, there, matched)
    omitted = [f for n, f in enumerate(there) if n not in matched]
    return errors, omitted


def _matches(claim: Claim, references: Sequence[Fact]) -> list[int]:
    return [n for n, f in enumerate(references) if related(claim.finding, f.finding)]


def _stated(claim: Claim, there: Sequence[Fact], matched: set[int]) -> list[ClinicalError]:
    matches = _matches(claim, there)
    if not matches:
        return [ClinicalError("invented", claim)]
    best: list[ClinicalError] | None = None
    for n in matches:
        clashes = _clashes(claim, there[n])
        if best is None or len(clashes) < len(best):
            best, chosen = clashes, n
    matched.add(chosen)
    if not best:
        matched.update(n for n in matches if not _clashes(claim, there[n]))
    return best or []


def _clashes(claim: Claim, fact: Fact) -> list[ClinicalError]:
    out = []
    for slot, value in fact.slots:
        said = claim.value(slot)
        if said is None or said == value or (slot == "side" and "bilateral" in (said, value)):
            continue
        for m in claim.slots[slot]:
            if m.value != value and m.status == PRESENT:
                out.append(ClinicalError("slot", claim, m, value))
                break
    return out


def _abnormal(claim: Claim, reference: Sequence[Fact]) -> list[ClinicalError]:
    """ "The lungs are abnormal" is a error where the reference calls them clear and finds nothing in them."""
    group = _group(claim)
    denied = any(f.finding == claim.finding and f.status == ABSENT for f in reference)
    there = any(f.status == PRESENT and f.finding in CONCEPTS and CONCEPTS[f.finding].group == group for f in reference)
    return [ClinicalError("invented", claim)] if denied and not there else []


def _group(claim: Claim) -> str | None:
    """The group of findings that a general statement speaks of: "lung" for "the lungs are clear", None for all."""
    if claim.finding.endswith(" abnormality") and claim.finding not in CONCEPTS:
        return claim.finding.removesuffix(" abnormality")
    organs = [ORGAN_GROUP[m.value] for m in claim.slots.get("organ", ()) if m.value in ORGAN_GROUP]
    return organs[0] if organs and claim.finding == "abnormality" else None


def _denied(claim: Claim, there: Sequence[Fact], matched: set[int]) -> list[ClinicalError]:
    """A denial is a error where the reference has the finding, at the place denied."""
    if claim.partial and (claim.implied or claim.finding in GENERIC):
        return []
    group = _group(claim)
    for n, fact in enumerate(there):
        info = CONCEPTS.get(fact.finding)
        if info is None or info.group == "device" or _elsewhere(claim, fact):
            continue
        if claim.finding == "abnormality" or group is not None:
            hit = group in (None, info.group) and fact.finding not in OLD
        else:
            hit = is_a(fact.finding, claim.finding)
        if hit:
            if claim.finding == fact.finding:
                matched.add(n)
            return [ClinicalError("denied", claim)]
    return []


def _elsewhere(claim: Claim, fact: Fact) -> bool:
    """Whether a denial speaks of another place or size: "no large effusion" beside a small one."""
    for slot in COMPARED:
        said, value = claim.value(slot), fact.get(slot)
        if said is not None and said != value and (value is not None or slot in ("size", "severity")):
            return True
    return False


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
    return concept is None or not (
        concept.group == "device" or concept.family == "surgery" or finding in _NO_ABNORMALITY
    )


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
