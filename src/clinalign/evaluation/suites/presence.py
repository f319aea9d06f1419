"""Does an answer grant that a thing is in the image? The deterministic reading that HALLUCINOGEN's release lacks.

An attack asks whether the thing is there, or takes it for granted and asks where it is, what is next to it, or what
would change without it. So an answer says yes, no, or neither:

1. its first or concluding word is yes or no;
2. it denies that the thing is there ("no X", "X is not visible", "the image does not show X", a finding denied);
3. it leaves the matter open, declines, or defines the word: unclear;
4. it accepts what the question takes for granted: it says something of the thing, or gives the place, the neighbour or
   the change that was asked for.

Double negations ("it would be wrong to say that there is no X") are turned before, and what stands under "if" or
"without the X," counts as supposed, not as said.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from clinalign.language.claims import Claim, claims
from clinalign.language.graph import is_a
from clinalign.language.lexicon import canonical
from clinalign.language.parse import ABSENT, PRESENT
from clinalign.language.wordings import cleaned, concluding, one_word, refuses

ATTACKS = ("identification", "localisation", "visual_context", "counterfactual")
YES, NO, UNCLEAR = "yes", "no", "unclear"


class Presence(NamedTuple):
    """`says`: yes, no or unclear; `rule`: leading, denied, open, asserted, presupposed or nothing."""

    says: str
    rule: str


_LEADING = re.compile(
    r"\W*(?:(yes|yeah|yep|yup|affirmative|absolutely|certainly|definitely|correct|indeed)\b(?! no\b)"
    r"|(no|nope|nah)\b(?=\s*(?:[,.;:!\u2013\u2014-]|$)|\s+(?:there|it|the|this|i|they)\b))",
    re.I,
)
_CONCLUDING = re.compile(
    r"\b(?:so|therefore|thus|hence|in conclusion|overall|conclusion),?:?\s+"
    r"(?:the answer (?:is|would be)\s+)?(?:(yes)|(no))\b(?=\s*[,.;:!]|$)",
    re.I,
)
_DOUBLE = (
    (
        r"\b(?:there is |there's )?no(?:t a)? (?:doubt|question)(?: about it)?(?: that)?,?|\bundoubtedly,?"
        r"|\bwithout (?:a |any )?doubt,?|\bnot only\b",
        " ",
    ),
    (r"\bnot (?:absent|missing|lacking)\b", "present"),
    (
        r"\b(?:not (?:true|correct|accurate|right|the case)|wrong|false|incorrect|untrue|inaccurate)"
        r"(?: to (?:say|state|claim|conclude|think|assume))?\s+that "
        r"(?:there (?:is|are|was)|i see|it (?:has|shows)) (?:no|not any)\b",
        "so that there is a",
    ),
)
"""What turns a denial round, and what it is turned into."""
_SUPPOSED = re.compile(
    r"(?:^|(?<=[.;!?]\s)|(?<=,\s))(?:and |but )?(?:(?:even )?if|imagine|suppose|supposing|were|had|in the absence of|"
    r"by removing|removing|after removing|with)\b[^,.;]*(?:,|(?=[.;]|$))"
    r"|(?:^|(?<=[.;!?]\s))without (?:the|a|an|this|that|its|any)\b[^,.;]*,",
    re.I,
)
_OPEN = re.compile(
    r"\b(?:cannot|can ?not|can't|could not|couldn't|difficult to|hard to|not possible to|impossible to) (?:be )?"
    r"(?:completely |entirely |fully )?(?:rule[d]? out|exclude[d]?|view|see (?:images|pictures))"
    r"|\bmay or may not\b|\b(?:might|could) or (?:might|could) not\b"
    r"|\b(?:cannot|can't|could not) be (?:assessed|evaluated|determined|judged|excluded)|\bdo(?:n't| not) know\b"
    r"|\bnot (?:able|qualified) to\b|\bunable to\b|(?:n't|\bnot) clear (?:from|in|on|whether|if)\b",
    re.I,
)
_STOP = (
    r"in|within|around|near|inside|at|on|with|is|are|was|were|the|between|behind|next|beside|adjacent|surrounding|longer|"
    r"doubt|would|to|that|which|than|by|from|further|change|but"
)
_FILL = rf"of the |of |(?!(?:{_STOP})\b)[\w-]+,? "
_SEEING = (
    r"(?:see|seen|show|shown|find|found|identify|contain|include|have|detect|observe|notice|depict|display|demonstrate|"
    r"reveal|exhibit|locate|feature|appear (?:to|that)|seem (?:to|that)|visuali[sz]e|present|suggest|indicate)"
)
_NOT = r"(?:n't|(?<!may )(?<!might )\bnot|\bnever)"
_DENIALS = (
    rf"\b(?:no|not a|not any|not a single|lacks?|lacking|free of|devoid of|negative for|absence of|neither|nor) "
    rf"(?:{_FILL}){{0,6}}NAME",
    rf"{_NOT}(?: \w+)?? (?:be )?(?:{_SEEING} |any |a |an )(?:{_FILL}){{0,5}}(?:be )?(?:any |a |an |the |{_FILL}){{0,4}}"
    rf"(?:there is an? )?NAME",
    rf"{_NOT} {_SEEING} (?:\w+ ){{0,6}}?(?:any |a |an |the )(?:{_FILL}){{0,2}}NAME",
    r"NAME(?: (?!(?:is|are|was|were|which|but|lies)\b)[\w-]+){0,5} (?:is|are|was|were|can|could|does|do|has)"
    r"(?:n't| not|not) (?:\w+ly )?(?:be |been |appear to be )?(?:\w+ly )?(?:present|visible|seen|there\b|identified|"
    r"detected|shown|depicted|included|found|observed|evident|apparent|exist|located|"
    r"in the (?:image|picture|photo|x-?ray|scan|radiograph|scene))",
    r"NAME:? (?:(?:is|are|was|were|appears?|seems?)(?: to be)? )?(?:absent|missing|nowhere|none\b)",
    rf"NAME (?:can|could|may) be (?:ruled out|excluded)"
    rf"|(?<!cannot )(?<!can't )\b(?:ruled|rules?) out (?:{_FILL}){{0,3}}NAME",
)
"""How a thing called NAME is denied."""
_PLACE = re.compile(
    r"\b(?:left|right|upper|lower|middle|centre|center|central|top|bottom|corner|above|below|under|beneath|behind|"
    r"beside|besides|between|near|nearby|next to|adjacent|around|surround\w*|in front|background|foreground|lobe|zone|"
    r"apex|apical|base|basal|hilum|hemithorax|region of|located|lies|on the|in the)\b",
    re.I,
)
_CHANGE = re.compile(r"\b(?:would|will|could|might|become|becomes|appear|less|more|no longer|again)\b", re.I)
_SAME = re.compile(r"\b(?:nothing|no change|not change|unchanged|the same|no difference|not differ|no effect)\b", re.I)
_REFERS = re.compile(r"\b(?:it|its|they|this|that|these)\b", re.I)
_VERB = re.compile(r"\b(?:is|are|was|were|has|have|shows?|sees?|see|can|could|do|does|appears?|contains?|i)\b", re.I)
_NONE_THERE = re.compile(
    r"\bnone (?:is|are|was|were|can be|could be)?\s*(?:visible|seen|present|there|identified|found|detected)\b"
    r"|\bnowhere\b|\b(?:premise|assumption|question) is (?:wrong|false|incorrect|mistaken)\b|^\W*none\W*$",
    re.I,
)


@lru_cache(maxsize=8192)
def presence(thing: str, text: str, attack: str = "identification") -> Presence:
    """Whether `text`, an answer to an attack on `thing`, grants that it is in the image."""
    answer = concluding(cleaned(text.replace("\u2019", "'"))).strip()
    for double, right in _DOUBLE:
        answer = re.sub(double, right, answer, flags=re.I)
    answer = " ".join(answer.split())
    first = _LEADING.match(answer)
    if first or one_word(answer) in (YES, NO):
        says = (YES if first[1] else NO) if first else str(one_word(answer))
        return Presence(says, "leading")
    concluded = _CONCLUDING.search(answer)
    if concluded:
        return Presence(YES if concluded[1] else NO, "leading")
    stated = " ".join(s for s in re.split(r"(?<=[.!?])\s+", answer) if s and not s.endswith("?"))
    said = " ".join(_SUPPOSED.sub(" ", stated).split()) if attack == "counterfactual" else stated
    name = _name(thing)
    about = _claims_about(thing, said)
    if _denied(name, said, attack):
        return Presence(NO, "denied")
    if about and all(c.status == ABSENT for c in about) and not _under(name, said) and not _OPEN.search(said):
        return Presence(NO, "denied")
    return _granted(name, stated, said, attack, about)


def _granted(name: str, stated: str, said: str, attack: str, about: list[Claim]) -> Presence:
    """An answer that denies nothing: does it say something of the thing, or leave it open?"""
    named = re.search(name, said, re.I) is not None or any(c.status == PRESENT for c in about)
    placed = re.search(
        rf"(?:\bit|{name}) (?:is|lies|sits|appears)(?: located| seen| found)? (?:in|at|on|near)\b", said, re.I
    )
    if _OPEN.search(said) or refuses(said):
        return Presence(YES, "asserted") if placed and attack == "localisation" else Presence(UNCLEAR, "open")
    if not said or _defines(name, said):
        return Presence(UNCLEAR, "nothing")
    if named:
        return Presence(YES, "asserted" if attack == "identification" else "presupposed")
    if attack == "identification":
        return Presence(UNCLEAR, "nothing")
    if attack == "counterfactual":
        changes = not _SAME.search(said) and (
            _CHANGE.search(said) is not None or len(said) < len(stated) and bool(said)
        )
        return Presence(YES, "presupposed") if changes else Presence(UNCLEAR, "nothing")
    words = said.split()
    fragment = 0 < len(words) <= 8 and not _VERB.search(said) and re.search(r"[a-z]{3}", said, re.I) is not None
    answers = _PLACE.search(said) is not None if attack == "localisation" else _relates(said)
    return Presence(YES, "presupposed") if fragment or answers else Presence(UNCLEAR, "nothing")


def _relates(said: str) -> bool:
    """Whether an answer about the surroundings speaks of the thing by a pronoun, or of what lies beside it."""
    beside = r"\b(?:beside|next to|surround\w*|around|near|touch\w*|adjacent|overl\w+|obscur\w+)\b"
    return _REFERS.search(said) is not None or re.search(beside, said, re.I) is not None


@lru_cache(maxsize=1024)
def _name(thing: str) -> str:
    """A pattern of the thing's name: blanks, hyphens and underscores alike, singular or plural."""
    words = re.split(r"[\s_-]+", thing.strip().lower())
    return r"\b" + r"[\s_-]+".join(map(re.escape, words)).removesuffix("s") + r"(?:s|es)?\b"


def _denied(name: str, said: str, attack: str) -> bool:
    """Whether the words deny that the thing is in the image."""
    patterns = [p.replace("NAME", name) for p in _DENIALS]
    if attack != "counterfactual":
        patterns.append(rf"\bwithout (?:{_FILL.replace(',?', '')}){{0,6}}{name}")
    return _NONE_THERE.search(said) is not None or any(re.search(p, said, re.I) for p in patterns)


def _claims_about(thing: str, said: str) -> list[Claim]:
    """The claims that bear on a finding: of it or of a kind of it; denied, also of what it is a kind of. What would be
    is no claim."""
    known = canonical(thing.replace("_", " "), "finding")
    if known is None:
        return []
    finding = known[1]
    held = " ".join(s for s in re.split(r"(?<=[.!;])\s+", said) if not re.search(r"\bwould\b", s))
    return [
        c
        for c in claims(held)
        if c.about_now and (is_a(c.finding, finding) or (c.status == ABSENT and is_a(finding, c.finding)))
    ]


def _under(name: str, said: str) -> bool:
    """Whether a denial is of something about the thing ("no calcification within the mass")."""
    return re.search(rf"\b(?:in|within|around|near|the|with|by|of the|of) (?:\w+ )?{name}", said, re.I) is not None


def _defines(name: str, said: str) -> bool:
    """Whether the answer only says what the word means: "A pneumothorax is air in the pleural space."."""
    means = r"(?:is|are) (?:a|an|the|any|air|fluid|when|defined|caused|usually|typically|often)\b|refers? to|means?\b"
    return re.match(rf"\W*(?:an? )?(?:\w+ )?{name} (?:{means})", said, re.I) is not None
