"""Answers into preference pairs: the model's own text on one side, the same text minimally edited on the other."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Protocol

from clinalign.engine import Each
from clinalign.errors import RowError
from clinalign.language.align import Edit
from clinalign.language.edit import edit
from clinalign.language.edit_boxes import edit_box
from clinalign.language.substitution import values_of
from clinalign.pairs import filters
from clinalign.pairs.backends import Backend, NoBackend, open_backend
from clinalign.pairs.dialogue import Dialogue, Made, edit_by_model
from clinalign.pairs.options import PairOptions
from clinalign.pairs.spans import edited_ids
from clinalign.progress import track
from clinalign.records import Answer, Example, Pair, Side
from clinalign.storage import Mapped, Quarantine, Rows, by_id, key_of

STAGE = "pair"
GROUP = 64
"""Answers that are edited as one piece of work."""
Choices = Mapping[str, Sequence[str]]
Answered = tuple[Answer, Example | None]
"""An answer, and the example that it answers where there is one."""


class Editor(Protocol):
    """Repairs an answer or injects an error: at once, or in a dialogue with a model. Raises RowError with a reason code
    where it cannot."""

    def __call__(
        self, example: Example, text: str, rng: random.Random, choices: Choices, options: PairOptions
    ) -> Edit | Dialogue: ...


def edit_by_rules(
    example: Example, text: str, rng: random.Random, choices: Choices, options: PairOptions | None = None
) -> Edit:
    """The offline editor: the clinical lexicon of `language`."""
    return edit(example.question, text, example.answer, example.slots, rng, task=example.task, choices=choices)


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
    backend: Backend | None = None,
    source: str = "",
    boxes: Mapping[str, str] | None = None,
    each: Each = map,
) -> Sequence[Pair]:
    """One pair for each answer that passes the filters; each other answer is one row in the quarantine (stage "pair").

    A wrong answer is rejected beside its repair; a right one is chosen beside a counterfactual. The order is that of
    `answers`, and a pair depends on nothing but its example, its answer and `options`, and on what a model replies
    where one is asked (`backend`, by default that of `open_backend`). `source` is the name of the examples' file.
    `boxes`: of examples whose true answer is a place in the image, its box as the model writes boxes. The pairs lie on
    disk (`Rows`), as examples and answers may. `each` has answers edited where no model is asked; whoever asks one asks
    from here.
    """
    if backend is None:
        with open_backend(options) as opened:
            given = (examples, answers, tokenizer, options, quarantine)
            return build_pairs(*given, backend=opened, source=source, boxes=boxes, each=each)
    known = by_id(examples)
    quarantine.start(STAGE)
    pairs: Rows[Pair] = Rows()
    answered = Mapped(answers, lambda answer: (answer, known.get(answer.example_id)))
    work = partial(
        _pairs, tokenizer=tokenizer, options=options, choices=values_of(examples), backend=backend, boxes=boxes or {}
    )
    made: Iterable[Pair | RowError]
    if isinstance(backend, NoBackend):
        groups = (answered[start : start + GROUP] for start in range(0, len(answered), GROUP))
        made = chain.from_iterable(each(work, groups))
    else:
        made = work(answered)
    for (answer, example), found in track(zip(answered, made, strict=True), "pairs", len(answers)):
        if isinstance(found, Pair):
            pairs.append(found)
            continue
        row = example.row if example is not None else 0
        quarantine.add(
            STAGE,
            reason=found.reason,
            file=source if row else "",
            row=row or None,
            id=answer.example_id,
            field=found.field,
            detail=found.detail,
        )
    return _turned(_limited(_downsample(pairs, options, quarantine), options), options)


def _limited(pairs: Sequence[Pair], options: PairOptions) -> Sequence[Pair]:
    """At most `options.limit` pairs, in their order."""
    if not options.limit or len(pairs) <= options.limit:
        return pairs
    kept = set(_drawn(pairs, options, "limit")[: options.limit])
    return Rows(pair for pair in pairs if pair.id in kept)


def _turned(pairs: Sequence[Pair], options: PairOptions) -> Sequence[Pair]:
    """The pairs with `options.wrong_share` of them turned round: the worse answer is the chosen one."""
    if not options.wrong_share:
        return pairs
    turned = set(_drawn(pairs, options, "wrong")[: round(options.wrong_share * len(pairs))])
    return Rows(_turn(pair) if pair.id in turned else pair for pair in pairs)


def _drawn(pairs: Sequence[Pair], options: PairOptions, what: str) -> list[str]:
    return sorted((pair.id for pair in pairs), key=lambda name: key_of([options.seed, what, name]))


def _turn(pair: Pair) -> Pair:
    own = {"chosen": "rejected", "rejected": "chosen"}.get(pair.own, pair.own)
    sides = {f"{ours}{part}": getattr(pair, f"{theirs}{part}")
             for ours, theirs in (("chosen", "rejected"), ("rejected", "chosen"))
             for part in ("", "_spans", "_token_ids")}  # fmt: skip
    return replace(pair, own=own, **sides)


def _pairs(
    answered: Sequence[Answered],
    tokenizer: Any,
    options: PairOptions,
    choices: Choices,
    backend: Backend,
    boxes: Mapping[str, str],
) -> Iterator[Pair | RowError]:
    """The pair of every answer, in order, or why there is none."""
    editor = EDITORS[options.editor]

    def start(one: Answered) -> Edit | Dialogue:
        answer, example = one
        filters.before_editing(example, answer)
        assert example is not None
        rng = random.Random(f"{options.seed}/{answer.round}/{example.id}")
        if example.id in boxes:
            return edit_box(answer.text, boxes[example.id], rng)
        return editor(example, answer.text, rng, choices, options)

    for (answer, example), found in zip(answered, backend.each(start, answered), strict=True):
        try:
            if isinstance(found, RowError):
                raise found
            yield _pair(example, answer, tokenizer, options, found)
        except RowError as error:
            yield error


def _pair(example: Example | None, answer: Answer, tokenizer: Any, options: PairOptions, found: Made) -> Pair:
    assert example is not None
    made, second = found
    filters.wanted(made.was_correct, options)
    if made.kind != "box":  # numbers alone have changed, and whether they are right is measured, not judged
        filters.after_editing(example, answer.text, made, options, second)
    return make_pair(example, answer, made, tokenizer, options)


def make_pair(example: Example, answer: Answer, made: Edit, tokenizer: Any, options: PairOptions) -> Pair:
    """The pair of an answer and its edit; the own side keeps the sampled ids untouched."""
    right = made.was_correct
    edited = edited_ids(tokenizer, answer.token_ids, answer.text, made.text, own_chosen=right)
    texts = [(answer.text, list(answer.token_ids)), (made.text, edited.ids)]
    (chosen, chosen_ids), (rejected, rejected_ids) = texts if right else texts[::-1]
    return Pair.make(
        example,
        Side(chosen, edited.chosen_spans, chosen_ids),
        Side(rejected, edited.rejected_spans, rejected_ids),
        id=f"{example.id}-r{answer.round}",
        own="chosen" if right else "rejected",
        was_correct=right,
        edit_kind=made.kind,
        editor=options.editor,
        prompt=answer.prompt,
        round=answer.round,
        seed=options.seed,
    )


def _downsample(pairs: Sequence[Pair], options: PairOptions, quarantine: Quarantine) -> Sequence[Pair]:
    """Takes out pairs of right answers beyond their allowed share, evenly by a draw on the seed."""
    right = array("Q", (n for n, pair in enumerate(pairs) if pair.was_correct))
    wrong = len(pairs) - len(right)
    share = options.max_correct_share
    if share >= 1.0 or len(right) <= share * len(pairs):
        return pairs
    keep = int(share * wrong / (1.0 - share))
    drawn = set(random.Random(f"{options.seed}/balance").sample(range(len(right)), keep))
    left_out = {place for n, place in enumerate(right) if n not in drawn}
    for place in sorted(left_out):
        name = pairs[place].example_id
        quarantine.add(STAGE, reason="downsampled", id=name, detail=filters.REASONS["downsampled"])
    return Rows(pair for n, pair in enumerate(pairs) if n not in left_out)
