"""Losses as pure functions on tensors, and the table of methods: which tokens count, which coefficients are fixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Literal

from clinalign.objectives.dpo import dpo
from clinalign.objectives.firempo import firempo
from clinalign.objectives.logps import ANSWERS, BOTH, HELD, LossCoefficients, LossTerms, SequenceLogps, anchored
from clinalign.objectives.mask_dpo import mask_dpo
from clinalign.objectives.mdpo import mdpo
from clinalign.objectives.rrpo import rrpo
from clinalign.objectives.sft import sft

TokenMask = Literal["spans", "rest", "answer", "none"]
"""Tokens of an answer: those in its spans, those outside them, all, none."""


@dataclass(frozen=True)
class Method:
    """One way to train. Training computes what it asks for and nothing else.

    preference_on: tokens of the answers in the preference sums; kl_on, nll_on: tokens of the `held` answers in the KL
    and the NLL; clean, corrupt: answers scored under the image and under the corrupted one; text: "spans" trains on
    answers that consist of their spans alone; span_weight: of a span's token where a sum is over whole answers.
    `needs`: fields of a pair without which it cannot be trained on. `defaults` stand in for coefficients that the user
    leaves open, `fixed` ones win over the user's.
    """

    loss: Callable[[SequenceLogps, LossCoefficients], LossTerms]
    preference_on: TokenMask = "spans"
    kl_on: TokenMask = "spans"
    corrupt: tuple[str, ...] = ()
    text: Literal["whole", "spans"] = "whole"
    nll_on: TokenMask = "none"
    fixed: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    defaults: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    clean: tuple[str, ...] = BOTH
    held: tuple[str, ...] = ("chosen",)
    span_weight: float = 1.0
    needs: tuple[str, ...] = ()

    @property
    def flips(self) -> bool:
        """Whether the rejected answer is preferred under the corrupted image, which asks that it be true there."""
        return set(BOTH) <= set(self.corrupt)

    def coefficients(self, given: LossCoefficients) -> LossCoefficients:
        """The user's coefficients with this method's fixed ones put in."""
        return replace(given, **self.fixed)


ONE = ("chosen",)


def _fixed(**values: float) -> Mapping[str, float]:
    return MappingProxyType(values)


METHODS: dict[str, Method] = {
    "firempo": Method(firempo, corrupt=BOTH),
    "no_visual": Method(firempo, fixed=_fixed(gamma=0)),
    "no_fkl": Method(firempo, fixed=_fixed(gamma=0, lam=0)),
    "no_rkl": Method(firempo, fixed=_fixed(gamma=0, lam=1)),
    "no_kl": Method(firempo, kl_on="none", fixed=_fixed(gamma=0, alpha=0)),
    "v1": Method(partial(firempo, visual="v1"), corrupt=("chosen",)),
    "v2": Method(partial(firempo, visual="v2"), corrupt=("rejected",)),
    "d1": Method(firempo, preference_on="answer", kl_on="answer", corrupt=BOTH, text="spans"),
    "d2": Method(firempo, preference_on="answer", kl_on="answer", corrupt=BOTH),
    "d3": Method(firempo, preference_on="answer", kl_on="answer", corrupt=BOTH),
    "rrpo": Method(rrpo, fixed=_fixed(gamma=0, lam=1)),
    "rrpo_authors": Method(rrpo, kl_on="answer", fixed=_fixed(gamma=0, lam=1)),
    "mask_dpo": Method(mask_dpo, kl_on="none", fixed=_fixed(gamma=0, alpha=0)),
    "mdpo": Method(mdpo, preference_on="answer", kl_on="none", corrupt=("chosen",), fixed=_fixed(alpha=0, gamma=1)),
    "dpo": Method(dpo, preference_on="answer", kl_on="none", fixed=_fixed(gamma=0, alpha=0)),
    "sft": Method(sft, "none", "none", nll_on="answer", clean=ONE, fixed=_fixed(gamma=0, alpha=0, nll=0)),
}
"""Method by name. d1, d2, d3 are FiRe-MPO's data ablations: answers cut down to their spans; the ground truth as chosen
answer (the pairs must be built that way; they have no spans, so whole answers count); the same minimal-edit pairs with
their spans ignored. no_kl and mask_dpo are the same loss under the two names it is known by, no_rkl and rrpo too."""

__all__ = [
    "ANSWERS", "BOTH", "HELD", "METHODS", "TokenMask", "Method", "SequenceLogps", "LossTerms", "LossCoefficients",
    "anchored",
]  # fmt: skip
