"""Pairs given instead of made: a preference file's chosen and rejected answers, aligned into spans.

Neither side is the model's own text, so nothing here is on-policy; `own` is "none". Such corpora often teach length or
style (see the audit), which is why making pairs of the model's own answers is the default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clinalign.errors import RowError
from clinalign.language.offsets import answer_end
from clinalign.pairs import gates
from clinalign.pairs.build import STAGE
from clinalign.pairs.options import PairOptions
from clinalign.pairs.spans import edited_ids
from clinalign.progress import track
from clinalign.records import Example, Pair
from clinalign.storage import Quarantine


def given_pairs(
    examples: Sequence[Example], tokenizer: Any, options: PairOptions, quarantine: Quarantine
) -> list[Pair]:
    """One pair for each example whose `rejected` holds a worse answer than `answer`, in their order.

    The chosen side is encoded afresh; the rejected one shares its ids wherever the texts agree, and the spans are what
    differs. Each other example is one row in the quarantine (stage "pair").
    """
    quarantine.start(STAGE)
    pairs, end = [], answer_end(tokenizer)
    for example in track(examples, "pairs"):
        try:
            pairs.append(_pair(example, tokenizer, options, end))
        except RowError as error:
            quarantine.add(STAGE, reason=error.reason, id=example.id, field=error.field, detail=error.detail)
    return pairs


def _pair(example: Example, tokenizer: Any, options: PairOptions, end: int) -> Pair:
    chosen, rejected = example.answer.strip(), example.rejected.strip()
    if not rejected:
        raise RowError("rejected", "no_rejected", "the source gives no rejected answer for this row")
    if chosen == rejected:
        raise RowError("rejected", "nothing_changed", gates.REASONS["nothing_changed"])
    ids = [*tokenizer(chosen, add_special_tokens=False)["input_ids"], end]
    edited = edited_ids(tokenizer, ids, chosen, rejected)
    region = example.regions[0] if example.regions else None
    return Pair(
        id=f"{example.id}-given",
        example_id=example.id,
        round=0,
        images=list(example.images),
        prompt=example.question,
        chosen=chosen,
        rejected=rejected,
        chosen_spans=[list(span) for span in edited.own_spans],
        rejected_spans=[list(span) for span in edited.new_spans],
        own="none",
        chosen_token_ids=ids,
        rejected_token_ids=edited.ids,
        was_correct=False,
        edit_kind="given",
        editor="given",
        region=region,
        region_source="dataset" if region is not None else "none",
        seed=options.seed,
    )
