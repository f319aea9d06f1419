"""Reference-style pairs: the short ground truth as chosen, the model's answer as rejected.

The usual construction elsewhere, kept as a control: its two sides differ in style and length more than in meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clinalign.errors import RowError
from clinalign.language.judge import judge
from clinalign.language.offsets import answer_end
from clinalign.pairs import gates
from clinalign.pairs.build import STAGE
from clinalign.records import Answer, Example, Pair
from clinalign.storage import Quarantine


def reference_pairs(
    examples: Sequence[Example], answers: Sequence[Answer], tokenizer: Any, quarantine: Quarantine
) -> list[Pair]:
    """Chosen: the ground truth, encoded afresh; rejected: the sampled answer. Both texts are one span.

    Right answers give a pair too, as in the released corpora, where the reference is always preferred.
    """
    by_id = {example.id: example for example in examples}
    quarantine.start(STAGE)
    pairs: list[Pair] = []
    end = answer_end(tokenizer)
    for answer in answers:
        example = by_id.get(answer.example_id)
        try:
            gates.before_editing(example, answer)
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
    ids = list(tokenizer(truth, add_special_tokens=False)["input_ids"])
    verdict = judge(example.question, answer.text, example.answer, example.task, example.slots)
    region = example.regions[0] if example.regions else None
    return Pair(
        id=f"{example.id}-r{answer.round}-reference",
        example_id=example.id,
        round=answer.round,
        images=list(example.images),
        prompt=answer.prompt,
        chosen=truth,
        rejected=answer.text,
        chosen_spans=[[0, len(truth)]],
        rejected_spans=[[0, len(answer.text)]],
        own="rejected",
        chosen_token_ids=[*ids, end],
        rejected_token_ids=list(answer.token_ids),
        was_correct=verdict.correct is True,
        edit_kind="reference",
        editor="reference",
        region=region,
        region_source="dataset" if region is not None else "none",
    )
