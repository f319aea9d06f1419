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
from clinalign.objectives import LossCoefficients, Method, TokenMask
from clinalign.training.encode import SIDES, Sample


@dataclass(frozen=True)
class ScoringPlan:
    """What is scored: tokens in the preference sums, the KL and the NLL; the sides under image and corrupted image.

    `whole`: rows hold the answers to their end, for those who look at more than the scored tokens.
    """

    preference: TokenMask = "spans"
    kl: TokenMask = "none"
    nll: TokenMask = "none"
    clean: tuple[str, ...] = SIDES
    corrupt: tuple[str, ...] = ()
    whole: bool = False

    @property
    def needs_reference(self) -> bool:
        """Whether anything is compared with the reference."""
        return self.preference != "none" or self.kl != "none"


def plan_for(
    method: Method, coefficients: LossCoefficients, nll_on: TokenMask = "answer", *, whole: bool = False
) -> ScoringPlan:
    """The least a method has to score at the given (already fixed) coefficients."""
    return ScoringPlan(
        preference=method.preference_on,
        kl=method.kl_on if coefficients.alpha else "none",
        nll=method.nll_on if method.nll_on != "none" else nll_on if coefficients.nll else "none",
        clean=SIDES if method.preference_on != "none" else SIDES[:1],
        corrupt=method.corrupt if coefficients.gamma else (),
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

    Of each token its `pair` [R], whether it stands under the `corrupt` image [R], its `index` [2, R] in the chosen and
    the rejected answer (-1: not in that one), and whether it counts: `preference` [2, R] for the chosen and the
    rejected sum, `nll` [R]. `layouts`: one a pair.
    """

    trees: PackedTrees
    pair: Tensor
    corrupt: Tensor
    index: Tensor
    preference: Tensor
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
    """What a token counts for: chosen and rejected sum, KL, NLL."""

    preference: tuple[bool, bool]
    kl: bool
    nll: bool


@dataclass(slots=True)
class _Token:
    target: Target
    pair: int
    corrupt: bool
    index: tuple[int, int]
    marks: Marks


def pack_pairs(vlm: VLM, samples: Sequence[Sample], plan: ScoringPlan, *, padding: str = "right") -> PairBatch:
    """Packs samples on the CPU."""
    trees: list[Tree] = []
    tokens: list[_Token] = []
    layouts: dict[int, PairLayout] = {}
    for corrupt, sides in ((False, plan.clean), (True, plan.corrupt)):
        for images, members in _groups(samples, corrupt) if sides else []:
            first = samples[members[0]]
            forks: list[Fork] = []
            for pair in members:
                fork, added = _fork(samples[pair], plan, sides, corrupt, (len(trees), len(forks), pair))
                if not corrupt:
                    answer = samples[pair].answers["chosen"]
                    layouts[pair] = PairLayout(len(trees), len(forks), min(len(answer), len(fork.answers[0]) + 1))
                tokens += added
                forks.append(fork)
            trees.append(Tree(first.text, first.prompt, images, first.grids, forks))
    tokens.sort(key=lambda token: not token.marks.kl)
    return PairBatch(
        trees=pack(vlm, trees, [t.target for t in tokens], padding=padding),
        pair=_column([t.pair for t in tokens]),
        corrupt=_column([t.corrupt for t in tokens]).bool(),
        index=_column([t.index for t in tokens]).reshape(-1, 2).t(),
        preference=_column([t.marks.preference for t in tokens]).float().reshape(-1, 2).t(),
        nll=_column([t.marks.nll for t in tokens]).float(),
        kl_tokens=sum(t.marks.kl for t in tokens),
        layouts=[layouts[pair] for pair in range(len(samples))],
    )


def _column(values: list[Any]) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.int64))


def _groups(samples: Sequence[Sample], corrupt: bool) -> list[tuple[list[str], list[int]]]:
    """Images and members of each tree, by example, prompt and images. (Tokens do not say which image they show.)"""
    groups: dict[tuple[Any, ...], tuple[list[str], list[int]]] = {}
    for i, sample in enumerate(samples):
        images = sample.corrupted if corrupt else sample.images
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
    shared = sample.fork if len(sides) == 2 else 0
    end = [len(sample.answers[s]) if plan.whole else _last(plan, sample, s, corrupt) for s in sides]
    fork = Fork([sample.answers[side][:stop] for side, stop in zip(sides, end, strict=True)], shared)
    paths = [(sides, fork.longest, 0, min(shared, max(end) + 1))]
    for answer, (side, stop) in enumerate(zip(sides, end, strict=True)):
        paths.append(((side,), answer, shared, min(len(sample.answers[side]), stop + 1)))
    tokens: list[_Token] = []
    for owners, answer, first, stop in paths:
        for index in range(first, stop):
            marks = _marks(plan, sample, index, owners, corrupt)
            if marks is not None:
                target = Target(*at[:2], answer, index, sample.answers[owners[0]][index])
                indexes = (index if "chosen" in owners else -1, index if "rejected" in owners else -1)
                tokens.append(_Token(target, at[2], corrupt, indexes, marks))
    return fork, tokens


def _marks(plan: ScoringPlan, sample: Sample, index: int, owners: Sequence[str], corrupt: bool) -> Marks | None:
    """What a token enters; None where it enters nothing."""
    sums = [side in owners and _counts(plan.preference, sample.spans[side], index) for side in SIDES]
    clean = "chosen" in owners and not corrupt
    kl = clean and _counts(plan.kl, sample.spans["chosen"], index)
    nll = clean and _counts(plan.nll, sample.spans["chosen"], index)
    return Marks((sums[0], sums[1]), kl, nll) if any(sums) or kl or nll else None


def _last(plan: ScoringPlan, sample: Sample, side: str, corrupt: bool) -> int:
    """Index of the last scored token of an answer; 0 where none is."""
    indexes = range(len(sample.answers[side]))
    return max((i for i in indexes if _marks(plan, sample, i, (side,), corrupt)), default=0)


def _counts(which: TokenMask, spans: Sequence[bool], index: int) -> bool:
    return which == "answer" or (which == "spans" and spans[index])
