"""Supervised warm-up: a model that does not speak the questions' language yet is first taught to, on true answers.

The target is the example's full sentence (`full`) where the data has one, otherwise the ground truth itself. It
runs as the method `sft` of the ordinary trainer; what it learnt becomes part of the weights that everything after it,
the reference policy included, starts from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clinalign.records import Example, Pair


def truth_pairs(examples: Sequence[Example], tokenizer: Any, eos_id: int) -> list[Pair]:
    """One record an example for `train(method="sft")`, which reads the chosen side alone (the other repeats it)."""
    pairs = []
    for example in examples:
        text = example.full or example.answer
        ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], eos_id]
        pairs.append(
            Pair(
                id=f"{example.id}-truth",
                example_id=example.id,
                round=0,
                images=list(example.images),
                prompt=example.question,
                chosen=text,
                rejected=text,
                chosen_spans=[[0, len(text)]],
                rejected_spans=[[0, len(text)]],
                own="rejected",
                chosen_token_ids=ids,
                rejected_token_ids=list(ids),
                was_correct=True,
                edit_kind="truth",
                editor="reference",
            )
        )
    return pairs
