"""Pairs that nobody edits: a data set's, reference-style ones, and answers that a retrieved text turned wrong.

Their sides differ in style and length more than in meaning (see the audit), which is why pairs of the model's own
answers are the default. Reference-style pairs, the usual construction elsewhere, are kept as a control.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from clinalign.errors import RowError
from clinalign.language.align import differing
from clinalign.language.judge import judge
from clinalign.language.offsets import answer_end, spelled
from clinalign.pairs import filters
from clinalign.pairs.build import STAGE
from clinalign.pairs.options import PairOptions
from clinalign.pairs.spans import Edited, edited_ids
from clinalign.progress import track
from clinalign.records import Answer, Example, Pair, Side
from clinalign.storage import Quarantine, Rows, by_id


def dataset_pairs(
    examples: Sequence[Example], tokenizer: Any, options: PairOptions, quarantine: Quarantine
) -> Sequence[Pair]:
    """One pair for each example whose `rejected` holds a worse answer than `answer`, in their order.

    The chosen side is encoded afresh; the rejected one shares its ids wherever the texts agree, and the spans are what
    differs. Neither side is the model's own: `own` is "none". Each other example is one row in the quarantine (stage
    "pair").
    """
    quarantine.start(STAGE)
    pairs: Rows[Pair] = Rows()
    end = answer_end(tokenizer)
    for example in track(examples, "pairs"):
        try:
            pairs.append(_dataset_pair(example, tokenizer, options, end))
        except RowError as error:
            quarantine.add(STAGE, reason=error.reason, id=example.id, field=error.field, detail=error.detail)
    return pairs


def _dataset_pair(example: Example, tokenizer: Any, options: PairOptions, end: int) -> Pair:
    chosen, rejected = example.answer.strip(), example.rejected.strip()
    if not rejected:
        raise RowError("rejected", "no_rejected", "the source gives no rejected answer for this row")
    if chosen == rejected:
        raise RowError("rejected", "nothing_changed", filters.REASONS["nothing_changed"])
    (said, ids), (worse, other) = (spelled(tokenizer, text) for text in (chosen, rejected))
    if (said, worse) == (chosen, rejected):
        edited = edited_ids(tokenizer, [*ids, end], chosen, rejected)
    else:  # marks around a box are ids without characters, which no edit of the text would take along
        edited = Edited([*other, end], *([list(span) for span in side] for side in differing(said, worse)))
    return Pair.make(
        example,
        Side(said, edited.chosen_spans, [*ids, end]),
        Side(worse, edited.rejected_spans, edited.ids),
        id=f"{example.id}-dataset",
        own="none",
        was_correct=False,
        edit_kind="dataset",
        editor="dataset",
        seed=options.seed,
    )


def reference_pairs(
    examples: Sequence[Example], answers: Sequence[Answer], tokenizer: Any, quarantine: Quarantine
) -> Sequence[Pair]:
    """Chosen: the ground truth, encoded afresh; rejected: the sampled answer. Both texts are one span.

    Right answers give a pair too, as in the released corpora, where the reference is always preferred.
    """
    known = by_id(examples)
    quarantine.start(STAGE)
    pairs: Rows[Pair] = Rows()
    end = answer_end(tokenizer)
    for answer in answers:
        example = known.get(answer.example_id)
        try:
            filters.before_editing(example, answer)
        except RowError as error:
            quarantine.add(STAGE, reason=error.reason, id=answer.example_id, field=error.field, detail=error.detail)
            continue
        assert example is not None
        pairs.append(_reference_pair(example, answer, tokenizer, end))
    return pairs


def _reference_pair(example: Example, answer: Answer, tokenizer: Any, end: int) -> Pair:
    if answer.finish_reason == "stop" and answer.token_ids:
        end = answer.token_ids[-1]  # both sides end alike, or the last token alone would tell them apart
    truth = example.answer[:1].upper() + example.answer[1:]
    truth = truth if truth.endswith((".", "]")) else truth + "."
    truth, ids = spelled(tokenizer, truth)
    verdict = judge(example.question, answer.text, example.answer, example.task, example.slots)
    return Pair.make(
        example,
        Side(truth, [[0, len(truth)]], [*ids, end]),
        Side(answer.text, [[0, len(answer.text)]], list(answer.token_ids)),
        id=f"{example.id}-r{answer.round}-reference",
        own="rejected",
        was_correct=verdict.correct is True,
        edit_kind="reference",
        editor="reference",
        prompt=answer.prompt,
        round=answer.round,
    )


CONTEXT = "Reference text: {text}\n{question}"
"""A question beside what was retrieved for it."""


def informed(examples: Sequence[Example], texts: Mapping[str, str]) -> list[Example]:
    """The examples that a text was retrieved for, asked beside it."""
    return [
        replace(example, question=CONTEXT.format(text=texts[example.id].strip(), question=example.question))
        for example in examples
        if texts.get(example.id, "").strip()
    ]


def misled_pairs(
    examples: Sequence[Example],
    answers: Sequence[Answer],
    beside: Sequence[Answer],
    tokenizer: Any,
    options: PairOptions,
    quarantine: Quarantine,
) -> Sequence[Pair]:
    """RULE's pairs (arXiv 2407.05131): questions whose answer is right alone and wrong beside a retrieved text.

    `answers` are the model's without the text, `beside` those to prompts that hold it. The prompt is the one with the
    text; rejected is the wrong answer to it, as sampled, chosen the right one, encoded afresh (in RULE: the truth).
    Each other answer is one row in the quarantine (stage "pair").
    """
    known = by_id(examples)
    by_example = {answer.example_id: answer for answer in beside}
    quarantine.start(STAGE)
    pairs: Rows[Pair] = Rows()
    for answer in track(answers, "pairs", len(answers)):
        example, other = known.get(answer.example_id), by_example.get(answer.example_id)
        try:
            if other is None:
                raise RowError("example_id", "not_retrieved", filters.REASONS["not_retrieved"])
            for one in (answer, other):
                filters.before_editing(example, one)
            assert example is not None
            pairs.append(_misled_pair(example, answer, other, tokenizer, options))
        except RowError as error:
            quarantine.add(STAGE, reason=error.reason, id=answer.example_id, field=error.field, detail=error.detail)
    return pairs


def _misled_pair(example: Example, answer: Answer, other: Answer, tokenizer: Any, options: PairOptions) -> Pair:
    right, wrong = (
        judge(example.question, one.text, example.answer, example.task, example.slots).correct
        for one in (answer, other)
    )
    if right is not True or wrong is not False:
        raise RowError("text", "not_misled", filters.REASONS["not_misled"])
    edited = edited_ids(tokenizer, other.token_ids, other.text, answer.text, own_chosen=False)
    return Pair.make(
        example,
        Side(answer.text, edited.chosen_spans, edited.ids),
        Side(other.text, edited.rejected_spans, list(other.token_ids)),
        id=f"{example.id}-r{answer.round}-retrieval",
        own="rejected",
        was_correct=False,
        edit_kind="retrieval",
        editor="retrieval",
        prompt=other.prompt,
        round=answer.round,
        seed=options.seed,
    )
