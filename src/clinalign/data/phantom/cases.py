"""Phantom cases: which findings a patient has, and the image and masks that follow from them.

A case is a patient number and at most one finding of each kind. Everything is a pure function of
(patient, findings, px) in integer arithmetic, so the arrays are the same on every machine. How each thing is drawn
is told in docs/phantom.md. These are phantoms: nothing here is clinical.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clinalign.data.phantom.draw import draw
from clinalign.data.phantom.hashing import Stream
from clinalign.errors import UsageError

VERSION = "phantom-1"
KINDS = ("nodule", "consolidation", "pleural effusion", "pneumothorax", "cardiomegaly", "atelectasis")
SIDES = ("left", "right")
ZONES = ("upper", "middle", "lower")
SIZES = ("small", "large")
PIXELS = (32, 64, 128)

FOCAL = ("nodule", "consolidation", "atelectasis")
FIXED_ZONE = {"pleural effusion": "lower", "pneumothorax": "upper"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. `side` is the patient's: patient left is at image right.

    Nodule, consolidation and atelectasis have side, zone and size; a pleural effusion is always in the lower zone
    and a pneumothorax in the upper one; cardiomegaly has none of the three. Raises UsageError for anything else.
    """

    kind: str
    side: str | None = None
    zone: str | None = None
    size: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"finding: unknown kind {self.kind!r}; use one of {', '.join(KINDS)}")
        allowed: dict[str, tuple[str | None, ...]] = {"side": SIDES, "zone": ZONES, "size": SIZES}
        if self.kind in FIXED_ZONE:
            allowed["zone"] = (FIXED_ZONE[self.kind],)
        if self.kind == "cardiomegaly":
            allowed = dict.fromkeys(allowed, (None,))
        for slot, values in allowed.items():
            if getattr(self, slot) not in values:
                names = ", ".join(str(value) for value in values)
                raise UsageError(f"finding {self.kind!r}: {slot}={getattr(self, slot)!r} is not allowed; use {names}")


@dataclass(frozen=True, slots=True)
class Case:
    """A patient number (the seed of anatomy and noise, >= 0) and the findings, at most one of a kind."""

    patient: int
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        if self.patient < 0:
            raise UsageError(f"case: patient={self.patient} is negative; use a number from 0 up")
        kinds = [finding.kind for finding in self.findings]
        if len(set(kinds)) < len(kinds):
            raise UsageError(f"case {self.patient}: two findings of one kind in {kinds}; keep one of each kind")


@dataclass(frozen=True, slots=True)
class Render:
    """`image`: uint8 [px, px]; `masks`: one bool [px, px] per finding, in the order of `case.findings`."""

    image: npt.NDArray[np.uint8]
    masks: tuple[npt.NDArray[np.bool_], ...]


def sample_case(patient: int, *, kinds: Sequence[str] = KINDS, prevalence: float | Mapping[str, float] = 0.33) -> Case:
    """A random case, deterministic in `patient`.

    Each kind is present independently with its prevalence (a number, or one per kind; a kind missing from the
    mapping is absent). Side, zone and size are uniform. No two findings of a case share one zone of one lung: focal
    findings get distinct cells first, then effusion and pneumothorax take a side whose lower (upper) cell is free;
    where neither is, one focal finding moves to another free zone, which happens in about 2 % of cases.
    """
    present = [kind for kind in KINDS if kind in kinds and _is_present(patient, kind, prevalence)]
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise UsageError(f"sample_case: unknown kinds {unknown}; use {', '.join(KINDS)}")
    places = _places(patient, present)
    findings = []
    for kind in present:
        side, zone = places.get(kind, (None, None))
        size = None if kind == "cardiomegaly" else Stream(patient, "size", kind).pick(SIZES)
        findings.append(Finding(kind, side, zone, size))
    return Case(patient, tuple(findings))


def _is_present(patient: int, kind: str, prevalence: float | Mapping[str, float]) -> bool:
    share = prevalence.get(kind, 0.0) if isinstance(prevalence, Mapping) else prevalence
    if not 0.0 <= share <= 1.0:
        raise UsageError(f"sample_case: prevalence of {kind!r} is {share}; use a share from 0 to 1")
    return Stream(patient, "present", kind).below(1_000_000) < share * 1_000_000


def _places(patient: int, present: Sequence[str]) -> dict[str, tuple[str, str]]:
    stream = Stream(patient, "places")
    free = [(side, zone) for side in SIDES for zone in ZONES]
    places = {}
    for kind in FOCAL:
        if kind in present:
            places[kind] = free.pop(stream.below(len(free)))
    for kind, zone in FIXED_ZONE.items():
        if kind not in present:
            continue
        open_sides = [side for side in SIDES if (side, zone) in free]
        side = stream.pick(open_sides or SIDES)
        if not open_sides:
            moved = next(name for name, place in places.items() if place == (side, zone))
            places[moved] = free.pop(stream.below(len(free)))
        else:
            free.remove((side, zone))
        places[kind] = (side, zone)
    return places


def render(case: Case, px: int = 64) -> Render:
    """Draw a case at 32, 64 or 128 pixels a side.

    A finding's mask holds exactly the pixels in which the image differs from that of `counterfactual(case, index)`.
    Raises UsageError for another `px`.
    """
    if px not in PIXELS:
        raise UsageError(f"render: px={px} is not supported; use 32, 64 or 128")
    image, masks = draw(case.patient, case.findings, px)
    return Render(image, masks)


def counterfactual(case: Case, index: int, change: Finding | None = None) -> Case:
    """The counterfactual: same patient and noise, finding `index` removed (None) or replaced by `change`."""
    if not 0 <= index < len(case.findings):
        raise UsageError(
            f"counterfactual: case {case.patient} has {len(case.findings)} findings, index {index} is outside"
        )
    put = () if change is None else (change,)
    return Case(case.patient, case.findings[:index] + put + case.findings[index + 1 :])


def box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The smallest (x, y, w, h) in pixels that holds a mask; raises UsageError for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise UsageError("box: the mask is empty; a box needs at least one pixel")
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1
