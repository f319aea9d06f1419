"""What an answer says to an open question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clinalign.language.claims import Claim, claims, general
from clinalign.language.compat import ATTRIBUTES, same
from clinalign.language.cues import ARTICLES
from clinalign.language.graph import CONCEPTS, GENERIC, is_a
from clinalign.language.lexicon import singular
from clinalign.language.parse import ABSENT, PRESENT, UNCERTAIN, Mention, Parse, parse
from clinalign.language.parse_question import NONE, ParsedQuestion
from clinalign.language.wordings import declines, lacks_prior, refuses

_UNANSWERABLE = {"no image", "not answerable", "unanswerable", "cannot tell", "cannot be determined", "no answer"}
NO_PRIOR = "no prior"
"""The change where there is nothing to compare with."""
_DENYING = ("no", "not", "without", "cannot", "never", "isn't", "don't", "doesn't")
_GENERAL = frozenset("of the a an in on at is are this that it image shows show seen there with and part type".split())


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """What an answer says to what was asked: `said` by kind of slot, and the words that say it. `away`: mentions of
    another side, size ... than the question names, each with the value that it names."""

    said: Mapping[str, str]
    where: tuple[Mention, ...] = ()
    claims: tuple[Claim, ...] = ()
    reason: str = ""
    away: tuple[tuple[Mention, str], ...] = ()


def about(asked: ParsedQuestion, said: Sequence[Claim]) -> list[Claim]:
    """The claims that decide the presence of the asked finding."""
    if asked.finding is None or not said:
        return []
    direct = [c for c in said if c.finding == asked.finding] or [c for c in said if c.finding in asked.names]
    if len(direct) == len(said) or (direct and not asked.attributes and all(c.status == ABSENT for c in direct)):
        return direct
    kinds = [c for c in said if c.status != ABSENT and c not in direct and is_a(c.finding, asked.finding)]
    if asked.finding != "device":
        kinds = [c for c in kinds if c.finding not in CONCEPTS or CONCEPTS[c.finding].group != "device"]
    if direct or kinds:
        return direct + kinds
    denied = [c for c in said if c.status == ABSENT and is_a(asked.finding, c.finding)]
    if denied or asked.finding in CONCEPTS:
        return denied
    return [c for c in said if c.status == ABSENT and c.finding in GENERIC and is_a(c.finding, asked.finding)]


def parse_open_answer(asked: ParsedQuestion, answer: str) -> ParsedAnswer:
    """The value that the answer gives each thing asked for."""
    parsed = parse(answer)
    if asked.kind == "text":
        return _text(asked, answer, parsed)
    if asked.kind == "several":
        return _several(asked, answer, parsed)
    said: dict[str, str] = {}
    where: list[Mention] = []
    denials: list[Claim] = []
    reasons = []
    for kind in asked.truths:
        reading = value_of(kind, asked, parsed, answer)
        if (
            reading.reason == "negated"
            and len(asked.truths.keys() - asked.optional) == 1
            and kind not in asked.optional
        ):
            reading = (
                ParsedAnswer({kind: f"not {reading.said[kind]}"}, reading.where)
                if _refuted(asked, reading)
                else reading
            )
        if reading.reason:
            reasons += [reading.reason] if kind not in asked.optional else []
            continue
        said |= reading.said
        where += reading.where
        denials += reading.claims
    reason = next((r for r in reasons if r != "not_said"), "") if not said else ""
    return ParsedAnswer(said, tuple(where), tuple(denials), reason)


def _refuted(asked: ParsedQuestion, reading: ParsedAnswer) -> bool:
    """Whether what is negated is the truth: "not the left lung"."""
    return all(asked.truths.get(kind) == said for kind, said in reading.said.items())


def value_of(kind: str, asked: ParsedQuestion, parsed: Parse, answer: str) -> ParsedAnswer:
    """The one value that an answer gives a slot, "none" where it denies the finding."""
    if kind == "finding":
        return _finding(asked, answer)
    if kind == "change":
        return _change(asked, answer)
    own = about(asked, claims(answer)) if asked.finding else []
    denied = [c for c in own if c.status == ABSENT]
    if denied and not any(c.status == PRESENT for c in own):
        return ParsedAnswer({kind: "none"}, (), tuple(denied))
    mentions = parsed.of(kind)
    said = [m for m in mentions if m.status == PRESENT]
    if not said:
        return _unsaid(kind, asked, mentions, own, parsed)
    values = {m.value for m in said}
    if len(values) > 1:
        said = _own_values(kind, asked, answer, said)
        values = {m.value for m in said}
    if kind == "side" and ("bilateral" in values or values >= {"left", "right"}):
        return ParsedAnswer({kind: "bilateral"}, tuple(said))
    if len(values) > 1:
        return ParsedAnswer({}, tuple(said), reason="several_values")
    return ParsedAnswer({kind: said[0].value}, tuple(said))


def _change(asked: ParsedQuestion, answer: str) -> ParsedAnswer:
    """The change of the finding since an earlier image: a temporality of `attributes`, "none" where it is denied, or
    "no prior" where the answer says that there is no image to compare with."""
    if lacks_prior(answer):
        return ParsedAnswer({"change": NO_PRIOR})
    own = [c for c in claims(answer) if asked.finding is None or c.finding == asked.finding]
    said = {c.temporality for c in own if c.temporality not in ("", "history")}
    if len(said) > 1:
        return ParsedAnswer({}, reason="several_values")
    if said:
        return ParsedAnswer({"change": said.pop()}, (), tuple(own))
    if own and all(c.status == ABSENT for c in own):
        return ParsedAnswer({"change": "none"}, (), tuple(own))
    return ParsedAnswer({}, reason="not_said")


def _unsaid(kind: str, asked: ParsedQuestion, mentions: list[Mention], own: list[Claim], parsed: Parse) -> ParsedAnswer:
    present = [c for c in own if c.status == PRESENT]
    if present and asked.truths.get(kind) == "none":
        return ParsedAnswer({kind: "present"}, (), tuple(present))
    if any(m.status == UNCERTAIN for m in mentions):
        return ParsedAnswer({}, tuple(mentions), reason="uncertain")
    if mentions and len({m.value for m in mentions}) == 1:
        return ParsedAnswer({kind: mentions[0].value}, tuple(mentions), reason="negated")
    if kind == "count" and "both" in parsed.words:
        return ParsedAnswer({"count": "2"})
    return ParsedAnswer({}, reason="not_said")


def _own_values(kind: str, asked: ParsedQuestion, answer: str, said: list[Mention]) -> list[Mention]:
    """Of several values those that are said of the finding asked about."""
    own = [
        m for c in claims(answer) if c.finding == asked.finding for m in c.slots.get(kind, ()) if m.status == PRESENT
    ]
    return own if own and len({m.value for m in own}) < len({m.value for m in said}) else said


def _finding(asked: ParsedQuestion, answer: str) -> ParsedAnswer:
    said = claims(answer)
    present = [c for c in said if c.status == PRESENT and not (c.implied and asked.truths["finding"] == "none")]
    specific = [c for c in present if c.finding not in GENERIC] or present
    specific = [c for c in specific if not (c.finding in GENERIC and asked.truths["finding"] == "none")]
    if not specific:
        if any(c.status == UNCERTAIN for c in said):
            return ParsedAnswer({}, reason="uncertain")
        denied = tuple(c for c in said if c.status == ABSENT and (c.finding in GENERIC or c.implied))
        refuted = [c for c in said if c.status == ABSENT and is_a(asked.truths["finding"], c.finding)]
        if denied or refuted or answer.strip().lower().rstrip(".") in NONE:
            return ParsedAnswer({"finding": "none"}, (), denied or tuple(refuted))
        return ParsedAnswer({}, reason="not_said")
    values = {c.finding for c in specific}
    true = [c for c in specific if is_a(c.finding, asked.truths["finding"])]
    if len(values) > 1 and true and all(c in true or _sign(c, asked.truths["finding"]) for c in specific):
        specific, values = true, {true[0].finding}
    where = tuple(c.mention for c in specific)
    if len(values) > 1:
        return ParsedAnswer({}, where, reason="several_values")
    return ParsedAnswer({"finding": specific[0].finding}, where, tuple(specific))


def _sign(claim: Claim, truth: str) -> bool:
    """Whether a finding is but how the true one looks: an opacity beside a pneumonia."""
    return is_a(claim.finding, "lung opacity") and truth in CONCEPTS and CONCEPTS[truth].group == "lung"


def _several(asked: ParsedQuestion, answer: str, parsed: Parse) -> ParsedAnswer:
    """Which of several true things the answer names, and what else it names."""
    kind = asked.parts[0][0]
    stated, denied = _named(kind, answer, parsed)
    wanted = [v for _, v in asked.parts]
    hit = [v for v in wanted if any(_meets(kind, s, v) for s in stated)]
    false = [v for v in wanted if v in denied and v not in hit]
    if false:
        return ParsedAnswer({"parts": f"no {false[0]}"})
    if not stated:
        open_ = any(c.status == UNCERTAIN for c in claims(answer))
        return ParsedAnswer({}, reason="uncertain" if open_ else "not_said")
    if not hit or _other_side(answer, asked.truths["text"], kind):
        return ParsedAnswer({"parts": ", ".join(sorted(stated))} if not hit else {"parts": "another side"})
    if any(not any(_meets(kind, s, v) or _meets(kind, v, s) for v in wanted) for s in stated):
        return ParsedAnswer({}, reason="several_values")
    differing = _differing(answer, asked.truths["text"])
    if differing:
        return ParsedAnswer({"parts": differing})
    whole = len(hit) == len(wanted) and not _words(parse(asked.truths["text"])) - _words(parsed)
    return ParsedAnswer({"parts": ", ".join(hit)}) if whole else ParsedAnswer({}, reason="incomplete")


def _named(kind: str, answer: str, parsed: Parse) -> tuple[set[str], set[str]]:
    """What the answer states and what it denies, of findings or of organs."""
    if kind == "finding":
        said = [(c.finding, c.status) for c in claims(answer) if c.finding not in GENERIC]
    else:
        said = [(m.value, m.status) for m in parsed.of(kind)]
    return {v for v, status in said if status == PRESENT}, {v for v, status in said if status == ABSENT}


def _other_side(answer: str, truth: str, kind: str) -> bool:
    """Whether places are named on another side than the true ones."""
    said, true = ({m.value for m in parse(text).of("side")} for text in (answer, truth))
    return kind != "finding" and bool(said and true) and "bilateral" not in said | true and not said & true


def _differing(answer: str, truth: str) -> str:
    """A finding that both name with another side, size ... each; "" where there is none."""
    for true in claims(truth):
        mine = [c for c in claims(answer) if c.status == PRESENT and is_a(c.finding, true.finding)]
        for kind in ATTRIBUTES:
            wanted = true.value(kind)
            said = [v for c in mine if (v := c.value(kind)) is not None]
            if wanted is not None and said and all(same(kind, v, wanted) is False for v in said):
                return f"{said[0]} {true.finding}"
    return ""


def _meets(kind: str, said: str, wanted: str) -> bool:
    return is_a(said, wanted) if kind == "finding" else said == wanted


def _text(asked: ParsedQuestion, answer: str, parsed: Parse) -> ParsedAnswer:
    """A truth that the lexicon does not know whole: right where the answer contains its words, else not judged.

    Where the truth is that there is no answer, every answer that is no refusal is wrong.
    """
    truth = asked.truths["text"]
    if truth.strip().lower().rstrip(".") in _UNANSWERABLE:
        return ParsedAnswer({"text": truth if refuses(answer) or declines(answer) else "an answer"})
    wanted, said = _content(parse(truth)), _content(parsed)
    if not wanted:
        whole = f" {' '.join(parse(truth).words)} " in f" {' '.join(parsed.words)} "
        return ParsedAnswer({"text": truth}) if whole else ParsedAnswer({}, reason="cannot_tell")
    if wanted <= said:
        at = next((i for i, w in enumerate(parsed.words) if w in parse(truth).words and w not in ARTICLES), 0)
        before = parsed.words[parsed.sentence(at)[0] : at]
        negated = any(word in _DENYING for word in before if word not in parse(truth).words)
        return ParsedAnswer({}, reason="negated") if negated else ParsedAnswer({"text": truth})
    clash = {k for k, v in wanted - said if k and any(k == kind for kind, _ in said)} & {"side", "level", "measurement"}
    if clash:
        return ParsedAnswer({"text": "another " + min(clash)})
    if said & wanted and said <= wanted:
        return ParsedAnswer({}, reason="incomplete")
    return ParsedAnswer({}, reason="cannot_tell")


def _content(parsed: Parse) -> frozenset[tuple[str, str]]:
    """What a phrase is made of: lexicon values by kind, and its other words."""
    values = {(m.kind, m.value) for m in parsed.mentions if m.kind != "yesno"}
    return frozenset(values | {("", word) for word in _words(parsed)})


def _words(parsed: Parse) -> frozenset[str]:
    """The words of a phrase that the lexicon does not know, small words aside."""
    covered = {i for m in parsed.mentions for i in range(m.first, m.last)}
    rest = {singular(w) for i, w in enumerate(parsed.words) if i not in covered and w.isalnum()}
    return frozenset(rest - _GENERAL - general())
