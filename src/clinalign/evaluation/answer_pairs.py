"""A system's own answer and its counterfactual, the smallest edit of it that claims something else: how much likelier
does the model find the one than the other?"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clinalign.language.align import Edit
from clinalign.language.edit import edit
from clinalign.models.features import from_arrays
from clinalign.models.tree import fork_of, score, tree_of
from clinalign.records import Example

Choices = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """Two answers to one prompt as token ids, EOS included; `images` are uint8 [H, W, 3]."""

    prompt: str
    images: Sequence[np.ndarray]
    answer: list[int]
    counterfactual: list[int]


def counterfactual(example: Example, text: str, choices: Choices) -> Edit:
    """The minimal edit of an answer into another claim; raises RowError where none is known. The same in every run."""
    slots = dict(example.meta.get("slots") or {})
    rng = random.Random(example.id)
    return edit(example.question, text, example.answer, slots, rng, task=example.task, choices=choices)


def answer_pair(
    vlm: Any, example: Example, text: str, choices: Choices, images: Sequence[np.ndarray] = ()
) -> AnswerPair:
    """An answer beside its counterfactual; raises RowError where no edit is known."""
    end = vlm.eos_ids[:1]
    texts = (text, counterfactual(example, text, choices).text)
    answer, other = (list(vlm.tokenizer(t, add_special_tokens=False)["input_ids"]) + end for t in texts)
    return AnswerPair(example.question, images, answer, other)


def margins(vlm: Any, pairs: Sequence[AnswerPair], *, batch_size: int) -> list[float]:
    """Log-likelihood margins `log p(answer) - log p(counterfactual)`, whole answers, in the order of the pairs."""
    features, keys = from_arrays(vlm, [pair.images for pair in pairs])
    trees = [
        tree_of(vlm, pair.prompt, pair.images, names, [fork_of([pair.answer, pair.counterfactual])])
        for pair, names in zip(pairs, keys, strict=True)
    ]
    scores = score(vlm, trees, features, batch_size=batch_size, rests=True)
    return [float(one.logps[0][0].sum() - one.logps[0][1].sum()) for one in scores]
