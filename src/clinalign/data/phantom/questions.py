"""Claim questions about one phantom case: presence, side, size, zone, and which finding lies in a zone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clinalign.data.phantom.cases import KINDS, SIDES, SIZES, ZONES, Case
from clinalign.data.phantom.language_prior import prior
from clinalign.data.phantom.reports import LUNG
from clinalign.data.phantom.wording import (
    PRESENCE_PROMPTS,
    PRESENCE_STYLES,
    SIDE_CLOSED_PROMPTS,
    SIDE_PROMPTS,
    SIDE_STYLES,
    SIZE_CLOSED_PROMPTS,
    SIZE_PROMPTS,
    SIZE_STYLES,
    WHICH_NONE,
    WHICH_PROMPTS,
    WHICH_STYLES,
    ZONE_PROMPTS,
    ZONE_STYLES,
    Question,
    Rng,
    fill,
    pick,
)

CLAIM_KINDS = ("presence", "side_closed", "size_closed", "side", "size", "zone")
"""The kinds used for alignment: one claim, one answer."""

STYLES = {"side": SIDE_STYLES, "size": SIZE_STYLES, "zone": ZONE_STYLES}
_OPEN_PROMPTS = {"side": SIDE_PROMPTS, "size": SIZE_PROMPTS, "zone": ZONE_PROMPTS}
_CLOSED_PROMPTS = {"side": SIDE_CLOSED_PROMPTS, "size": SIZE_CLOSED_PROMPTS}
_VALUES = {"side": SIDES, "size": SIZES}


def presence(case: Case, rng: Rng) -> list[Question]:
    """Whether each of the six kinds is there."""
    found = {f.kind for f in case.findings}
    out = []
    for kind in KINDS:
        answer = "yes" if kind in found else "no"
        full = fill(pick(rng, PRESENCE_STYLES)[answer == "no"], kind)
        prompt = fill(pick(rng, PRESENCE_PROMPTS), kind)
        slots = {"presence": answer}
        out.append(
            Question(
                "presence", "closed", prompt, answer, full, kind, "presence", slots, prior("presence", answer, kind)
            )
        )
    return out


def open_slot(slot: str, case: Case, rng: Rng) -> list[Question]:
    """The value of `slot` (side, size, zone) of every finding of the case that has it; zone of lung findings only."""
    out = []
    for finding in case.findings:
        value = getattr(finding, slot)
        if value is None or (slot == "zone" and finding.kind not in LUNG):
            continue
        prompt = fill(pick(rng, _OPEN_PROMPTS[slot]), finding.kind)
        full = fill(pick(rng, STYLES[slot]), finding.kind, value)
        label = prior(slot, value, finding.kind)
        out.append(Question(slot, "open", prompt, value, full, finding.kind, slot, {slot: value}, label))
    return out


def closed_slot(slot: str, case: Case, rng: Rng) -> list[Question]:
    """Whether `slot` (side, size) of a finding has a value drawn at random."""
    out = []
    for finding in case.findings:
        value = getattr(finding, slot)
        if value is None:
            continue
        asked = pick(rng, _VALUES[slot])
        prompt = fill(pick(rng, _CLOSED_PROMPTS[slot]), finding.kind, asked)
        full = fill(pick(rng, STYLES[slot]), finding.kind, value)
        answer = "yes" if asked == value else "no"
        slots = {slot: value, "asked": asked}
        label = prior(slot, value, finding.kind)
        out.append(Question(f"{slot}_closed", "closed", prompt, answer, full, finding.kind, slot, slots, label))
    return out


def which(case: Case, rng: Rng) -> list[Question]:
    """The finding in a zone that holds exactly one, and one zone that holds none."""
    held: dict[tuple[str, str], list[str]] = {}
    for finding in case.findings:
        if finding.side is not None and finding.zone is not None:
            held.setdefault((finding.side, finding.zone), []).append(finding.kind)
    out = []
    for (side, zone), kinds in held.items():
        if len(kinds) == 1:
            full = fill(pick(rng, WHICH_STYLES), kinds[0])
            out.append(_which(side, zone, kinds[0], full, kinds[0], rng))
    side, zone = pick(rng, SIDES), pick(rng, ZONES)
    if (side, zone) not in held and rng.random() < 0.3:
        out.append(_which(side, zone, "none", WHICH_NONE, None, rng))
    return out


def _which(side: str, zone: str, answer: str, full: str, finding: str | None, rng: Rng) -> Question:
    prompt = pick(rng, WHICH_PROMPTS).format(side=side, zone=zone)
    return Question("which", "open", prompt, answer, full, finding, "finding", {"finding": answer})


CLAIMS: dict[str, Callable[[Case, Rng], list[Question]]] = {
    "presence": presence,
    "side_closed": lambda case, rng: closed_slot("side", case, rng),
    "size_closed": lambda case, rng: closed_slot("size", case, rng),
    "side": lambda case, rng: open_slot("side", case, rng),
    "size": lambda case, rng: open_slot("size", case, rng),
    "zone": lambda case, rng: open_slot("zone", case, rng),
}


def claim_questions(case: Case, rng: Rng, kinds: Sequence[str] = CLAIM_KINDS) -> list[Question]:
    """Every claim question of the given kinds, one wording each."""
    return [question for kind in kinds for question in CLAIMS[kind](case, rng)]
