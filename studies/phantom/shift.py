"""The class-wise logit shift, a control without training: one additive bias a class, fitted on dev.

The base's own answer and its minimal edit into the other value are two claims, "left" and "right" say. The score of a
question is log p(answer that says the first) - log p(answer that says the second), and a bias is added to it. One bias
for side, one for size, and one for the presence of each finding; questions about zones, which have three values, and
answers without a clean edit keep the base's answer. If this control does as well as training, the training moved a
threshold and nothing more.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clinalign.errors import RowError
from clinalign.imaging.images import read_image
from clinalign.language.edit import edit
from clinalign.measuring.evidence import AnswerPair, margins
from clinalign.measuring.judging import judged
from clinalign.records import Example, Outcome

FIRST = {"side": "left", "size": "large", "presence": "yes"}
"""The value whose score the bias is added to."""


class Claim(NamedTuple):
    """A question's score and the two answers it chooses from; `truth`: the first value is the true one."""

    group: str
    score: float
    truth: bool
    first: str
    second: str


class Said(NamedTuple):
    """An answer, as the judge takes it."""

    text: str
    finish_reason: str = "stop"


def group_of(example: Example) -> str | None:
    """The class of a question that one bias belongs to."""
    slot = example.slot
    if slot == "presence":
        return f"presence of {example.finding}"
    return slot if slot in FIRST else None


def read_claims(
    vlm: Any, examples: Sequence[Example], clean: Mapping[str, Outcome], folder: Path, batch_size: int = 32
) -> dict[str, Claim]:
    """The claims of the questions that have two values, by example id. `clean`: the base's outcomes."""
    asked: list[tuple[Example, bool, str, str]] = []
    pairs: list[AnswerPair] = []
    for example in examples:
        outcome = clean[example.id]
        slots = dict(example.slots)
        if group_of(example) is None or outcome.correct is None:
            continue
        try:
            rng = random.Random(example.id)
            other = edit(example.question, outcome.text, example.answer, slots, rng, task=example.task).text
        except RowError:
            continue
        truth = slots[example.slot] == FIRST[example.slot]
        own, counter = (vlm.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (outcome.text, other))
        images = [read_image(folder / image) for image in example.images]
        end = [vlm.end_id]
        pairs.append(AnswerPair(example.question, images, [*own, *end], [*counter, *end]))
        asked.append((example, truth, outcome.text, other))
    found = margins(vlm, pairs, batch_size=batch_size)
    claims = {}
    for (example, truth, own_text, other), margin in zip(asked, found, strict=True):
        own_first = truth == bool(clean[example.id].correct)
        first, second = (own_text, other) if own_first else (other, own_text)
        score = margin if own_first else -margin
        claims[example.id] = Claim(str(group_of(example)), score, truth, first, second)
    return claims


def fit(claims: Mapping[str, Claim]) -> dict[str, float]:
    """The bias of each class with the most right answers; of several equally good ones the nearest to zero."""
    groups: dict[str, list[Claim]] = defaultdict(list)
    for claim in claims.values():
        groups[claim.group].append(claim)
    return {group: _best(members) for group, members in sorted(groups.items())}


def _best(claims: Sequence[Claim]) -> float:
    scores = sorted({claim.score for claim in claims})
    borders = [-(a + b) / 2 for a, b in zip(scores, scores[1:], strict=False)]
    candidates = [0.0, *borders, 1.0 - scores[0], -1.0 - scores[-1]]

    def right(bias: float) -> int:
        return sum((claim.score + bias > 0) == claim.truth for claim in claims)

    return min(candidates, key=lambda bias: (-right(bias), abs(bias)))


def apply(
    examples: Sequence[Example],
    clean: Mapping[str, Outcome],
    claims: Mapping[str, Claim],
    biases: Mapping[str, float],
    system: str,
) -> list[Outcome]:
    """Judged outcomes of the shifted base, one an example."""
    outcomes = []
    for example in examples:
        claim, base = claims.get(example.id), clean[example.id]
        text = base.text
        if claim is not None:
            text = claim.first if claim.score + biases.get(claim.group, 0.0) > 0 else claim.second
        reason = "length" if base.metrics.get("truncated") else "stop"
        outcomes.append(judged(example, Said(text, reason), system=system, decoder=base.decoder, seed=base.seed))
    return outcomes
