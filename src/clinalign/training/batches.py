"""Preference pairs as trees to score: pairs of one example with one prompt and the same images hang below one prompt.

A pair is a fork of its tree: what both answers share is one segment, chosen and rejected rest are two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clinalign.models import VLM
from clinalign.models.tree import Fork, PackedTrees, Target, Tree, pack
from clinalign.objectives import ANSWERS, LossCoefficients, Method, TokenMask
from clinalign.training.encode import SIDES, Sample


@dataclass(frozen=True)
class ScoringPlan:
    """What is scored: tokens in the preference sums, the KL and the NLL; the answers under image and corrupted image.

    `held`: answers that KL and NLL are on, "corrupt_" before those under the corrupted image. `flips`: the corrupted
    image counts only where the rejected answer is true there. `whole`: rows hold the answers to their end, for those
    who look at more than the scored tokens.
    """

    preference: TokenMask = "spans"
    kl: TokenMask = "none"
    nll: TokenMask = "none"
    clean: tuple[str, ...] = SIDES
    corrupt: tuple[str, ...] = ()
    held: tuple[str, ...] = ("chosen",)
    span_weight: float = 1.0
    flips: bool = False
    reference_free: bool = False
    whole: bool = False

    @property
    def needs_reference(self) -> bool:
        """Whether anything is compared with the reference."""
        return not self.reference_free and (self.preference != "none" or self.kl != "none")

    @property
    def sides(self) -> tuple[str, ...]:
        """The answers that index a token: chosen and rejected, and the counterfactual one where it is scored."""
        return ANSWERS if "counterfactual" in {*self.clean, *self.corrupt} else SIDES

    def images(self, sample: Sample, corrupt: bool) -> list[str] | None:
        """The images that a pair is scored under; None where the view has no answer to score."""
        sides = self.corrupt if corrupt else self.clean
        if not sides or not all(side in sample.answers for side in sides):
            return None
        if not corrupt:
            return sample.images
        return sample.corrupted if sample.flips or not self.flips else None

    def size(self, sample: Sample) -> int:
        """Tokens of a pair's packed rows."""
        views = ((False, self.clean), (True, self.corrupt))
        return sum(sample.size(sides) for corrupt, sides in views if self.images(sample, corrupt) is not None)


def plan_for(
    method: Method, coefficients: LossCoefficients, nll_on: TokenMask = "answer", *, whole: bool = False
) -> ScoringPlan:
    """The least a method has to score at the given (already fixed) coefficients."""
    return ScoringPlan(
        preference=method.preference_on,
        kl=method.kl_on if coefficients.alpha else "none",
        nll=method.nll_on if method.nll_on != "none" else nll_on if coefficients.nll else "none",
        clean=method.clean,
        corrupt=method.corrupt if coefficients.gamma else (),
        held=method.held,
        span_weight=method.span_weight,
        flips=method.flips,
        reference_free=method.reference_free,
        whole=whole,
    )


class PairLayout(NamedTuple):
    """Where a pair stands under its clean image: its tree, the fork of that tree, and how many of the chosen answer's
    tokens the row predicts."""

    tree: int
    fork: int
    predicted: int


@dataclass
class PairBatch:
    """Pairs packed for one forward (`trees`), and what each of the R scored tokens counts for, the `kl_tokens` ones in
    the KL first.

    Of each token its `pair` [R], whether it stands under the `corrupt` image [R], its `index` [A, R] in each of the
    plan's answers (-1: not in that one), and what it weighs in the terms of each: `preference`, `kl`, `nll` [A, R].
    `layouts`: one a pair.
    """

    trees: PackedTrees
    pair: Tensor
    corrupt: Tensor
    index: Tensor
    preference: Tensor
    kl: Tensor
    nll: Tensor
    kl_tokens: int
    layouts: list[PairLayout]

    def to(self, device: torch.device) -> PairBatch:
        """The same on another device."""
        moved: dict[str, Any] = {
            name: v.to(device) for name, v in vars(self).items() if isinstance(v, Tensor | PackedTrees)
        }
        return replace(self, **moved)

    def predicting(self, pair: int) -> list[int]:
        """Columns of a pair's clean row whose states predict the tokens of its chosen answer."""
        tree, fork, count = self.layouts[pair]
        return [self.trees.column(tree, fork, 0, offset) for offset in range(count)]


class Marks(NamedTuple):
    """What a token weighs in the sum, the KL and the NLL of each answer."""

    preference: tuple[float, ...]
    kl: tuple[float, ...]
    nll: tuple[float, ...]


@dataclass(slots=True)
class _Token:
    target: Target
    pair: int
    corrupt: bool
    index: tuple[int, ...]
    marks: Marks


def pack_pairs(vlm: VLM, samples: Sequence[Sample], plan: ScoringPlan, *, padding: str = "right") -> PairBatch:
    """Packs samples on the CPU."""
    trees: list[Tree] = []
    tokens: list[_Token] = []
    layouts: dict[int, PairLayout] = {}
    for corrupt, sides in ((False, plan.clean), (True, plan.corrupt)):
        for images, members in _groups(samples, plan, corrupt):
            first = samples[members[0]]
            forks: list[Fork] = []
            for pair in members:
                fork, added = _fork(samples[pair], plan, sides, corrupt, (len(trees), len(forks), pair))
                if not corrupt:
                    answer = samples[pair].answers["chosen"]
                    layouts[pair] = PairLayout(len(trees), len(forks), min(len(answer), len(fork.answers[0]) + 1))
                tokens += added
                forks.append(fork)
            owner = (first.example_id, tuple(first.prompt), tuple(images), corrupt)
            trees.append(Tree(first.text, first.prompt, images, first.grids, forks, owner))
    tokens.sort(key=lambda token: not any(token.marks.kl))
    count = len(plan.sides)
    return PairBatch(
        trees=pack(vlm, trees, [t.target for t in tokens], padding=padding),
        pair=_column([t.pair for t in tokens]),
        corrupt=_column([t.corrupt for t in tokens]).bool(),
        index=_column([t.index for t in tokens]).reshape(-1, count).t(),
        preference=_weights([t.marks.preference for t in tokens], count),
        kl=_weights([t.marks.kl for t in tokens], count),
        nll=_weights([t.marks.nll for t in tokens], count),
        kl_tokens=sum(any(t.marks.kl) for t in tokens),
        layouts=[layouts[pair] for pair in range(len(samples))],
    )


def _column(values: list[Any]) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.int64))


def _weights(values: list[tuple[float, ...]], answers: int) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32)).reshape(-1, answers).t()


def _groups(samples: Sequence[Sample], plan: ScoringPlan, corrupt: bool) -> list[tuple[list[str], list[int]]]:
    """Images and members of each tree, by example, prompt and images. (Tokens do not say which image they show.)"""
    groups: dict[tuple[Any, ...], tuple[list[str], list[int]]] = {}
    for i, sample in enumerate(samples):
        images = plan.images(sample, corrupt)
        if images is not None:
            key = (sample.example_id, tuple(sample.prompt), tuple(images))
            groups.setdefault(key, (images, []))[1].append(i)
    return list(groups.values())


def _fork(
    sample: Sample, plan: ScoringPlan, sides: Sequence[str], corrupt: bool, at: tuple[int, int, int]
) -> tuple[Fork, list[_Token]]:
    """A pair's answers on some sides, and its scored tokens; `at`: the numbers of its tree, its fork and the pair.

    A token after the last scored one changes nothing that is read, and a last token predicts nothing: both are left
    out, unless the plan wants answers `whole`.
    """
    shared = sample.shared(sides)
    end = [len(sample.answers[s]) if plan.whole else _last(plan, sample, s, corrupt) for s in sides]
    answers = [sample.answers[side][:stop] for side, stop in zip(sides, end, strict=True)]
    fork = Fork(answers, shared, (sample.example_id, sample.id, corrupt))
    paths = [(sides, fork.longest, 0, min(shared, max(end) + 1))]
    for answer, (side, stop) in enumerate(zip(sides, end, strict=True)):
        paths.append(((side,), answer, shared, min(len(sample.answers[side]), stop + 1)))
    tokens: list[_Token] = []
    for owners, answer, first, stop in paths:
        for index in range(first, stop):
            marks = _marks(plan, sample, index, owners, corrupt)
            if marks is not None:
                target = Target(*at[:2], answer, index, sample.answers[owners[0]][index])
                indexes = tuple(index if side in owners else -1 for side in plan.sides)
                tokens.append(_Token(target, at[2], corrupt, indexes, marks))
    return fork, tokens


def _marks(plan: ScoringPlan, sample: Sample, index: int, owners: Sequence[str], corrupt: bool) -> Marks | None:
    """What a token enters; None where it enters nothing."""
    preference, kl, nll = [], [], []
    for side in plan.sides:
        spans = sample.spans[side] if side in owners else None
        weight = plan.span_weight if spans and spans[index] else 1.0
        preference.append(weight * counts(plan.preference, spans, index))
        held = spans if ("corrupt_" if corrupt else "") + side in plan.held else None
        kl.append(float(counts(plan.kl, held, index)))
        nll.append(float(counts(plan.nll, held, index)))
    marks = Marks(tuple(preference), tuple(kl), tuple(nll))
    return marks if any(map(any, marks)) else None


def _last(plan: ScoringPlan, sample: Sample, side: str, corrupt: bool) -> int:
    """Index of the last scored token of an answer; 0 where none is."""
    indexes = range(len(sample.answers[side]))
    return max((i for i in indexes if _marks(plan, sample, i, (side,), corrupt)), default=0)


def counts(which: TokenMask, spans: Sequence[bool] | None, index: int) -> bool:
    """Whether a mask has a token of an answer; no token of an answer that is not there."""
    if spans is None:
        return False
    return which == "answer" or (which == "spans" and spans[index]) or (which == "rest" and not spans[index])
