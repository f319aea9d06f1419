"""Losses as pure functions on tensors, and the table of methods: which tokens count, which coefficients are fixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from clinalign.objectives.logps import LossCoefficients, LossTerms, SequenceLogps, anchored

TokenMask = Literal["spans", "answer", "none"]


@dataclass(frozen=True)
class Method:
    """One way to train. Training computes what it asks for and nothing else.

    preference_on: tokens of both answers in the preference sums; kl_on: tokens of the chosen answer in the KL; corrupt:
    sides scored under the corrupted image; text: "spans" trains on answers that consist of their spans alone. `fixed`
    coefficients win over the user's.
    """

    loss: Callable[[SequenceLogps, LossCoefficients], LossTerms]
    preference_on: TokenMask = "spans"
    kl_on: TokenMask = "spans"
    corrupt: tuple[str, ...] = ()
    text: Literal["whole", "spans"] = "whole"
    nll_on: TokenMask = "none"
    fixed: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def coefficients(self, given: LossCoefficients) -> LossCoefficients:
        """The user's coefficients with this method's fixed ones put in."""
        return replace(given, **self.fixed)


BOTH = ("chosen", "rejected")


def _loss(name: str) -> Callable[..., LossTerms]:
    """The loss of that name in the file of that name, imported when it is first called: a table costs no torch."""

    def loss(logps: SequenceLogps, coefficients: LossCoefficients, **options: Any) -> LossTerms:
        terms: LossTerms = getattr(import_module(f"clinalign.objectives.{name}"), name)(logps, coefficients, **options)
        return terms

    return loss


dpo, firempo, mdpo, rrpo, sft = map(_loss, ("dpo", "firempo", "mdpo", "rrpo", "sft"))


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
    "mask_dpo": Method(dpo, kl_on="none", fixed=_fixed(gamma=0, alpha=0)),
    "mdpo": Method(mdpo, preference_on="answer", kl_on="none", corrupt=("chosen",), fixed=_fixed(alpha=0, gamma=1)),
    "dpo": Method(dpo, preference_on="answer", kl_on="none", fixed=_fixed(gamma=0, alpha=0)),
    "sft": Method(sft, preference_on="none", kl_on="none", nll_on="answer", fixed=_fixed(gamma=0, alpha=0, nll=0)),
}
"""Method by name. d1, d2, d3 are FiRe-MPO's data ablations: answers cut down to their spans; the ground truth as chosen
answer (the pairs must be built that way; they have no spans, so whole answers count); the same minimal-edit pairs with
their spans ignored. no_kl and mask_dpo are the same loss under the two names it is known by, no_rkl and rrpo too."""

__all__ = ["BOTH", "METHODS", "TokenMask", "Method", "SequenceLogps", "LossTerms", "LossCoefficients", "anchored"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("clinalign.objectives.logps"), name)
    raise AttributeError(f"module 'clinalign.objectives' has no attribute '{name}'")
