"""Answers into preference pairs: the model's own text on one side, the same text minimally edited on the other."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from clinalign.errors import RowError
from clinalign.language.align import Edit
from clinalign.language.edit import edit
from clinalign.language.substitution import values_of
from clinalign.pairs import gates
from clinalign.pairs.converse import Conversation, Made, edit_by_model
from clinalign.pairs.options import PairOptions
from clinalign.pairs.spans import Edited, edited_ids
from clinalign.pairs.speakers import Speaker, open_speaker
from clinalign.progress import track
from clinalign.records import Answer, Example, Pair
from clinalign.storage import Quarantine

STAGE = "pair"
Choices = Mapping[str, Sequence[str]]


class Editor(Protocol):
    """Repairs or spoils one answer: at once, or in a conversation with a model. Raises RowError with a reason code
    where it cannot."""

    def __call__(
        self, example: Example, text: str, rng: random.Random, choices: Choices, options: PairOptions
    ) -> Edit | Conversation: ...


def edit_by_rules(
    example: Example, text: str, rng: random.Random, choices: Choices, options: PairOptions | None = None
) -> Edit:
    """The offline editor: the clinical lexicon of `language`."""
    return edit(
        example.question, text, example.answer, gates.slots_of(example), rng, task=example.task, choices=choices
    )


EDITORS: dict[str, Editor] = {
    "rule": edit_by_rules,
    "llm": edit_by_model,
    "replay": edit_by_model,
    "self": edit_by_model,
}
"""Editor by the name that a recipe uses."""


def build_pairs(
    examples: Sequence[Example],
    answers: Sequence[Answer],
    tokenizer: Any,
    options: PairOptions,
    quarantine: Quarantine,
    *,
    speaker: Speaker | None = None,
    source: str = "",
) -> list[Pair]:
    """One pair for each answer that passes the gates; each other answer is one row in the quarantine (stage "pair").

    A wrong answer is rejected beside its repair; a right one is chosen beside a counterfactual. The order is that of
    `answers`, and a pair depends on nothing but its example, its answer and `options`, and on what a model replies
    where one is asked (`speaker`, by default that of `open_speaker`). `source` is the name of the examples' file.
    """
    if speaker is None:
        with open_speaker(options) as opened:
            return build_pairs(examples, answers, tokenizer, options, quarantine, speaker=opened, source=source)
    by_id = {example.id: example for example in examples}
    quarantine.start(STAGE)
    pairs: list[Pair] = []
    made = _edits(by_id, answers, options, values_of(examples), speaker)
    for answer, found in track(zip(answers, made, strict=True), "pairs", len(answers)):
        example = by_id.get(answer.example_id)
        try:
            if isinstance(found, RowError):
                raise found
            pairs.append(_pair(example, answer, tokenizer, options, found))
        except RowError as error:
            row = example.meta.get("row") if example is not None else None
            quarantine.add(
                STAGE,
                reason=error.reason,
                file=source if row is not None else "",
                row=row,
                id=answer.example_id,
                field=error.field,
                detail=error.detail,
            )
    return _balance(pairs, options, quarantine)


def _edits(
    by_id: Mapping[str, Example], answers: Sequence[Answer], options: PairOptions, choices: Choices, speaker: Speaker
) -> Iterator[Made | RowError]:
    """The edit of every answer, in order, or why there is none."""
    editor = EDITORS[options.editor]

    def start(answer: Answer) -> Edit | Conversation:
        example = by_id.get(answer.example_id)
        gates.before_editing(example, answer)
        assert example is not None
        rng = random.Random(f"{options.seed}/{answer.round}/{example.id}")
        return editor(example, answer.text, rng, choices, options)

    return speaker.each(start, answers)


def _pair(example: Example | None, answer: Answer, tokenizer: Any, options: PairOptions, found: Made) -> Pair:
    assert example is not None
    made, second = found
    gates.wanted(made.was_correct, options)
    gates.after_editing(example, answer.text, made, options, second)
    edited = edited_ids(tokenizer, answer.token_ids, answer.text, made.text)
    return make_pair(example, answer, made, edited, options)


def make_pair(example: Example, answer: Answer, made: Edit, edited: Edited, options: PairOptions) -> Pair:
    """The pair of an answer and its edit; the own side keeps the sampled ids untouched."""
    own = (answer.text, [list(s) for s in edited.own_spans], list(answer.token_ids))
    other = (made.text, [list(s) for s in edited.new_spans], edited.ids)
    chosen, rejected = (own, other) if made.was_correct else (other, own)
    region = example.regions[0] if example.regions else None
    return Pair(
        id=f"{example.id}-r{answer.round}",
        example_id=example.id,
        round=answer.round,
        images=list(example.images),
        prompt=answer.prompt,
        chosen=chosen[0],
        rejected=rejected[0],
        chosen_spans=chosen[1],
        rejected_spans=rejected[1],
        own="chosen" if made.was_correct else "rejected",
        chosen_token_ids=chosen[2],
        rejected_token_ids=rejected[2],
        was_correct=made.was_correct,
        edit_kind=made.kind,
        editor=options.editor,
        region=region,
        region_source="dataset" if region is not None else "none",
        seed=options.seed,
    )


def _balance(pairs: list[Pair], options: PairOptions, quarantine: Quarantine) -> list[Pair]:
    """Leaves out pairs of right answers beyond their allowed share, evenly by a draw on the seed."""
    right = [p for p in pairs if p.was_correct]
    wrong = len(pairs) - len(right)
    share = options.max_correct_share
    if share >= 1.0 or len(right) <= share * len(pairs):
        return pairs
    keep = int(share * wrong / (1.0 - share))
    drawn = random.Random(f"{options.seed}/balance").sample(range(len(right)), keep)
    kept = {right[n].id for n in drawn}
    for p in right:
        if p.id not in kept:
            quarantine.add(STAGE, reason="balanced_away", id=p.example_id, detail=gates.REASONS["balanced_away"])
    return [p for p in pairs if not p.was_correct or p.id in kept]
