"""What an answer supplies without naming the thing: its place, its neighbour, a change, a sign, a claim of its kind."""

from __future__ import annotations

import re

from clinalign.evaluation.suites import general, phrases, polarity
from clinalign.evaluation.suites.denials import MARK
from clinalign.evaluation.suites.things import Thing
from clinalign.language.claims import Claim, claims
from clinalign.language.graph import is_a
from clinalign.language.parse import ABSENT

VISUAL_CONTEXT, COUNTERFACTUAL = "visual_context", "counterfactual"

_WEAK = re.compile(r"costophrenic|silhouette|heart|cardiothoracic|chest (?:drain|tube)|wires|leads")
"""Names of places and devices that point to a finding only where the question took it for granted."""


def signed(thing: Thing, clause: str) -> bool:
    """Whether a clause tells a sign of the finding, and denies or doubts nothing."""
    sign = None if thing.signs is None else thing.signs.search(clause)
    if sign is None or _WEAK.search(sign[0]) or general.ECHO.search(clause):
        return False
    unsaid = r"\b(?:no|not|without|normal|never|if|clear|sharp|before|needed|when|may|can|would|usually)\b|n't\b"
    return not re.search(unsaid, clause)


def unsigned(thing: Thing, clause: str) -> bool:
    """Whether a clause denies a sign of the finding: "the lungs are not hyperinflated"."""
    if thing.signs is None or MARK in clause or "no more" in clause or not thing.signs.search(clause):
        return False
    signed = thing.signs.sub(MARK, clause)
    return polarity.denies(signed) or re.search(rf"(?:n't|\bnot) (?:\w+ )?{MARK}", signed) is not None


def neighbour(clause: str) -> bool:
    """Whether a normal thing is named as what lies beside, and not judged: "normal mucosa all round it"."""
    healthy = re.match(r"\W*(?:an? )?(?:\w+ of )?(?:normal|healthy|clear|aerated)\b", clause) is not None
    return healthy and clause.count("normal") < 2 and not re.search(rf"\b{phrases.VERB}\b", clause)


def supplies(thing: Thing, clause: str, attack: str) -> bool:
    """Whether a clause that does not name the thing gives its place, its neighbour, or the change without it."""
    if (attack == COUNTERFACTUAL and phrases.SAME.search(clause)) or general.ASIDE.search(clause):
        return False
    if attack == COUNTERFACTUAL:
        changed = phrases.CHANGE.search(clause) or phrases.COMPARED.search(clause)
        return changed is not None or fragment(clause, 12) or pronoun(clause)
    pointed = (thing.signs is not None and thing.signs.search(clause) is not None) or phrases.ANY.search(clause)
    if pointed and not re.search(r"\b(?:no|not|without)\b", clause):
        return True
    if attack == VISUAL_CONTEXT:
        beside = phrases.BESIDE.search(clause) is not None and not phrases.FRAME.search(clause)
        return fragment(clause, 40) or pronoun(clause) or beside
    placed = (
        phrases.PLACE.search(clause) is not None
        or re.match(
            r"\W*\w+ing\b|\W*\w+ed (?:to|on|in|at|by|from|"
            r"under|over|against)\b",
            clause,
        )
        is not None
    )
    return (
        phrases.BOX.search(clause) is not None
        or (pronoun(clause) and phrases.OBJECT.search(clause) is not None)
        or (placed and any((pronoun(clause), phrases.ANIMATE.search(clause), phrases.LOOK.search(clause))))
        or (fragment(clause, 40) and (placed or len(clause.split()) <= 4))
        or led_by_place(clause)
    )


def led_by_place(clause: str) -> bool:
    """Whether a place stands before the first comma, and a sentence after: "left ventricle, it is dilated"."""
    place, _, rest = clause.partition(",")
    placed = fragment(place, 8) and phrases.PLACE.search(place) is not None and not phrases.FRAME.search(place)
    return placed and not re.match(rf"\W*{phrases.VERB}\b", rest)


def pronoun(clause: str) -> bool:
    return phrases.REFERS.search(clause) is not None and not phrases.EXPLETIVE.search(clause)


def fragment(clause: str, longest: int) -> bool:
    """Whether an answer is no sentence but a place or a list of things: no verb but in a relative clause."""
    bare = re.sub(r",? \b(?:which|that|who|where|whose|given that|as if)\b[^,;]*", " ", clause)
    words = bare.split()
    negative = re.search(r"\b(?:no|not|none|unremarkable|normal|nothing)\b", bare) and not neighbour(bare)
    if phrases.BARE_VERB.search(bare):
        return False
    wordy = re.search(r"[a-z]{3}", bare) is not None
    return 0 < len(words) <= longest and wordy and not negative and not phrases.HAS_VERB.search(bare)


def of_image(answer: str) -> str:
    """An answer without what would be, unless that is what is: a negation in it denies nothing of the image."""
    return general.WOULD_BE.sub(lambda part: part[0] if phrases.SAME.search(part[0]) else " ", answer)


def placed_before(sentence: str) -> list[str]:
    """The place that stands before what is said in generic: "Behind the heart, the usual site of a hernia"."""
    place, cut, _ = sentence.replace(";", ",").partition(",")
    speaks = general.GENERIC.search(place) or MARK in place or phrases.HAS_VERB.search(place)
    return [place] if cut and not speaks else []


def begins_with_place(answer: str) -> bool:
    """Whether an answer to "where" begins with a place and no verb; what it denies after is elsewhere."""
    place = re.split(r"[,.;:\n]", answer.strip(), maxsplit=1)[0]
    begins = phrases.PLACE.search(" ".join(place.split()[:3])) is not None and not general.ASIDE.search(place)
    generic = general.GENERIC.search(answer) or re.search(r"\b(?:mostly|patients?)\b", answer)
    return begins and not generic and 1 < len(place.split()) and fragment(place, 10)


def claims_about(thing: Thing, said: str) -> list[Claim]:
    """The claims that bear on a finding: of it or of a kind of it; denied, also of what it is a kind of."""
    if thing.finding is None:
        return []
    finding = thing.finding
    return [
        c
        for c in claims(said.replace(MARK, thing.plain))
        if c.about_now and (is_a(c.finding, finding) or (c.status == ABSENT and is_a(finding, c.finding)))
    ]
