"""What is right under a pair's corrupted image, where the evidence of the finding that is asked about is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from clinalign.errors import RowError
from clinalign.language.parse_question import ParsedQuestion, parse_question
from clinalign.pairs.spans import edited_ids
from clinalign.records import Example, Pair
from clinalign.storage import Rows, by_id


def answered_under_corruption(
    pairs: Sequence[Pair], examples: Sequence[Example], tokenizer: Any, *, flip: str = "all"
) -> Sequence[Pair]:
    """Pairs with `corrupted_answer`, its spans and ids filled in where they are known, and `flips`.

    Known is the answer where a lesion was taken out: the rejected one to a question about its presence, and that the
    finding is not seen to a question about its side, its size and the like. `flip`: "evidence" has the preference turn
    round only where the rejected answer is right under the corrupted image; "all" wherever there is one.
    """
    known = by_id(examples)
    return Rows(_answered(pair, known.get(pair.example_id), tokenizer, flip) for pair in pairs)


def _answered(pair: Pair, example: Example | None, tokenizer: Any, flip: str) -> Pair:
    asked = None
    if example is not None and pair.corrupted_images and pair.corruption_area == "lesion":
        asked = parse_question(example.question, example.answer, example.task, example.slots)
    gone = asked is not None and asked.kind == "presence" and _present(asked)
    pair = replace(pair, flips=gone or flip == "all")
    if gone:
        own = (pair.rejected, pair.rejected_spans, pair.rejected_token_ids)
    elif asked is not None and asked.finding and asked.kind in ("slot", "open"):
        text = f"No {asked.finding} is seen."
        try:
            ids = edited_ids(tokenizer, pair.chosen_token_ids, pair.chosen, text).ids
        except RowError:  # no tokens spell it: the pair has no such answer
            return pair
        own = (text, [[0, len(text)]], ids)
    else:
        return pair
    return replace(
        pair,
        corrupted_answer=own[0],
        corrupted_answer_spans=[list(s) for s in own[1]],
        corrupted_answer_token_ids=list(own[2]),
    )


def _present(asked: ParsedQuestion) -> bool:
    return (asked.truths["presence"] == "yes") != asked.inverted
