"""What a pair has to pass. Every refusal has a reason code that is counted and written to the quarantine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clinalign.errors import RowError
from clinalign.language.align import blocks, words
from clinalign.language.edit import Edit, same_meaning
from clinalign.language.edit_reports import within_budget
from clinalign.language.judge import Judgement, judge
from clinalign.language.swap import apply
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
    "unparsable": "the editor's reply cannot be read",
    "text_mismatch": "the token ids do not spell the answer's text",
    "token_mismatch": "the tokenizer cannot spell the edited text",
    "balanced_away": "left out so that right answers keep their share",
}
"""Reason code -> what it means."""


def before_editing(example: Example | None, answer: Answer) -> None:
    """Raises RowError for an answer that no pair can be made of."""
    if example is None:
        raise RowError("example_id", "no_example", REASONS["no_example"])
    if answer.finish_reason == "length":
        raise RowError("finish_reason", "truncated", REASONS["truncated"])
    if not answer.text.strip():
        raise RowError("text", "empty_answer", REASONS["empty_answer"])


def after_editing(example: Example, own: str, edit: Edit, options: PairOptions) -> None:
    """Raises RowError for an edit that is no minimal, meaningful edit, whoever made it."""
    found = blocks(own, edit.text)
    if not found:
        raise RowError("answer", "nothing_changed", REASONS["nothing_changed"])
    phrases = [(own[s:e], edit.text[k:n]) for s, e, k, n in found]
    if all(same_meaning(a.strip(), b.strip()) for a, b in phrases):
        raise RowError("answer", "synonym_only", REASONS["synonym_only"])
    if example.task == "report":
        if not within_budget(own, edit.text, options.max_words_a_sentence):
            raise RowError("answer", "over_budget", REASONS["over_budget"])
        _report_verdict(example, edit)
        return
    if max(sum(len(words(side)) for side in sides) for sides in zip(*phrases, strict=True)) > options.max_words:
        raise RowError("answer", "over_budget", REASONS["over_budget"])
    _verdict(example, own, edit)
    if len(found) > 1:
        _inside_claim(example, own, edit, found)


def _verdict(example: Example, own: str, edit: Edit) -> None:
    after = _judge(example, edit.text)
    if after.correct is None:
        raise RowError("answer", "cannot_tell", after.reason)
    if not edit.was_correct and not after.correct:
        same = _judge(example, own).slots.get("said") == after.slots.get("said")
        raise RowError("answer", "same_wrong_answer" if same else "still_wrong", after.reason)
    if edit.was_correct and after.correct:
        raise RowError("answer", "still_right", REASONS["still_right"])


def _report_verdict(example: Example, edit: Edit) -> None:
    """A repaired report contradicts nothing; a spoilt one contradicts something. Omissions count on neither side."""
    after = _judge(example, edit.text)
    if "claims" not in after.slots:
        raise RowError("answer", "cannot_tell", after.reason)
    faults = sum(after.slots[kind] for kind in ("slot", "invented", "denied"))
    if faults and not edit.was_correct:
        raise RowError("answer", "still_wrong", after.reason)
    if not faults and edit.was_correct:
        raise RowError("answer", "still_right", REASONS["still_right"])


def _inside_claim(example: Example, own: str, edit: Edit, found: Sequence[tuple[int, int, int, int]]) -> None:
    """Refuses an edit with a change that its verdict can do without, small grammatical words aside."""
    for n, (start, end, first, last) in enumerate(found):
        changed = words(own[start:end]) + words(edit.text[first:last])
        if all(word.lower() in _GRAMMAR for word in changed):
            continue
        others = [(s, e, edit.text[k:m]) for i, (s, e, k, m) in enumerate(found) if i != n]
        if _judge(example, apply(own, others)).correct is (not edit.was_correct):
            raise RowError("answer", "outside_claim", f"'{own[start:end]}' need not have changed")


_GRAMMAR = frozenset(
    "a an the no not is are was were and or but , . ; with without of so any can cannot be do does".split()
)


def _judge(example: Example, text: str) -> Judgement:
    return judge(example.question, text, example.answer, example.task, slots_of(example))


def slots_of(example: Example) -> Mapping[str, Any] | None:
    """The true values that a data set gives with an example, where it does."""
    slots = example.meta.get("slots")
    return slots if isinstance(slots, Mapping) and slots else None
