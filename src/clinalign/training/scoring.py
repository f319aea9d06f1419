"""Rewards as the trainer asks for them: many reports at once, those of experts and other packages too, and whatever
one of them does is counted and stops nothing in silence."""

from __future__ import annotations

import importlib.util
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from clinalign.errors import UsageError, first_line
from clinalign.evaluation import peers
from clinalign.extensions import is_own, load
from clinalign.models.expert import Expert
from clinalign.records import Example
from clinalign.training.rewards import OF_EXPERT, REWARDS, Reward, reference, sentence_set, sentences

Scorer = Callable[[Sequence[str], Sequence[Example]], list[float | None]]
"""Reports and what they answer into one reward each, None where it does not apply."""

RADEVAL = tuple(f"radeval_{name}" for name in peers.NAMES)
NAMES = (*REWARDS, *OF_EXPERT, *RADEVAL)


def check_rewards(names: Sequence[str]) -> None:
    """`UsageError` for a metric of RadEval where that is not installed, or an own reward that cannot be imported."""
    for name in names:
        if name in RADEVAL and importlib.util.find_spec("radeval") is None:
            raise UsageError(f"reward {name} needs radeval; install it with: pip install 'clinalign[eval]'")
        if is_own(name) and not callable(load(name, "reward")):
            raise UsageError(f"reward '{name}': names no function of a text and an example")


class Tally:
    """What went wrong with rewards: counts by "REWARD/WHAT", and the first text of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def add(self, name: str, what: str, detail: str = "") -> None:
        self.counts[f"{name}/{what}"] += 1
        self.first.setdefault(f"{name}/{what}", detail)


def guarded(name: str, reward: Reward, tally: Tally) -> Reward:
    """A reward that always ends: 0 for an empty report (counted); None, counted, for an error or what is no number."""

    def score(text: str, example: Example) -> float | None:
        if not text.strip():
            tally.add(name, "empty")
            return 0.0
        try:
            value = reward(text, example)
        except Exception as error:  # own code and other packages raise what they like
            tally.add(name, "error", f"{example.id}: {type(error).__name__}: {first_line(error)}")
            return None
        if value is not None and not math.isfinite(value):
            tally.add(name, "no number", example.id)
            return None
        return value

    return score


def by_radeval(name: str, tally: Tally, texts: Sequence[str], examples: Sequence[Example]) -> list[float | None]:
    """The first score that a metric of RadEval gives each report; guarded, all of them failing where it fails."""
    asked = [(text, reference(example)) for text, example in zip(texts, examples, strict=True) if text.strip()]
    failure: Exception | None = None
    values: list[float] = []
    try:
        found = peers.radeval(name.removeprefix("radeval_"), [truth for _, truth in asked], [text for text, _ in asked])
        values = [float(value) for value in next(iter(found.values()))]
    except Exception as error:  # another package's error must not end a training
        failure = error if not isinstance(error, StopIteration) else ValueError("it gave no score for each report")

    def following(text: str, example: Example) -> float | None:
        if failure is not None:
            raise failure
        return values.pop(0)

    score = guarded(name, following, tally)
    return [score(text, example) for text, example in zip(texts, examples, strict=True)]


class Scorers:
    """The scorer of each reward by name. `show`: an example's images, as arrays."""

    def __init__(self, expert: Expert | None, show: Callable[[Example], list[Any]], tally: Tally) -> None:
        self.expert, self.show, self.tally = expert, show, tally
        self._images: dict[str, Tensor | None] = {}

    def of(self, name: str) -> Scorer:
        """A table's reward, the expert's, one of RadEval's or `module:name`, guarded."""
        if name in RADEVAL:
            return partial(by_radeval, name, self.tally)
        one: Reward
        if name == "similarity":
            one = self.similarity
        elif name == "sentence_set":
            assert self.expert is not None
            one = partial(sentence_set, embed=self.expert.texts)
        else:
            one = REWARDS[name] if name in REWARDS else load(name, "reward")
        score = guarded(name, one, self.tally)
        return lambda texts, examples: [score(text, example) for text, example in zip(texts, examples, strict=True)]

    def similarity(self, text: str, example: Example) -> float | None:
        """Mean cosine of the report's sentences with the image (the mean over its images); None without one."""
        assert self.expert is not None
        if example.id not in self._images:
            shown = self.show(example)
            self._images[example.id] = self.expert.images(shown) if shown else None
        image = self._images[example.id]
        return None if image is None else float((self.expert.texts(sentences(text) or [text]) @ image.T).mean())


def troubles(counts: Mapping[str, int], first: Mapping[str, str]) -> dict[str, str]:
    """What a tally holds, in words: counts and the first of each."""
    return {
        f"reward {what}": f"reward {what}: {times} times" + (f", first {first[what]}" if first.get(what) else "")
        for what, times in sorted(counts.items())
    }
