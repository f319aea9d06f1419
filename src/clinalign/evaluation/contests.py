"""A system's own answer and its counterfactual as token ids: what margins are taken between."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from clinalign.language.edit import Edit, edit
from clinalign.records import Example

Choices = Mapping[str, Sequence[str]]


def counterfactual(example: Example, text: str, choices: Choices) -> Edit:
    """The minimal edit of an answer into another claim; raises RowError where none is known. The same in every run."""
    slots = dict(example.meta.get("slots") or {})
    rng = random.Random(example.id)
    return edit(example.question, text, example.answer, slots, rng, task=example.task, choices=choices)


def own_and_other(vlm: Any, example: Example, text: str, choices: Choices) -> tuple[list[int], list[int]]:
    """Token ids, EOS included, of an answer and of its counterfactual."""
    end = vlm.eos_ids[:1]
    texts = (text, counterfactual(example, text, choices).text)
    own, other = (vlm.tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts)
    return list(own) + end, list(other) + end
