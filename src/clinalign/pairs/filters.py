"""What a pair has to pass. Every refusal has a reason code that is counted and written to the quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from clinalign import llm
from clinalign.errors import RowError
from clinalign.language.align import Edit, blocks, words
from clinalign.language.claims import claims
from clinalign.language.edit import same_meaning
from clinalign.language.edit_reports import within_budget
from clinalign.language.judge import INCOMPLETE, Judgement, judge
from clinalign.language.substitution import apply
from clinalign.pairs.options import PairOptions
from clinalign.records import Answer, Example

REASONS = {
    "truncated": "the answer was cut off at the length limit; raise max_new_tokens",
    "empty_answer": "the model said nothing",
    "no_example": "the answer belongs to no example of the table",
    "cannot_tell": "the answer cannot be judged against the ground truth",
    "no_edit": "no clean edit of this claim is known",
    "nothing_changed": "the edit left the text as it was",
    "synonym_only": "the edit changed the wording, not the meaning",
    "over_budget": "the edit changed more words than allowed",
    "still_wrong": "the repaired answer is still wrong",
    "same_wrong_answer": "the repair says the same wrong thing",
    "still_right": "the counterfactual is still right",
    "outside_claim": "the edit changed words outside the claim",
    "not_quoted": "the editor's model quotes words that the answer does not have",
    "disputed": "the editor's model and the rules differ on whether the answer is right",
    "text_mismatch": "the token ids do not spell the answer's text",
    "token_mismatch": "the tokenizer cannot spell the edited text",
    "no_box": "the true answer is a box, and the answer names none",
    "not_misled": "the answer is not right alone and wrong beside the retrieved text",
    "not_retrieved": "no text was retrieved for the question",
    "downsampled": "taken out so that right answers keep their share",
    **llm.REASONS,
}
"""Reason code -> what it means."""


class Second(NamedTuple):
    """What the editor's model says of an edited answer that the rules cannot judge: is it right (None: it cannot tell
    either), and does it say the same as before in other words?"""

    right: bool | None
    same: bool


def before_editing(example: Example | None, answer: Answer) -> None:
    """Raises RowError for an answer that no pair can be made of."""
    if example is None:
        raise RowError("example_id", "no_example", REASONS["no_example"])
    if answer.finish_reason == "length":
        raise RowError("finish_reason", "truncated", REASONS["truncated"])
    if not answer.text.strip():
        raise RowError("text", "empty_answer", REASONS["empty_answer"])


def wanted(was_correct: bool, options: PairOptions) -> None:
    """Raises RowError where the recipe wants no pair of a right answer."""
    if was_correct and not options.counterfactuals:
        raise RowError("answer", "downsampled", REASONS["downsampled"])


def agree(example: Example, own: str, was_correct: bool) -> None:
    """Raises RowError where the rules can tell whether an answer is right, and the editor's model says otherwise."""
    found = _judge(example, own)
    right = found.correct if example.task != "report" else _errors(found) == 0 if "claims" in found.slots else None
    if right is not None and right != was_correct:
        raise RowError(
            "answer", "disputed", f"the model calls it {'right' if was_correct else 'wrong'}; {found.reason}"
        )


def rules_can_tell(example: Example, text: str) -> bool:
    """Whether the rules can judge an answer."""
    return _judge(example, text).correct is not None


def said(example: Example, text: str) -> dict[str, str]:
    """What the rules read in an answer, by kind of slot."""
    return dict(_judge(example, text).slots.get("said", {}))


def changed(example: Example, own: str, edit: Edit, options: PairOptions) -> None:
    """Raises RowError for an edit that changes nothing, only the wording, or too much."""
    found = blocks(own, edit.text)
    if not found:
        raise RowError("answer", "nothing_changed", REASONS["nothing_changed"])
    phrases = [(own[s:e], edit.text[k:n]) for s, e, k, n in found]
    if all(same_meaning(a.strip(), b.strip()) for a, b in phrases):
        raise RowError("answer", "synonym_only", REASONS["synonym_only"])
    if example.task == "report":
        fits = within_budget(own, edit.text, options.max_words_a_sentence)
    else:
        sides = zip(*phrases, strict=True)
        fits = max(sum(len(words(phrase)) for phrase in side) for side in sides) <= options.max_words
    if not fits:
        raise RowError("answer", "over_budget", REASONS["over_budget"])


def after_editing(example: Example, own: str, edit: Edit, options: PairOptions, second: Second | None = None) -> None:
    """Raises RowError for an edit that is no minimal, meaningful edit, whoever made it.

    `second` is asked where the rules cannot judge the edited answer.
    """
    changed(example, own, edit, options)
    found = blocks(own, edit.text)
    if example.task == "report":
        _report_verdict(example, own, edit)
        if len(found) > 1:
            _clinical(own, edit, found)
        return
    _verdict(example, own, edit, second)
    if len(found) > 1:
        _inside_claim(example, own, edit, found)


def _verdict(example: Example, own: str, edit: Edit, second: Second | None) -> None:
    after = _judge(example, edit.text)
    right, same = after.correct, False
    if right is None and second is not None:
        right, same = second
    if right is None and after.reason == INCOMPLETE and not edit.was_correct:
        raise RowError("answer", "still_wrong", "the repair says part of the truth")
    if right is None:
        raise RowError("answer", "cannot_tell", after.reason)
    if same and (edit.was_correct or right):
        raise RowError("answer", "synonym_only", REASONS["synonym_only"])
    if not edit.was_correct and not right:
        same = same or _judge(example, own).slots.get("said") == after.slots.get("said") != {}
        raise RowError("answer", "same_wrong_answer" if same else "still_wrong", after.reason)
    if edit.was_correct and right:
        raise RowError("answer", "still_right", REASONS["still_right"])


def _report_verdict(example: Example, own: str, edit: Edit) -> None:
    """A repaired report contradicts nothing, one with an injected error something. Omissions count on neither side, but
    a repair that mends nothing and adds nothing is none."""
    before, after = _judge(example, own), _judge(example, edit.text)
    if "claims" not in after.slots or "claims" not in before.slots:
        raise RowError("answer", "cannot_tell", after.reason)
    if _read(own) == _read(edit.text):
        raise RowError("answer", "synonym_only", REASONS["synonym_only"])
    errors = _errors(after)
    if errors and not edit.was_correct:
        same = (before.reason, before.slots) == (after.reason, after.slots)
        raise RowError("answer", "same_wrong_answer" if same else "still_wrong", after.reason)
    if not errors and edit.was_correct:
        raise RowError("answer", "still_right", REASONS["still_right"])
    if not edit.was_correct and not _errors(before) and after.slots["omitted"] >= before.slots["omitted"]:
        raise RowError("answer", "disputed", "the rules find nothing wrong in the report before the edit")


def _errors(found: Judgement) -> int:
    """How often a report contradicts its reference."""
    return sum(found.slots[kind] for kind in ("slot", "invented", "denied"))


def _read(text: str) -> list[tuple[Any, ...]]:
    """What the labeller reads in a text: findings with status and slots, in order."""
    return [
        (c.finding, c.status, sorted((kind, m.value) for kind, ms in c.slots.items() for m in ms)) for c in claims(text)
    ]


def _clinical(own: str, edit: Edit, found: Sequence[tuple[int, int, int, int]]) -> None:
    """Refuses an edit of a report with a change that changes no claim, small grammatical words aside."""
    whole = _read(edit.text)
    for n, (start, end, first, last) in enumerate(found):
        phrases = words(own[start:end]) + words(edit.text[first:last])
        if all(word.lower() in _GRAMMAR for word in phrases):
            continue
        others = [(s, e, edit.text[k:m]) for i, (s, e, k, m) in enumerate(found) if i != n]
        if _read(apply(own, others)) == whole:
            raise RowError("answer", "outside_claim", f"'{own[start:end].strip()}' need not have changed")


def _inside_claim(example: Example, own: str, edit: Edit, found: Sequence[tuple[int, int, int, int]]) -> None:
    """Refuses an edit with a change that its verdict can do without, small grammatical words aside."""
    for n, (start, end, first, last) in enumerate(found):
        phrases = words(own[start:end]) + words(edit.text[first:last])
        if all(word.lower() in _GRAMMAR for word in phrases):
            continue
        others = [(s, e, edit.text[k:m]) for i, (s, e, k, m) in enumerate(found) if i != n]
        if _judge(example, apply(own, others)).correct is (not edit.was_correct):
            raise RowError("answer", "outside_claim", f"'{own[start:end]}' need not have changed")


_GRAMMAR = frozenset(
    "a an the no not is are was were and or but , . ; with without of so any can cannot be do does".split()
)


def _judge(example: Example, text: str) -> Judgement:
    return judge(example.question, text, example.answer, example.task, example.slots)
