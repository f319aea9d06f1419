"""Minimal edits: a wrong answer repaired, a right one turned into a plausible mistake of the same kind.

Only the words of the claim change; everything else stays byte for byte. The result is judged again before it leaves.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from clinalign.errors import RowError
from clinalign.language.align import Edit
from clinalign.language.claims import claims, contradictions
from clinalign.language.edit_reports import edit_report
from clinalign.language.grammar import affirm, name_instead, negate, plain
from clinalign.language.graph import GENERIC
from clinalign.language.judge import decide
from clinalign.language.lexicon import canonical
from clinalign.language.parse import ABSENT, PRESENT, Mention, Parse, parse
from clinalign.language.parse_answer import ParsedAnswer, parse_answer
from clinalign.language.parse_question import ParsedQuestion, parse_question
from clinalign.language.substitution import Choices, TextEdit, apply, cased, replace_mention, wrong_value
from clinalign.language.wordings import cleaned, option_texts


def edit(
    question: str,
    text: str,
    truth: str,
    slots: Mapping[str, Any] | None = None,
    rng: random.Random | None = None,
    *,
    task: str = "open",
    choices: Choices | None = None,
) -> Edit:
    """Repairs a wrong answer, or makes a counterfactual of the same kind for a right one.

    `choices`: values to draw mistakes from, by kind of slot ("finding": [...]); without it the lexicon's own.
    Raises RowError("answer", reason): "cannot_tell" where the answer cannot be judged (the judge's reason in `detail`),
    "no_edit" where no clean edit is known, "still_wrong" where the repair does not hold.
    """
    rng = rng or random.Random(0)
    asked = parse_question(question, truth, task, slots)
    if asked is None:
        raise RowError("answer", "cannot_tell", "question_not_understood")
    if asked.kind in ("report", "several"):
        return edit_report(text, truth, slots, rng, choices)
    reading = parse_answer(asked, text)
    verdict = decide(asked, reading)
    if verdict.correct is None:
        raise RowError("answer", "cannot_tell", verdict.reason)
    was_correct = bool(verdict.correct)
    target = _wrong_target(asked, reading, rng, choices or {}) if was_correct else _true_target(asked, reading)
    if target is None:
        raise RowError("answer", "no_edit", "no other plausible value is known")
    new = apply(text, _changes(asked, reading, parse(cleaned(text)), target, _hint(question, asked)))
    return _checked(asked, text, new, was_correct, _kind(asked, target))


def _checked(asked: ParsedQuestion, text: str, new: str, was_correct: bool, kind: str) -> Edit:
    if new == text:
        raise RowError("answer", "no_edit", "the claim has no wording that can be turned")
    after = decide(asked, parse_answer(asked, new))
    if after.correct is not (not was_correct):
        reason = "no_edit" if was_correct or after.correct is None else "still_wrong"
        raise RowError("answer", reason, f"after the edit: {after.reason}")
    if len(contradictions(cleaned(new))) > len(contradictions(cleaned(text))):
        raise RowError("answer", "no_edit", "the edited answer would contradict itself")
    return Edit.between(text, new, was_correct, kind)


def _kind(asked: ParsedQuestion, target: Mapping[str, str]) -> str:
    kinds = [k for k in target if k != "yesno"] or ["presence"]
    return "+".join(kinds)


def _true_target(asked: ParsedQuestion, reading: ParsedAnswer) -> dict[str, str] | None:
    """The values that the answer should have given, where it gave others."""
    if asked.kind == "text":
        return None
    if asked.kind == "letter":
        return {"letter": asked.truths["letter"]}
    if asked.kind == "slot":
        kind = next((k for k in asked.truths if k != "yesno"), None)
        said_value = any(k != "yesno" for k in reading.said)
        if kind is None and said_value:
            return None
        return ({kind: asked.truths[kind]} if kind and said_value else {}) | {"yesno": asked.truths["yesno"]}
    return {k: v for k, v in asked.truths.items() if k in reading.said and reading.said[k] != v} or None


def _wrong_target(
    asked: ParsedQuestion, reading: ParsedAnswer, rng: random.Random, choices: Choices
) -> dict[str, str] | None:
    """A plausible wrong value for one of the things that the answer says rightly."""
    if asked.kind in ("text", "box"):
        return None
    if asked.kind == "letter":
        others = [option for option in asked.options if option[0] != asked.truths["letter"]]
        true = canonical(asked.truths["text"])
        alike = [(a, t) for a, t in others if true is not None and (c := canonical(t)) is not None and c[0] == true[0]]
        return {"letter": rng.choice(alike or others)[0]}
    if asked.kind == "presence":
        return {"presence": "no" if asked.truths["presence"] == "yes" else "yes"}
    said = {k: v for k, v in reading.said.items() if k != "yesno" and k not in asked.optional}
    if not said:
        return {"yesno": "no" if asked.truths["yesno"] == "yes" else "yes"}
    kind = rng.choice(sorted(said))
    value = wrong_value(kind, said[kind], rng, choices, {asked.truths.get(kind, "")} | asked.names)
    if value is None:
        return None
    if asked.kind != "slot":
        return {kind: value}
    if kind not in asked.truths:  # only "not this one" is known: the value asked about is sure to be wrong
        value = asked.asked or value
    return {kind: value, "yesno": "yes" if value == asked.asked else "no"}


def _hint(question: str, asked: ParsedQuestion) -> str | None:
    """The article that the question uses with the finding: "an" in "Is there an atelectasis?"."""
    if asked.finding is None:
        return None
    parsed = parse(question)
    for m in parsed.of("finding"):
        if m.value == asked.finding and m.first and parsed.words[m.first - 1] in ("a", "an"):
            return parsed.words[m.first - 1]
    return None


def _changes(
    asked: ParsedQuestion, reading: ParsedAnswer, parsed: Parse, target: Mapping[str, str], hint: str | None
) -> list[TextEdit]:
    if asked.kind == "letter":
        return _letters(asked, reading, parsed.text, target["letter"])
    out = [_answer_word(parsed, m, target) for m in parsed.of("yesno") if {"yesno", "presence"} & target.keys()]
    if "presence" in target:
        return out + _flip(asked, reading, parsed, target["presence"], hint)
    for kind, value in target.items():
        if kind == "yesno":
            continue
        said = reading.said.get(kind)
        if value in ("none", "present") or said in ("none", "present"):
            out += _deny_or_place(reading, parsed, kind, value, hint)
            continue
        if kind == "finding" and not all(plain(parsed, m) for m in reading.where if m.kind == kind):
            continue
        for m in reading.where:
            if (m.kind == kind or (kind, m.kind) in (("severity", "size"), ("count", "number"))) and m.value == said:
                out += replace_mention(parsed, m, value)
            elif kind == "side" and said == "bilateral" and m.kind == "side":
                out += replace_mention(parsed, m, value)
        if kind == "finding":
            out += _other_mentions(parsed, reading, said, value)
    if target.keys() == {"yesno"} and not parsed.of("yesno"):
        out += _turn_verb(parsed, reading)
    return out


def _other_mentions(parsed: Parse, reading: ParsedAnswer, said: str | None, value: str) -> list[TextEdit]:
    taken = {(m.start, m.end) for m in reading.where}
    again = [m for m in parsed.of("finding") if m.value == said and (m.start, m.end) not in taken]
    return [change for m in again for change in replace_mention(parsed, m, value)]


def _answer_word(parsed: Parse, m: Mention, target: Mapping[str, str]) -> TextEdit:
    new = target.get("presence") or target["yesno"]
    return m.start, m.end, cased(parsed.text[m.start : m.end], new)


def _flip(asked: ParsedQuestion, reading: ParsedAnswer, parsed: Parse, value: str, hint: str | None) -> list[TextEdit]:
    every = claims(parsed.text)
    out: list[TextEdit] = []
    if asked.concepts:
        return out + _turn_verb(parsed, reading)
    there = (value == "yes") != asked.inverted
    if there and reading.away:  # the finding is there, but at another place than asked for
        return [change for m, wanted in reading.away for change in replace_mention(parsed, m, wanted)]
    for claim in reading.claims:
        if not there and claim.status == PRESENT:
            out += negate(parsed, claim) or []
        elif there and claim.status == ABSENT:
            out += affirm(parsed, claim, every, hint=hint) or []
    return out


def _turn_verb(parsed: Parse, reading: ParsedAnswer) -> list[TextEdit]:
    """ "is" to "is not" and back, for a closed question whose subject is no finding."""
    words = parsed.words
    for i, word in enumerate(words):
        if word == "not" and i and words[i - 1] in ("is", "are", "does", "can", "was", "were"):
            return [(parsed.spans[i - 1][1], parsed.spans[i][1], "")]
        if word == "no" and i and words[i - 1] in ("is", "are", "shows", "contains", "has"):
            return [(parsed.spans[i - 1][1], parsed.spans[i][1], "")]
    for i, word in enumerate(words):
        if word in ("is", "are", "was", "were", "can"):
            end = parsed.spans[i][1]
            return [(end, end, " not")]
    return []


def _deny_or_place(reading: ParsedAnswer, parsed: Parse, kind: str, value: str, hint: str | None) -> list[TextEdit]:
    every = claims(parsed.text)
    out: list[TextEdit] = []
    if value == "none":
        names = {m.start for m in reading.where if m.kind == "finding"}
        for claim in every:
            if claim.status == PRESENT and (kind != "finding" or claim.start in names) and claim.finding not in GENERIC:
                out += negate(parsed, claim) or []
        return out
    extra = value if value != "present" and kind in ("side", "size", "severity") else ""
    for claim in reading.claims:
        if claim.status == ABSENT:
            if kind == "finding":
                out += name_instead(parsed, claim, value) or []
            elif extra or value == "present":
                out += affirm(parsed, claim, every, hint=hint, extra=extra) or []
    return out


def _letters(asked: ParsedQuestion, reading: ParsedAnswer, text: str, letter: str) -> list[TextEdit]:
    words = dict(asked.options)
    out: list[TextEdit] = []
    for m in reading.where:
        if m.kind == "letter":
            out.append((m.start, m.end, letter))
    for got, start, end in option_texts(text, asked.options):
        if got == reading.said.get("letter"):
            out.append((start, end, cased(text[start:end], words[letter])))
    return out


def same_meaning(before: str, after: str) -> bool:
    """Whether two phrases are wordings of one lexicon entry ("clear" and "unremarkable"): no change of meaning."""
    a, b = canonical(before), canonical(after)
    return a is not None and a == b
