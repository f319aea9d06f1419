"""Minimal edits of reports: facts of the reference put in the place of wrong words, or one error injected.

At most `WORDS_A_SENTENCE` words change in a sentence. A injected error keeps the number of words wherever it can, so
that neither length nor negation tells the sides apart.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clinalign.errors import RowError
from clinalign.language.align import Edit, blocks, words
from clinalign.language.claims import Claim, claims
from clinalign.language.grammar import affirm, name_instead, negate, phrase_start, plain
from clinalign.language.graph import CONCEPTS, GENERIC
from clinalign.language.parse import ABSENT, PRESENT, Parse, parse
from clinalign.language.reports import COMPARED, ClinicalError, Fact, compare, facts
from clinalign.language.substitution import Choices, TextEdit, apply, replace_mention, wrong_value

WORDS_A_SENTENCE = 3

Candidate = tuple[str, list[TextEdit]]


def edit_report(
    text: str, truth: str, slots: Mapping[str, Any] | None, rng: random.Random, choices: Choices | None = None
) -> Edit:
    """Repairs what contradicts the reference, or injects one error where nothing does.

    Findings left out of the report do not make it wrong here: no minimal edit can add them. Raises RowError as `edit`.
    """
    own, reference = claims(text), facts(truth, slots)
    if not own:
        raise RowError("answer", "cannot_tell", "no_claims")
    if not reference:
        raise RowError("answer", "cannot_tell", "reference_without_claims")
    errors, omitted = compare(own, reference)
    if errors:
        return _repair(text, reference, errors, omitted)
    return _injected(text, own, reference, rng, choices or {})


def _repair(text: str, reference: Sequence[Fact], errors: list[ClinicalError], omitted: list[Fact]) -> Edit:
    """Turns every error, one after another; each step has to leave fewer errors and to stay within the budget."""
    kinds: list[str] = []
    current, left = text, errors
    reason = "no_edit"
    while left:
        step = None
        for error in left:
            for kind, new in _repaired(current, error, omitted):
                found, missing = compare(claims(new), reference)
                if len(found) >= len(left) or len(missing) > len(omitted):
                    continue
                if within_budget(text, new):
                    step = kind, new, found, missing
                    break
                reason = "over_budget"
            if step is not None:
                break
        if step is None:
            raise RowError("answer", reason, f"{left[0].kind}: {left[0].claim.finding}")
        kind, current, left, omitted = step
        kinds.append(kind)
    return Edit.between(text, current, False, "+".join(sorted(set(kinds))))


def _repaired(current: str, error: ClinicalError, omitted: Sequence[Fact]) -> Iterator[tuple[str, str]]:
    """(kind of edit, text) of every way to mend one error, best first."""
    for kind, changes in _repairs(parse(current), claims(current), error, omitted):
        if changes:
            yield kind, apply(current, changes)


def _repairs(parsed: Parse, own: list[Claim], error: ClinicalError, omitted: Sequence[Fact]) -> list[Candidate]:
    claim = error.claim
    if error.kind == "slot" and error.mention is not None and error.value is not None:
        return [(error.mention.kind, replace_mention(parsed, error.mention, error.value))]
    if error.kind == "denied":
        if claim.finding in GENERIC:
            return [("finding", name_instead(parsed, claim, fact.finding) or []) for fact in omitted]
        return [("presence", affirm(parsed, claim, own) or [])]
    out: list[Candidate] = []
    group = CONCEPTS[claim.finding].group
    for fact in omitted:
        if CONCEPTS[fact.finding].group == group and not claim.implied:
            changes = replace_mention(parsed, claim.mention, fact.finding)
            for slot, value in fact.slots:
                for m in claim.slots.get(slot, ()):
                    if m.value != value and m.status == PRESENT:
                        changes = changes + replace_mention(parsed, m, value)
            out.append(("finding", changes))
    out.append(("presence", negate(parsed, claim) or []))
    out.append(("presence", _negate_listed(parsed, claim, own)))
    return out


def _negate_listed(parsed: Parse, claim: Claim, own: list[Claim]) -> list[TextEdit]:
    """Denies a claim that others follow in the same sentence: "no" in front, and an article before the next."""
    changes = negate(parsed, claim) or []
    following = [c for c in own if c.start > claim.end and c.sentence == claim.sentence and c.status == PRESENT]
    if changes and following and not following[0].implied:
        first = phrase_start(parsed, following[0].mention)
        if parsed.words[first - 1] in ("and", ",", "with"):
            at = parsed.spans[first - 1]
            return [
                *changes,
                (at[0], at[1], "but" if parsed.words[first - 1] == "and" else f"{parsed.words[first - 1]} but"),
            ]
    return changes


def within_budget(before: str, after: str, words_a_sentence: int = WORDS_A_SENTENCE) -> bool:
    """Whether no sentence changes more than so many words, counting the longer side of each changed phrase."""
    counts: dict[tuple[int, int], int] = {}
    parsed = parse(before)
    for start, end, first, last in blocks(before, after):
        word = next((i for i, span in enumerate(parsed.spans) if span[1] > start), len(parsed.spans) - 1)
        sentence = parsed.sentence(word)
        changed = max(_count(before[start:end]), _count(after[first:last]))
        counts[sentence] = counts.get(sentence, 0) + changed
    return all(n <= words_a_sentence for n in counts.values())


def _count(phrase: str) -> int:
    return sum(word[0].isalnum() for word in words(phrase))


def _injected(text: str, own: list[Claim], reference: Sequence[Fact], rng: random.Random, choices: Choices) -> Edit:
    """One clinical error: a turned slot, a swapped finding, an invented or a denied one, drawn evenly by kind."""
    by_kind = _injections(parse(text), own, reference, rng, choices)
    order = sorted(by_kind)
    rng.shuffle(order)
    length = len(words(text))
    fallback: Edit | None = None
    for kind in order:
        candidates = by_kind[kind]
        rng.shuffle(candidates)
        for changes in candidates:
            new = apply(text, changes)
            if new == text or not within_budget(text, new):
                continue
            errors, _ = compare(claims(new), reference)
            if not errors or (len(errors) > 1 and changes[0][0] not in {f.claim.start for f in errors}):
                continue
            made = Edit.between(text, new, True, kind)
            if len(words(new)) == length:
                return made
            fallback = fallback or made
    if fallback is None:
        raise RowError("answer", "no_edit", "no claim of the report can be turned")
    return fallback


def _injections(
    parsed: Parse, own: list[Claim], reference: Sequence[Fact], rng: random.Random, choices: Choices
) -> dict[str, list[list[TextEdit]]]:
    out: dict[str, list[list[TextEdit]]] = {}
    named = {f.finding for f in reference if f.status == PRESENT} | {c.finding for c in own}
    for claim in own:
        if claim.status == PRESENT and not claim.implied and claim.finding not in GENERIC:
            for slot in (*COMPARED, "location", "measurement"):
                for m in claim.slots.get(slot, ()):
                    value = wrong_value(slot, m.value, rng, choices)
                    if value is not None and m.status == PRESENT:
                        out.setdefault(slot, []).append(replace_mention(parsed, m, value))
            other = wrong_value("finding", claim.finding, rng, choices, named) if _replaceable(parsed, claim) else None
            if other is not None:
                out.setdefault("finding", []).append(replace_mention(parsed, claim.mention, other))
            out.setdefault("presence", []).append(negate(parsed, claim) or [])
        elif claim.status == ABSENT and claim.finding == "abnormality" and not claim.implied:
            other = wrong_value("finding", "none", rng, choices)
            out.setdefault("finding", []).append((other and name_instead(parsed, claim, other)) or [])
        elif claim.status == ABSENT and (claim.implied or claim.finding not in GENERIC):
            out.setdefault("presence", []).extend(_affirmed(parsed, claim, own, rng))
    return out


def _replaceable(parsed: Parse, claim: Claim) -> bool:
    """Whether another finding can stand in the place of a claim's words: they name it whole, nothing narrows it."""
    return claim.finding == claim.mention.value and plain(parsed, claim.mention)


def _affirmed(parsed: Parse, claim: Claim, own: list[Claim], rng: random.Random) -> list[list[TextEdit]]:
    """Ways to make a denied finding present; mass nouns take a size for the "no", so that the length stays."""
    mild = rng.choice(("mild", "small", "minimal", "moderate")) if CONCEPTS.get(claim.finding) is not None else ""
    if mild == "small" and claim.finding in CONCEPTS and CONCEPTS[claim.finding].noun == "m":
        mild = "mild"
    ways = [affirm(parsed, claim, own)]
    noun = CONCEPTS[claim.finding].noun if claim.finding in CONCEPTS else "c"
    if noun != "c" and not claim.implied:
        ways.append(affirm(parsed, claim, own, extra=mild))
    return [way for way in ways if way]


def mend_sentence(text: str, truth: str, slots: Mapping[str, Any] | None = None) -> tuple[str, str] | None:
    """The report with one sentence replaced, deleted or inserted so that fewer of its claims are wrong or missing, and
    which of the three it was; None where no such operation helps.

    Replaced: the sentence of a wrong claim by that of the reference about the same finding, or mended within. Deleted:
    the sentence of a wrong claim goes. Inserted: the sentence of the reference that states a finding left out. The
    first that helps is taken, in this order; one operation from the reference is EditGRPO's idea (arXiv 2509.22812).
    """
    reference = facts(truth, slots)
    errors, omitted = compare(claims(text), reference)
    for kind, new in _operations(text, truth, errors, omitted):
        wrong, missing = compare(claims(new), reference)
        if new.strip() and len(wrong) + len(missing) < len(errors) + len(omitted):
            return kind, new
    return None


def _operations(
    text: str, truth: str, errors: Sequence[ClinicalError], omitted: Sequence[Fact]
) -> Iterator[tuple[str, str]]:
    stated = [(claim, truth[slice(*claim.sentence)].strip(" .")) for claim in claims(truth)]
    for error in errors:
        first, last = error.claim.sentence
        for claim, sentence in stated:
            if claim.finding == error.claim.finding:
                yield "replace", f"{text[:first]}{sentence}{text[last:]}"
        for _, new in _repaired(text, error, omitted):
            yield "replace", new
    for error in errors:
        first, last = error.claim.sentence
        yield "delete", " ".join(part for part in (text[:first].strip(), text[last:].strip(" .")) if part)
    for fact in omitted:
        for claim, sentence in stated:
            if claim.finding == fact.finding and claim.status == PRESENT:
                yield "insert", f"{text.strip()} {sentence}."
