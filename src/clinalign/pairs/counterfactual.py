"""What is right under a pair's corrupted image, where the evidence of the finding that is asked about is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from clinalign.errors import RowError
from clinalign.language.claims import claims
from clinalign.language.compat import same
from clinalign.language.graph import CONCEPTS, is_a
from clinalign.language.parse import ABSENT, parse
from clinalign.language.parse_answer import parse_answer
from clinalign.language.parse_open import about
from clinalign.language.parse_question import ParsedQuestion, parse_question
from clinalign.pairs.spans import edited_ids
from clinalign.records import Example, Pair
from clinalign.storage import Rows, by_id


def answered_under_corruption(
    pairs: Sequence[Pair], examples: Sequence[Example], tokenizer: Any, *, flip: str = "all"
) -> Sequence[Pair]:
    """Pairs with `corrupted_answer`, its spans and ids filled in where they are known, and `flips`.

    Known is the answer where a lesion was taken out: to a question about its presence the rejected one, where that
    denies the finding; else, and to a question about its side, its size and the like, that the finding is not seen. An
    image that shows the finding at a second place has none.
    `flip`: "evidence" has the preference turn round only where the rejected answer is taken, which is right under the
    corrupted image; "all" wherever there is one.
    """
    known = by_id(examples)
    return Rows(_answered(pair, known.get(pair.example_id), tokenizer, flip) for pair in pairs)


def _answered(pair: Pair, example: Example | None, tokenizer: Any, flip: str) -> Pair:
    asked = None
    if example is not None and pair.corrupted_images and pair.corruption_area == "lesion":
        asked = parse_question(example.question, example.answer, example.task, example.slots)
        asked = None if asked is not None and _shown_still(asked, pair, example) else asked
    gone = asked is not None and asked.kind == "presence" and _present(asked)
    denied = asked is not None and gone and _denied(asked, pair)
    pair = replace(pair, flips=denied or flip == "all")
    if denied:
        own = (pair.rejected, pair.rejected_spans, pair.rejected_token_ids)
    elif asked is not None and asked.finding and (gone or asked.kind in ("slot", "open")):
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


def _shown_still(asked: ParsedQuestion, pair: Pair, example: Example) -> bool:
    """Whether a region of the finding stays: of several on one image the first alone is taken out. The exact image
    without the finding shows none; of a general finding ("any abnormality") every other one stays."""
    taken = {region.image: region for region in example.regions[:1]}
    for region in example.regions if pair.corruption != "counterfactual" else ():
        if not (region.mask or region.box):
            continue
        if region.label == example.regions[0].label:
            if taken.setdefault(region.image, region) != region:
                return True
        elif asked.finding and region.label in CONCEPTS and is_a(region.label, asked.finding):
            return True
    return False


def _denied(asked: ParsedQuestion, pair: Pair) -> bool:
    """Whether the rejected answer says that the finding is not there, and of nothing that it is but what the chosen one
    names too. "On the right" also says no to a question about the left, but nobody knows of one on the right."""
    if parse_answer(asked, pair.rejected).said.get("presence") != ("yes" if asked.inverted else "no"):
        return False
    said, known = claims(pair.rejected), {claim.finding for claim in claims(pair.chosen)}
    own = about(asked, said)
    if any(claim.status != ABSENT and (claim in own or claim.finding not in known) for claim in said):
        return False
    # a place may have no finding beside it: "not on the left, but there is one on the right"
    there = [m for m in parse(pair.rejected).mentions if m.status != ABSENT and m.kind in asked.attributes]
    return not any(same(m.kind, m.value, asked.attributes[m.kind]) is False for m in there)
