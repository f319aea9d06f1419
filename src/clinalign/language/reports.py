"""Reports compared claim by claim with a reference report, or with true values where a data set has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from clinalign.language.claims import Claim, claims
from clinalign.language.graph import CONCEPTS, GENERIC, ORGAN_GROUP, is_a, related
from clinalign.language.judge import Judgement
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
class Fault:
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


def compare(own: Sequence[Claim], reference: Sequence[Fact]) -> tuple[list[Fault], list[Fact]]:
    """The faults of a report's claims, and the reference's findings that the report leaves out."""
    there = [f for f in reference if f.status == PRESENT and f.finding not in GENERIC]
    maybe = [f for f in reference if f.status == UNCERTAIN]
    faults: list[Fault] = []
    told: set[int] = set()
    for claim in own:
        if not claim.about_now or claim.status == UNCERTAIN or (claim.status == ABSENT and _fact(claim) in reference):
            continue  # what the reference itself says is no fault, even where it contradicts itself
        if claim.status == ABSENT:
            faults += _denied(claim, there, told)
        elif claim.finding not in CONCEPTS:
            faults += _abnormal(claim, reference)
        elif claim.finding not in GENERIC and not _matches(claim, maybe):
            faults += _stated(claim, there, told)
    omitted = [f for n, f in enumerate(there) if n not in told]
    return faults, omitted


def _matches(claim: Claim, references: Sequence[Fact]) -> list[int]:
    return [n for n, f in enumerate(references) if related(claim.finding, f.finding)]


def _stated(claim: Claim, there: Sequence[Fact], told: set[int]) -> list[Fault]:
    matches = _matches(claim, there)
    if not matches:
        return [Fault("invented", claim)]
    best: list[Fault] | None = None
    for n in matches:
        clashes = _clashes(claim, there[n])
        if best is None or len(clashes) < len(best):
            best, chosen = clashes, n
    told.add(chosen)
    if not best:
        told.update(n for n in matches if not _clashes(claim, there[n]))
    return best or []


def _clashes(claim: Claim, fact: Fact) -> list[Fault]:
    out = []
    for slot, value in fact.slots:
        said = claim.value(slot)
        if said is None or said == value or (slot == "side" and "bilateral" in (said, value)):
            continue
        for m in claim.slots[slot]:
            if m.value != value and m.status == PRESENT:
                out.append(Fault("slot", claim, m, value))
                break
    return out


def _abnormal(claim: Claim, reference: Sequence[Fact]) -> list[Fault]:
    """ "The lungs are abnormal" is a fault where the reference calls them clear and finds nothing in them."""
    group = _group(claim)
    denied = any(f.finding == claim.finding and f.status == ABSENT for f in reference)
    there = any(f.status == PRESENT and f.finding in CONCEPTS and CONCEPTS[f.finding].group == group for f in reference)
    return [Fault("invented", claim)] if denied and not there else []


def _group(claim: Claim) -> str | None:
    """The group of findings that a general statement speaks of: "lung" for "the lungs are clear", None for all."""
    if claim.finding.endswith(" abnormality") and claim.finding not in CONCEPTS:
        return claim.finding.removesuffix(" abnormality")
    organs = [ORGAN_GROUP[m.value] for m in claim.slots.get("organ", ()) if m.value in ORGAN_GROUP]
    return organs[0] if organs and claim.finding == "abnormality" else None


def _denied(claim: Claim, there: Sequence[Fact], told: set[int]) -> list[Fault]:
    """A denial is a fault where the reference has the finding, at the place denied."""
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
                told.add(n)
            return [Fault("denied", claim)]
    return []


def _elsewhere(claim: Claim, fact: Fact) -> bool:
    """Whether a denial speaks of another place or size: "no large effusion" beside a small one."""
    for slot in COMPARED:
        said, value = claim.value(slot), fact.get(slot)
        if said is not None and said != value and (value is not None or slot in ("size", "severity")):
            return True
    return False


def judge_report(answer: str, truth: str, slots: Mapping[str, Any] | None = None) -> Judgement:
    """Right when no claim contradicts the reference and no finding of the reference is left out."""
    own, reference = claims(answer), facts(truth, slots)
    if not own:
        return Judgement(None, "no_claims")
    if not reference:
        return Judgement(None, "reference_without_claims")
    faults, omitted = compare(own, reference)
    counts = {kind: sum(f.kind == kind for f in faults) for kind in ("slot", "invented", "denied")}
    shown: dict[str, Any] = {"asked": "report", **counts, "omitted": len(omitted), "claims": len(own)}
    if faults:
        first = faults[0]
        at = first.mention or first.claim.mention
        return Judgement(False, f"{first.kind}: {first.claim.finding}", (at.start, at.end), shown)
    if omitted:
        return Judgement(False, f"omitted: {omitted[0].finding}", None, shown)
    return Judgement(True, "agrees", None, shown)
