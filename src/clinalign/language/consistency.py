"""Whether a text contradicts itself, and what an edit changed besides its claim."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

from clinalign.language.claims import Claim, claims
from clinalign.language.graph import is_a
from clinalign.language.parse import ABSENT, PRESENT

_PLACES = ("side", "zone", "location", "organ", "level")


def contradictions(text: str) -> list[tuple[Claim, Claim]]:
    """The pairs of claims of a text that cannot both be true: a finding said to be there and denied at one place."""
    said = [c for c in claims(text) if c.about_now and c.temporality != "new"]
    return [pair for a, b in combinations(said, 2) for pair in [_clash(a, b)] if pair is not None]


def _clash(a: Claim, b: Claim) -> tuple[Claim, Claim] | None:
    """The present and the absent claim, where the one denies the other."""
    if {a.status, b.status} != {PRESENT, ABSENT}:
        return None
    there, denied = (a, b) if a.status == PRESENT else (b, a)
    if denied.partial or not is_a(there.finding, denied.finding) or denied.finding == "abnormality":
        return None
    for kind in _PLACES:
        one, other = there.value(kind), denied.value(kind)
        if one is not None and other is not None and one != other:
            return None
    limits = ("size", "severity", "measurement", "count")
    return None if any(denied.value(kind) is not None for kind in limits) else (there, denied)


def changed_claims(before: str, after: str) -> int:
    """How many findings have another status or other attributes in one text than in the other."""
    one, other = (Counter(_shown(c) for c in claims(text)) for text in (before, after))
    return len({finding for finding, *_ in (one - other) | (other - one)})


def _shown(claim: Claim) -> tuple[object, ...]:
    slots = sorted((kind, m.value, m.status) for kind, said in claim.slots.items() for m in said)
    return claim.finding, claim.status, tuple(slots)
