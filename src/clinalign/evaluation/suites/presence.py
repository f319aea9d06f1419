"""Does an answer grant that a thing is in the image? The deterministic reading that HALLUCINOGEN's release lacks.

An attack asks whether the thing is there, or takes it for granted and asks where it is, what is next to it, or what
would change without it. The answer is read clause by clause. A clause may say yes or no of the thing, with a weight:

- 3: it says so in as many words ("there is a dog", "no dog is visible", "the effusion has resolved");
- 2: it speaks of the thing as of something there, or a normal organ denies it ("the lungs are clear");
- 1: it supplies the place, neighbour or change that was asked for, or denies the thing of one side alone.

A clause that supposes, defines, generalises, tells the history or repeats the question says nothing; one that leaves
the matter open is a doubt. "I do not think that", "it would be wrong to say that" and the like turn what follows round.
The heaviest clause decides, a conclusion before the rest; yes and no in as many words are neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from clinalign.evaluation.suites import denials, phrases, polarity
from clinalign.evaluation.suites.clauses import clauses_of, plain, sentences
from clinalign.evaluation.suites.denials import MARK
from clinalign.evaluation.suites.things import Thing, marked, thing_of
from clinalign.language.claims import Claim, claims
from clinalign.language.graph import is_a
from clinalign.language.parse import ABSENT, PRESENT
from clinalign.language.wordings import cleaned, concluding, one_word, refuses

IDENTIFICATION, LOCALISATION, VISUAL_CONTEXT, COUNTERFACTUAL = ATTACKS = (
    "identification",
    "localisation",
    "visual_context",
    "counterfactual",
)
YES, NO, UNCLEAR = "yes", "no", "unclear"


class Presence(NamedTuple):
    """`says`: yes, no or unclear; `rule`: leading, contradiction, denied, asserted, presupposed, open or nothing."""

    says: str
    rule: str


class Vote(NamedTuple):
    """What one clause says of the thing: yes, no, or unclear for a doubt; how heavy; whether it concludes; whether it
    tells that the thing has ceased to be."""

    says: str
    weight: int
    concludes: bool = False
    ended: bool = False


@lru_cache(maxsize=8192)
def presence(name: str, text: str, attack: str = IDENTIFICATION) -> Presence:
    """Whether `text`, an answer to an attack on the thing called `name`, grants that it is in the image."""
    answer = cleaned(plain(text))
    last = concluding(answer).strip()
    read = _read(thing_of(name), last, attack)
    return _read(thing_of(name), answer.strip(), attack) if read.rule == "nothing" and last else read


def _read(thing: Thing, answer: str, attack: str) -> Presence:
    """What an answer, or the part of it that concludes, says of the thing."""
    whole = one_word(answer)
    if not answer or whole in (YES, NO):
        return Presence(str(whole), "leading") if answer else Presence(UNCLEAR, "nothing")
    answer = phrases.LABEL.sub("", answer)
    for double, right in denials.DOUBLE:
        answer = double.sub(right, answer)
    answer = marked(answer, thing, loose=attack != IDENTIFICATION)
    answer = phrases.ONE.sub(rf"\1 a {MARK}", answer)
    concluded = list(phrases.CONCLUDING.finditer(answer))
    if concluded and MARK not in answer[concluded[-1].end() :]:
        return Presence(YES if concluded[-1][1] else NO, "leading")
    votes = list(_votes(thing, answer, attack))
    first = phrases.LEADING.match(answer)
    if first:
        says = YES if first[1] else NO
        against = [v for v in votes if v.weight == 3 and v.says == (NO if first[1] else YES)]
        if against and phrases.AGREED.match(answer):
            return Presence(against[-1].says, "denied")
        if against and against[-1].concludes:
            return Presence(against[-1].says, "leading")
        return Presence(UNCLEAR, "contradiction") if against else Presence(says, "leading")
    return _decided(votes, attack)


def _decided(votes: list[Vote], attack: str) -> Presence:
    """The heaviest clauses decide, a conclusion before all; yes and no in as many words are neither."""
    if any(v.says == UNCLEAR and v.weight == 3 for v in votes):
        return Presence(UNCLEAR, "open")
    last = [v.says for v in votes if v.concludes and v.weight >= 2 and v.says != UNCLEAR]
    said = {weight: {v.says for v in votes if v.weight == weight} - {UNCLEAR} for weight in (3, 2, 1)}
    if last:
        return Presence(last[-1], "asserted" if last[-1] == YES else "denied")
    heavy = [v for v in votes if v.weight == 3 and v.says != UNCLEAR]
    if len(said[3]) == 2 and heavy[-1].ended:
        return Presence(NO, "denied")
    if len(said[3]) == 2:
        return Presence(UNCLEAR, "contradiction")
    granted = "asserted" if attack == IDENTIFICATION else "presupposed"
    for weight in (3, 2, 1):
        if weight == 1 and any(v.says == UNCLEAR for v in votes):
            return Presence(UNCLEAR, "open")
        if YES in said[weight]:
            return Presence(YES, granted)
        if said[weight]:
            return Presence(NO, "denied")
    return Presence(UNCLEAR, "nothing")


def _votes(thing: Thing, answer: str, attack: str) -> Iterator[Vote]:
    """What the clauses of an answer say of the thing, in order."""
    general = named = echoed = hedged = False
    asked: bool | None = None
    for sentence in sentences(answer):
        if sentence.endswith("?"):
            asked = MARK in sentence if len(sentence.split()) <= 6 else None
            continue
        alone = phrases.ALONE.match(sentence) or (phrases.LEADING.match(sentence) if asked else None)
        asked, besides = None, asked is False
        if alone and besides:
            continue
        if alone:
            yield Vote(YES if alone[1] else NO, 3)
            continue
        sentence = sentence if attack == IDENTIFICATION else phrases.TYPICAL.sub("", sentence)
        general = phrases.GENERIC.search(sentence) is not None or phrases.DEFINED.search(sentence) is not None or (
            general and re.match(r"\W*(?:it|they|these|this|such)\b", sentence) is not None
        )  # fmt: skip
        concludes = phrases.CONCLUSION.search(sentence) is not None
        clauses = clauses_of(" ".join(phrases.I_SAY.sub(" ", sentence).split()))
        if general and not (denials.REJECTED.search(sentence) or denials.RELATIVE.search(sentence)) and not phrases.I_SAY.search(sentence):
            clauses = [*_placed_before(sentence, attack), *filter(_of_now, clauses)]
        supposed = imagined = False
        for clause in _chosen(clauses):
            if echoed and MARK not in clause and phrases.INSTEAD.search(clause):
                yield Vote(NO, 2, concludes)
            if hedged and MARK not in clause and denials.HEDGED.search(clause):
                yield Vote(UNCLEAR, 1)
            if MARK in clause:
                hedged = _hedged(clause)
                echoed = hedged or phrases.ECHO.search(clause) is not None
            if supposed and phrases.OUTCOME.match(clause):
                continue
            imagined = (imagined and not phrases.TURN.match(clause)) or phrases.IMAGINED.search(clause) is not None
            if imagined:
                continue
            supposed = (
                attack == COUNTERFACTUAL
                and (phrases.MODAL.search(clause) or phrases.SUPPOSED.search(clause)) is not None
            )
            known, named = named or attack != IDENTIFICATION, named or MARK in clause
            vote = _vote(thing, _resumed(clause, known), attack)
            if vote is not None:
                ended = vote.says == NO and denials.GONE.search(clause) is not None
                yield vote._replace(concludes=concludes, ended=ended)


def _chosen(clauses: list[str]) -> list[str]:
    """The clauses without a "not there" that a "but there" follows."""
    return [
        c
        for c, after in zip(clauses, [*clauses[1:], ""], strict=False)
        if not (re.match(r"not\b", c) and after.startswith("but ") and not phrases.HAS_VERB.search(c.split(", ")[0]))
    ]


def _of_now(clause: str) -> bool:
    """Whether a clause of a sentence that generalises speaks of this image."""
    return (
        not phrases.GENERIC.search(clause)
        and not phrases.DEFINED.search(clause)
        and bool(denials.NONE.search(clause) or phrases.NOW.search(clause))
    )


def _placed_before(sentence: str, attack: str) -> list[str]:
    """The place that stands before what is said in general: "Behind the heart, the usual site of a hernia"."""
    if attack == IDENTIFICATION:
        return []
    place, cut, _ = sentence.replace(";", ",").partition(",")
    speaks = phrases.GENERIC.search(place) or MARK in place or phrases.HAS_VERB.search(place)
    return [place] if cut and not speaks else []


def _hedged(clause: str) -> bool:
    """Whether a clause leaves open that the thing is there, and not merely where it is."""
    hedge = denials.HEDGED.search(clause)
    return hedge is not None and MARK in clause[hedge.end() :]


def _resumed(clause: str, known: bool) -> str:
    """A clause with the thing for its missing subject, or for a pronoun, where that makes a denial of it."""
    if not known or MARK in clause:
        return clause
    for resumed in (phrases.HANGING.sub(rf"{MARK} \1", clause), phrases.PRONOUN.sub(rf"\1{MARK}", clause)):
        resumed = resumed.replace(f"{MARK}'s", f"{MARK} is")
        if resumed != clause and (denials.DENIED.search(resumed) or polarity.denies(resumed)):
            return resumed
    return clause


def _vote(thing: Thing, clause: str, attack: str) -> Vote | None:
    """What a clause says of the thing."""
    if denials.UNDECIDED.search(clause):
        return Vote(UNCLEAR, 3)
    if attack != IDENTIFICATION and denials.CONSEQUENCE.search(clause):
        return Vote(NO, 1)
    if denials.UNKNOWN.search(clause):
        return Vote(UNCLEAR, 2)
    if denials.RELATIVE.search(clause):
        return Vote(NO, 3)
    if denials.PROPERTY.search(clause):
        return Vote(YES, 2) if attack != IDENTIFICATION else None
    if denials.NONE.search(clause) and not (attack == COUNTERFACTUAL and phrases.CHANGE.search(clause)):
        return Vote(NO, 1 if re.search(r"\bnone\b", clause) and _of_a_part(clause) else 3)
    turned = denials.TURNED.search(clause)
    if turned:
        rest = _vote(thing, clause[turned.end() :], IDENTIFICATION)
        if rest is None:
            return None
        return Vote({YES: NO, NO: YES}.get(rest.says, UNCLEAR), 3)
    if denials.REJECTED.search(clause):
        return Vote(NO, 3)
    if attack != IDENTIFICATION and denials.MOOT.search(clause):
        return Vote(NO, 2)
    named = MARK in clause
    if phrases.THERE.search(clause):
        return Vote(YES, 3)
    supposed = phrases.SUPPOSED.search(clause) is not None
    if attack == COUNTERFACTUAL and phrases.HERE.search(clause) and not phrases.HISTORY.search(clause):
        if supposed or not denials.DENIED.search(clause):
            return Vote(YES, 3)
    if supposed or (phrases.WITHOUT.search(clause) and attack == COUNTERFACTUAL):
        if attack == COUNTERFACTUAL and phrases.CHANGE.search(clause) and not phrases.SAME.search(clause):
            return Vote(YES, 1)
        return None
    if attack == COUNTERFACTUAL and not named and phrases.ALREADY.search(clause):
        return Vote(NO, 2)
    modal = phrases.MODAL.search(clause) is not None
    if not modal and (denials.DENIED.search(clause) or (named and polarity.denies(clause))):
        return _in_words(thing, clause)
    if (denials.OPEN.search(clause) or refuses(clause)) and not (not named and denials.OF_ELSE.search(clause)):
        return Vote(UNCLEAR, 1)
    changed = attack == COUNTERFACTUAL and re.search(r"\b(?:could|might|will)\b", clause)
    said = None if modal or changed else _denied(thing, clause, attack)
    if said is not None:
        return said
    if modal and attack != COUNTERFACTUAL:
        return None
    if named:
        if attack == IDENTIFICATION and phrases.LIKENED.search(clause):
            return Vote(YES, 1)
        if phrases.ECHO.search(clause) or (
            phrases.HISTORY.search(re.sub(r"\([^)]*\)", "", clause)) and not phrases.STILL.search(clause)
        ):
            return None
        if attack != IDENTIFICATION and not phrases.ASSERTED.search(clause) and phrases.INDEFINITE.search(clause):
            return None
        if attack == IDENTIFICATION and phrases.ELSEWHERE.search(clause):
            return Vote(NO, 1)
        if phrases.EITHER.search(clause) and not phrases.HAS_VERB.search(clause):
            return Vote(UNCLEAR, 2)
        if _hedged(clause):
            return Vote(UNCLEAR if denials.OTHERWISE.search(clause) else YES, 1)
        return Vote(YES, 3 if phrases.ASSERTED.search(clause) and not modal else 2)
    if not modal and any(c.status == PRESENT for c in _claims_about(thing, clause)):
        return None if phrases.ECHO.search(clause) else Vote(YES, 2)
    if attack == IDENTIFICATION:
        return Vote(YES, 1) if _signed(thing, clause) else None
    return Vote(YES, 1) if _supplies(thing, clause, attack) else None


def _signed(thing: Thing, clause: str) -> bool:
    """Whether a clause tells a sign of the finding, and denies or doubts nothing."""
    signed = thing.signs is not None and thing.signs.search(clause) is not None
    return signed and not phrases.ECHO.search(clause) and not re.search(r"\b(?:no|not|without|normal|never|if|clear|sharp|before|needed|when|may|can|would|usually)\b|n't\b", clause)


def _of_a_part(clause: str) -> bool:
    """Whether what is denied is denied of one side or part alone."""
    return denials.SIDED.search(clause) is not None and not denials.BOTH.search(clause)


def _in_words(thing: Thing, clause: str) -> Vote:
    """A denial by name; of one side alone it weighs little, and of a further one it grants the first."""
    if denials.MORE.search(clause):
        return Vote(YES, 1)
    said = denials.DENIED.search(clause)
    near = clause[said.start() : said.end() + 40] if said else clause
    return Vote(NO, 1 if _of_a_part(near) or denials.APART.search(clause) else 3)


def _denied(thing: Thing, clause: str, attack: str) -> Vote | None:
    """A denial of the thing in other words, by its kind or by the claims."""
    partial = _of_a_part(clause)
    without = re.search(rf"\bwithout (?:any |an? )?(?:\w+ ){{0,3}}?{MARK}", clause)
    if without and (attack != COUNTERFACTUAL or phrases.HAS_VERB.search(clause[: without.start()])):
        return Vote(NO, 3)
    if MARK not in clause and not _pronoun(re.sub(r"\bin it\W*$", "", clause)):
        only = attack != IDENTIFICATION and phrases.EXCLUSIVE.search(clause)
        if attack in (IDENTIFICATION, LOCALISATION) and phrases.THESE_ONLY.search(clause):
            return Vote(NO, 2)
        if only or (thing.finding is None and phrases.NO_MORE.search(clause)):
            return Vote(NO, 2)
    if denials.JUST.search(clause) and (MARK in clause or phrases.ECHO.search(clause)):
        return Vote(NO, 3)
    if attack != IDENTIFICATION and denials.MERELY.search(clause):
        return Vote(NO, 2)
    if thing.none is not None and thing.none.search(clause):
        return Vote(NO, 3)
    if thing.other is not None and thing.other.search(clause) and MARK not in clause:
        return Vote(NO, 2)
    if thing.finding is None and MARK not in clause and phrases.OTHER.search(clause):
        return Vote(NO, 2)
    shadow = thing.finding is not None and MARK not in clause and phrases.SHADOW.search(clause)
    if shadow and (attack != IDENTIFICATION or (thing.signs is not None and thing.signs.search(clause))):
        return Vote(NO, 2)
    if thing.finding is not None and MARK not in clause and phrases.WHOLE.search(clause):
        return Vote(NO, 2)
    about = _claims_about(thing, clause)
    named = [c for c in about if not c.implied and c.finding != "abnormality"]
    if named and all(c.status == ABSENT for c in named) and not phrases.UNDER.search(clause):
        if not any(is_a(c.finding, thing.finding or "") for c in named):
            return Vote(NO, 1 if partial else 2)
        return Vote(NO, 1 if partial and not any(c.temporality == "resolved" for c in named) else 3)
    if MARK in clause and not phrases.ECHO.search(clause):
        return None
    implied = any(c.status == ABSENT and not c.partial for c in about)
    partial = _of_a_part(clause.replace("acute", ""))
    if (implied or (thing.normal is not None and thing.normal.search(clause))) and not partial:
        if attack == COUNTERFACTUAL and not phrases.HAS_VERB.search(clause) and not phrases.SO_FAR.search(clause):
            return Vote(YES, 1)
        return None if attack == VISUAL_CONTEXT and _neighbour(clause) else Vote(NO, 2)
    if attack == VISUAL_CONTEXT and denials.RESIDUE.search(clause) and "normal" in clause:
        return Vote(YES, 1)
    return Vote(NO, 1) if _unsigned(thing, clause) else None


def _unsigned(thing: Thing, clause: str) -> bool:
    """Whether a clause denies a sign of the finding: "the lungs are not hyperinflated"."""
    if thing.signs is None or MARK in clause or "no more" in clause or not thing.signs.search(clause):
        return False
    signed = thing.signs.sub(MARK, clause)
    return polarity.denies(signed) or re.search(rf"(?:n't|\bnot) (?:\w+ )?{MARK}", signed) is not None


def _neighbour(clause: str) -> bool:
    """Whether a normal thing is named as what lies beside, and not judged: "normal mucosa all round it"."""
    return re.match(r"\W*(?:normal|healthy|clear|aerated)\b", clause) is not None and not re.search(
        rf"\b{phrases.VERB}\b", clause
    )


def _supplies(thing: Thing, clause: str, attack: str) -> bool:
    """Whether a clause that does not name the thing gives its place, its neighbour, or the change without it."""
    if (attack == COUNTERFACTUAL and phrases.SAME.search(clause)) or phrases.ASIDE.search(clause):
        return False
    if attack == COUNTERFACTUAL:
        changed = phrases.CHANGE.search(clause) or phrases.COMPARED.search(clause)
        return changed is not None or _fragment(clause, 12) or _pronoun(clause)
    pointed = (thing.signs is not None and thing.signs.search(clause) is not None) or phrases.ANY.search(clause)
    if pointed and not re.search(r"\b(?:no|not|without)\b", clause):
        return True
    if attack == VISUAL_CONTEXT:
        beside = phrases.BESIDE.search(clause) is not None and not phrases.FRAME.search(clause)
        return _fragment(clause, 40) or _pronoun(clause) or beside
    placed = phrases.PLACE.search(clause) is not None or re.match(r"\W*\w+ing\b|\W*\w+ed (?:to|on|in|at|by|from|under|over|against)\b", clause) is not None
    return (
        phrases.BOX.search(clause) is not None
        or (_pronoun(clause) and phrases.OBJECT.search(clause) is not None)
        or (placed and any((_pronoun(clause), phrases.ANIMATE.search(clause), phrases.LOOK.search(clause))))
        or (_fragment(clause, 40) and (placed or len(clause.split()) <= 4))
        or _led_by_place(clause)
    )


def _led_by_place(clause: str) -> bool:
    """Whether a place stands before the first comma, and a sentence of its own after: "left ventricle, it is dilated"."""
    place, _, rest = clause.partition(",")
    placed = _fragment(place, 8) and phrases.PLACE.search(place) is not None and not phrases.FRAME.search(place)
    return placed and not re.match(rf"\W*{phrases.VERB}\b", rest)


def _pronoun(clause: str) -> bool:
    return phrases.REFERS.search(clause) is not None and not phrases.EXPLETIVE.search(clause)


def _fragment(clause: str, longest: int) -> bool:
    """Whether an answer is no sentence but a place or a list of things: no verb but in a relative clause."""
    bare = re.sub(r",? \b(?:which|that|who|where|whose|given that|as if)\b[^,;]*", " ", clause)
    words = bare.split()
    negative = re.search(r"\b(?:no|not|none|unremarkable|normal|nothing)\b", bare) and not _neighbour(bare)
    if phrases.BARE_VERB.search(bare):
        return False
    wordy = re.search(r"[a-z]{3}", bare) is not None
    return 0 < len(words) <= longest and wordy and not negative and not phrases.HAS_VERB.search(bare)


def _claims_about(thing: Thing, said: str) -> list[Claim]:
    """The claims that bear on a finding: of it or of a kind of it; denied, also of what it is a kind of."""
    if thing.finding is None:
        return []
    finding = thing.finding
    return [
        c
        for c in claims(said.replace(MARK, thing.plain))
        if c.about_now and (is_a(c.finding, finding) or (c.status == ABSENT and is_a(finding, c.finding)))
    ]
