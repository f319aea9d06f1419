"""Preference pairs as trees to score: pairs of one example with one prompt and the same images hang below one prompt.

A pair is a fork of its tree: what both answers share is one segment, chosen and rejected rest are two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clinalign.models import VLM
from clinalign.models.tree import Fork, PackedTrees, Target, Tree, pack
from clinalign.objectives import EXTRA, VIEWS, LossCoefficients, Method, TokenMask
from clinalign.training.encode import SIDES, Sample

NAMES = ("clean", "corrupt", *VIEWS)
"""Views by number."""
PLAIN: tuple[tuple[str, float], ...] = ()
"""Weights of tokens by kind where each weighs 1."""
PREFIX = {name: "" if name == "clean" else f"{name}_" for name in NAMES}
"""How the names of an answer's values under a view begin."""


@dataclass(frozen=True)
class ScoringPlan:
    """What is scored: tokens in the preference sums, the KL and the NLL; the answers under image and corrupted image.

    `views`: answers under further views. `likeliest`: also the tokens that are likeliest under the corrupted image.
    `held`: answers that KL and NLL are on, "corrupt_" before those under the corrupted image. `flips`: the corrupted
    image counts only where the rejected answer is true there. `span_weights`: in the preference sums, of the tokens in
    spans by the kind of edit ("spans": of kinds that are not named) and of the "rest". `whole`: rows hold the answers
    to their end, for those who look at more than the scored tokens.
    """

    preference: TokenMask = "spans"
    kl: TokenMask = "none"
    nll: TokenMask = "none"
    clean: tuple[str, ...] = SIDES
    corrupt: tuple[str, ...] = ()
    held: tuple[str, ...] = ("chosen",)
    span_weights: tuple[tuple[str, float], ...] = PLAIN
    flips: bool = False
    reference_free: bool = False
    whole: bool = False
    views: tuple[tuple[str, tuple[str, ...]], ...] = ()
    likeliest: bool = False

    @property
    def needs_reference(self) -> bool:
        """Whether anything is compared with the reference."""
        return not self.reference_free and (self.preference != "none" or self.kl != "none")

    @property
    def sides(self) -> tuple[str, ...]:
        """The answers that index a token: chosen and rejected, and the counterfactual one where it is scored."""
        scored = {side for sides in self.seen.values() for side in sides}
        return SIDES + tuple(side for side in EXTRA if side in scored)

    @property
    def seen(self) -> dict[str, tuple[str, ...]]:
        """The answers under each view that has any."""
        every = {"clean": self.clean, "corrupt": self.corrupt, **dict(self.views)}
        return {view: sides for view, sides in every.items() if sides}

    def images(self, sample: Sample, view: str) -> list[str] | None:
        """The images that a pair is scored under; None where the view has no answer to score."""
        sides = self.seen.get(view, ())
        if not sides or not all(side in sample.answers for side in sides):
            return None
        if view == "corrupt" and self.flips and not sample.flips:
            return None
        return sample.shown(view)

    def shown(self, samples: Iterable[Sample]) -> list[str]:
        """Keys of the images that samples are scored under, each once."""
        return list(dict.fromkeys(name for s in samples for view in self.seen for name in self.images(s, view) or ()))

    def size(self, sample: Sample) -> int:
        """Tokens of a pair's packed rows."""
        seen = self.seen.items()
        return sum(sample.size(sides, view) for view, sides in seen if self.images(sample, view) is not None)

    def weight(self, sample: Sample, spans: Sequence[bool] | None, index: int) -> float:
        """What a token of an answer weighs in the preference sums."""
        weights = dict(self.span_weights)
        if spans is None or not spans[index]:
            return weights.get("rest", 1.0)
        return weights.get(sample.kind, weights.get("spans", 1.0))


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
        span_weights=span_weights(method, coefficients),
        flips=method.flips,
        reference_free=method.reference_free,
        whole=whole,
        views=tuple(method.views.items()),
        likeliest=method.likeliest and bool(coefficients.alpha),
    )


def span_weights(method: Method, coefficients: LossCoefficients) -> tuple[tuple[str, float], ...]:
    """Of a method whose spans weigh more than the rest, or of temperatures by kind, over beta."""
    if coefficients.betas and method.by_kind:
        return tuple((kind, beta / coefficients.beta) for kind, beta in coefficients.betas.items())
    return (("spans", method.span_weight),) if method.span_weight != 1 else PLAIN


def held_of(answer: str) -> tuple[str, str]:
    """View and side of an answer that a KL and an NLL are on."""
    corrupt = answer.startswith("corrupt_")
    return "corrupt" if corrupt else "clean", answer.removeprefix("corrupt_")


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

    Of each token its `pair` [R], the number of the `view` that it stands under [R], its `index` [A, R] in each of the
    plan's answers (-1: not in that one), and what it weighs in the terms of each: `preference`, `kl`, `nll` [A, R].
    `layouts`: one a pair, where answers stand under the image.
    """

    trees: PackedTrees
    pair: Tensor
    view: Tensor
    index: Tensor
    preference: Tensor
    kl: Tensor
    nll: Tensor
    kl_tokens: int
    layouts: list[PairLayout]

    def under(self, view: str) -> Tensor:
        """bool [R]: the tokens under a view."""
        return self.view == NAMES.index(view)

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
    view: str
    index: tuple[int, ...]
    marks: Marks


def pack_pairs(vlm: VLM, samples: Sequence[Sample], plan: ScoringPlan, *, padding: str = "right") -> PairBatch:
    """Packs samples on the CPU."""
    trees: list[Tree] = []
    tokens: list[_Token] = []
    layouts: dict[int, PairLayout] = {}
    for view, sides in plan.seen.items():
        for images, members in _groups(samples, plan, view):
            first = samples[members[0]]
            forks: list[Fork] = []
            for pair in members:
                fork, added = _fork(samples[pair], plan, sides, view, (len(trees), len(forks), pair))
                if view == "clean":
                    answer = samples[pair].answers["chosen"]
                    layouts[pair] = PairLayout(len(trees), len(forks), min(len(answer), len(fork.answers[0]) + 1))
                tokens += added
                forks.append(fork)
            text, ids = first.asked(view)
            owner = (first.example_id, tuple(ids), tuple(images), *_owned(view))
            trees.append(Tree(text, ids, images, first.grids_of(view), forks, owner))
    tokens.sort(key=lambda token: not any(token.marks.kl))
    count = len(plan.sides)
    return PairBatch(
        trees=pack(vlm, trees, [t.target for t in tokens], padding=padding),
        pair=_column([t.pair for t in tokens]),
        view=_column([NAMES.index(t.view) for t in tokens]),
        index=_column([t.index for t in tokens]).reshape(-1, count).t(),
        preference=_weights([t.marks.preference for t in tokens], count),
        kl=_weights([t.marks.kl for t in tokens], count),
        nll=_weights([t.marks.nll for t in tokens], count),
        kl_tokens=sum(any(t.marks.kl) for t in tokens),
        layouts=[layouts[pair] for pair in sorted(layouts)],
    )


def _column(values: list[Any]) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.int64))


def _weights(values: list[tuple[float, ...]], answers: int) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32)).reshape(-1, answers).t()


def _owned(view: str) -> tuple[Any, ...]:
    """What tells a view's tokens from those of others, to dropout."""
    return (view == "corrupt",) if view in ("clean", "corrupt") else (view,)


def _groups(samples: Sequence[Sample], plan: ScoringPlan, view: str) -> list[tuple[list[str], list[int]]]:
    """Images and members of each tree, by example, prompt and images. (Tokens do not say which image they show.)"""
    groups: dict[tuple[Any, ...], tuple[list[str], list[int]]] = {}
    for i, sample in enumerate(samples):
        images = plan.images(sample, view)
        if images is not None:
            key = (sample.example_id, tuple(sample.asked(view)[1]), tuple(images))
            groups.setdefault(key, (images, []))[1].append(i)
    return list(groups.values())


def _fork(
    sample: Sample, plan: ScoringPlan, sides: Sequence[str], view: str, at: tuple[int, int, int]
) -> tuple[Fork, list[_Token]]:
    """A pair's answers on some sides, and its scored tokens; `at`: the numbers of its tree, its fork and the pair.

    A token after the last scored one changes nothing that is read, and a last token predicts nothing: both are left
    out, unless the plan wants answers `whole`.
    """
    shared = sample.shared(sides)
    end = [len(sample.answers[s]) if plan.whole else _last(plan, sample, s, view) for s in sides]
    answers = [sample.answers[side][:stop] for side, stop in zip(sides, end, strict=True)]
    fork = Fork(answers, shared, (sample.example_id, sample.id, *_owned(view)))
    paths = [(sides, fork.longest, 0, min(shared, max(end) + 1))]
    for answer, (side, stop) in enumerate(zip(sides, end, strict=True)):
        paths.append(((side,), answer, shared, min(len(sample.answers[side]), stop + 1)))
    tokens: list[_Token] = []
    for owners, answer, first, stop in paths:
        for index in range(first, stop):
            marks = _marks(plan, sample, index, owners, view)
            if marks is not None:
                target = Target(*at[:2], answer, index, sample.answers[owners[0]][index])
                indexes = tuple(index if side in owners else -1 for side in plan.sides)
                tokens.append(_Token(target, at[2], view, indexes, marks))
    return fork, tokens


def _marks(plan: ScoringPlan, sample: Sample, index: int, owners: Sequence[str], view: str) -> Marks | None:
    """What a token enters; None where it enters nothing."""
    preference, kl, nll = [], [], []
    for side in plan.sides:
        spans = sample.spans[side] if side in owners else None
        preference.append(plan.weight(sample, spans, index) * counts(plan.preference, spans, index))
        held = spans if PREFIX[view] + side in plan.held else None
        kl.append(float(counts(plan.kl, held, index)))
        nll.append(float(counts(plan.nll, held, index)))
    marks = Marks(tuple(preference), tuple(kl), tuple(nll))
    return marks if any(map(any, marks)) else None


def _last(plan: ScoringPlan, sample: Sample, side: str, view: str) -> int:
    """Index of the last scored token of an answer; 0 where none is."""
    indexes = range(len(sample.answers[side]))
    return max((i for i in indexes if _marks(plan, sample, i, (side,), view)), default=0)


def counts(which: TokenMask, spans: Sequence[bool] | None, index: int) -> bool:
    """Whether a mask has a token of an answer; no token of an answer that is not there."""
    if spans is None:
        return False
    return which == "answer" or (which == "spans" and spans[index]) or (which == "rest" and not spans[index])
