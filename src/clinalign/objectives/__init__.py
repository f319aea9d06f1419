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

BOTH = ("chosen", "rejected")
EXTRA = ("counterfactual", "mismatched")
"""Answers beside the pair's own: the one that is right under the corrupted image, and one to another prompt."""
LADDER = tuple(f"level{step}" for step in range(1, 7))
VIEWS = ("free", "first", "second", "others", *LADDER)
"""What an answer may be scored under besides the image and the corrupted one: no image; both images in one prompt that
asks about the first or the second of them; the image again, for answers to other prompts; the steps of a pair's ladder
of images that show less and less."""
HELD = {"chosen": "", "rejected": "rejected_", "corrupt_counterfactual": "corrupt_"}
"""Answers that a KL and an NLL can be on, and how the fields with their values begin in `SequenceLogps`."""

TokenMask = Literal["spans", "rest", "answer", "none"]
"""Tokens of an answer: those in its spans, those outside them, all, none."""


@dataclass(frozen=True)
class Method:
    """One way to train. Training computes what it asks for and nothing else.

    preference_on: tokens of the answers in the preference sums; kl_on, nll_on: tokens of the `held` answers in the KL
    and the NLL; clean, corrupt: answers scored under the image and under the corrupted one; text: "spans" trains on
    answers that consist of their spans alone; span_weight: of a span's token where a sum is over whole answers.
    `views`: answers scored under further views. `likeliest`: also the tokens that are likeliest under the corrupted
    image, in the chosen answer's places. `by_kind`: a temperature for each kind of span. `baseline`: the log ratio of
    answers to other prompts, too. `rescale`: the gradients of both sums are rescaled. `variants`: other readings of the
    loss, taken by the loss as `variant`. `needs`: fields of a pair
    without which it cannot be trained on. `defaults` stand in for options that the user leaves open, `fixed` ones
    cannot be set.
    """

    loss: Callable[[SequenceLogps, LossCoefficients], LossTerms]
    preference_on: TokenMask = "spans"
    kl_on: TokenMask = "spans"
    corrupt: tuple[str, ...] = ()
    text: Literal["whole", "spans"] = "whole"
    nll_on: TokenMask = "none"
    fixed: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    clean: tuple[str, ...] = BOTH
    held: tuple[str, ...] = ("chosen",)
    span_weight: float = 1.0
    views: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    likeliest: bool = False
    by_kind: bool = False
    baseline: bool = False
    rescale: bool = False
    variants: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    reference_free: bool = False

    @property
    def compares(self) -> bool:
        """Whether anything is compared with the reference."""
        return not self.reference_free and (self.preference_on != "none" or self.kl_on != "none")

    @property
    def flips(self) -> bool:
        """Whether the rejected answer is preferred under the corrupted image, which asks that it be true there."""
        return set(BOTH) <= set(self.corrupt)

    def coefficients(self, given: LossCoefficients) -> LossCoefficients:
        """The user's coefficients with this method's fixed ones put in."""
        return replace(given, **self.fixed)


def _loss(name: str, function: str = "") -> Callable[..., LossTerms]:
    """The function (by default that of the file's name) of a file here, imported when it is first called: a table of
    methods costs no torch."""

    def loss(logps: SequenceLogps, coefficients: LossCoefficients, **options: Any) -> LossTerms:
        called = getattr(import_module(f"clinalign.objectives.{name}"), function or name)
        terms: LossTerms = called(logps, coefficients, **options)
        return terms

    return loss


dpo, firempo, mdpo, rrpo, sft = map(_loss, ("dpo", "firempo", "mdpo", "rrpo", "sft"))


def _fixed(**values: Any) -> Mapping[str, Any]:
    return MappingProxyType(values)


_views = _fixed


ONE = ("chosen",)
OWN = ("counterfactual", "chosen")
CORRUPTED, COUNTERFACTUAL = ("corrupted_images",), ("corrupted_images", "corrupted_answer")
VARIANTS = ("paper", "code")

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
    "sft": Method(sft, "none", "none", nll_on="answer", clean=ONE, fixed=_fixed(gamma=0, alpha=0, nll=0)),
    "keep": Method(
        _loss("keep"), "none", "rest", nll_on="spans", clean=ONE,
        fixed=_fixed(gamma=0, nll=0), defaults=_fixed(alpha=4, empty_span="next_token"),
    ),
    "keep_gated": Method(
        _loss("keep", "keep_gated"), "spans", "rest", nll_on="spans",
        fixed=_fixed(gamma=0, nll=0), defaults=_fixed(alpha=4, empty_span="next_token"),
    ),
    "counterfactual_keep": Method(
        _loss("keep", "counterfactual_keep"), "none", "rest", ("counterfactual",), nll_on="spans", clean=ONE,
        held=("chosen", "corrupt_counterfactual"), fixed=_fixed(nll=0),
        defaults=_fixed(alpha=4, gamma=1, empty_span="next_token"),
    ),
    "symmetric": Method(
        _loss("symmetric"), "spans", "rest", OWN, clean=("chosen", "counterfactual"),
        held=("chosen", "corrupt_counterfactual"), needs=COUNTERFACTUAL,
        defaults=_fixed(alpha=1, gamma=1, empty_span="next_token"),
    ),
    "ic_vco_single": Method(
        _loss("symmetric", "ic_vco_single"), "spans", "none", OWN, clean=("chosen", "counterfactual"),
        fixed=_fixed(alpha=0, gamma=1), needs=COUNTERFACTUAL,
    ),
    "symmpo": Method(
        _loss("symmetric", "symmpo"), "answer", "none", OWN, clean=(*BOTH, "counterfactual"),
        fixed=_fixed(alpha=0, gamma=1), defaults=_fixed(lam=0.5), needs=COUNTERFACTUAL,
    ),
    "rpo": Method(dpo, "answer", "none", fixed=_fixed(gamma=0, alpha=0), defaults=_fixed(nll=1)),
    "ipo": Method(_loss("ipo"), "answer", "none", fixed=_fixed(gamma=0, alpha=0), variants=VARIANTS),
    "simpo": Method(
        _loss("simpo"), "answer", "none", reference_free=True, fixed=_fixed(alpha=0), defaults=_fixed(beta=2, gamma=1)
    ),
    "orpo": Method(
        _loss("orpo"), "answer", "none", nll_on="answer", reference_free=True, fixed=_fixed(gamma=0, alpha=0, nll=0)
    ),
    "dpop": Method(_loss("dpop"), "answer", "none", fixed=_fixed(gamma=0), defaults=_fixed(alpha=5)),
    "tdpo1": Method(_loss("tdpo", "tdpo1"), "answer", "answer", held=BOTH, fixed=_fixed(gamma=0, alpha=1)),
    "tdpo2": Method(
        _loss("tdpo", "tdpo2"), "answer", "answer", held=BOTH, fixed=_fixed(gamma=0), defaults=_fixed(alpha=0.5)
    ),
    "chip": Method(
        _loss("tdpo", "chip"), "answer", "answer", ONE, held=BOTH, span_weight=2, fixed=_fixed(gamma=1),
        defaults=_fixed(alpha=0.1), needs=CORRUPTED,
    ),
    "ddpo": Method(_loss("segments", "ddpo"), "answer", "none", span_weight=5, fixed=_fixed(gamma=0, alpha=0)),
    "copo": Method(
        _loss("mdpo", "copo"), "answer", "none", ONE, clean=ONE, fixed=_fixed(alpha=0, gamma=1), needs=CORRUPTED
    ),
    "mmedpo": Method(
        _loss("mmedpo"), "answer", "none", ("rejected",), clean=ONE, fixed=_fixed(alpha=0, gamma=1), needs=CORRUPTED
    ),
    "opa_dpo": Method(_loss("opa_dpo"), "answer", "none", ONE, defaults=_fixed(alpha=1, gamma=0.2)),
    "dft": Method(_loss("dft"), "none", "none", nll_on="answer", clean=ONE, fixed=_fixed(gamma=0, alpha=0, nll=0)),
    "asft": Method(
        _loss("dft", "asft"), "none", "answer", nll_on="answer", clean=ONE, fixed=_fixed(gamma=0, nll=0),
        variants=VARIANTS,
    ),
    "kto": Method(_loss("kto"), "answer", "none", baseline=True, fixed=_fixed(gamma=0, alpha=0)),
    "rc": Method(dpo, "answer", "none", rescale=True, fixed=_fixed(gamma=0, alpha=0)),
    "segment_dpo": Method(
        _loss("segments", "segment_dpo"), "answer", "none", by_kind=True, fixed=_fixed(gamma=0, alpha=0),
        defaults=_fixed(betas=_fixed(rest=0.02)),
    ),
    "vdpo": Method(
        _loss("vdpo"), "answer", "none", views=_views(free=BOTH), fixed=_fixed(alpha=0), defaults=_fixed(gamma=1.5),
        variants=("code",),
    ),
    "svco": Method(
        _loss("svco"), "answer", "none", OWN, clean=("chosen", "counterfactual"), views=_views(free=OWN),
        fixed=_fixed(alpha=0, gamma=1), needs=COUNTERFACTUAL,
    ),
    "ic_vco": Method(
        _loss("symmetric", "ic_vco"), "spans", "none", OWN, clean=("chosen", "counterfactual"),
        views=_views(first=OWN, second=OWN), fixed=_fixed(alpha=0, gamma=1), needs=COUNTERFACTUAL,
    ),
    "lpoi": Method(
        _loss("lpoi"), "answer", "none", ONE, clean=ONE, views=_views(**dict.fromkeys(LADDER, ONE)),
        fixed=_fixed(alpha=0, gamma=1), needs=(*CORRUPTED, "ladder_images"),
    ),
    "povid": Method(
        _loss("povid"), "answer", "answer", ONE, likeliest=True, fixed=_fixed(gamma=1), defaults=_fixed(alpha=0.5),
        needs=CORRUPTED,
    ),
}  # fmt: skip
"""Method by name. d1, d2, d3 are FiRe-MPO's data ablations: answers cut down to their spans; the ground truth as chosen
answer (the pairs must be built that way; they have no spans, so whole answers count); the same minimal-edit pairs with
their spans ignored. no_kl and mask_dpo are the same loss under the two names it is known by, no_rkl and rrpo too."""

PUBLISHED = {
    "firempo": "the printed KL has a minus, pseudocode and code add it; the flipped term asks that the rejected answer "
    "be true under the corrupted image, which it is for questions about presence alone",
    "rrpo": "the reference's log-probabilities are the logarithm of a softmax, minus infinity in low precision; its KL "
    "of the rejected answer is logged and not used",
    "mdpo": "the same text under two images: the reference's partition functions do not cancel",
    "copo": "as mdpo",
    "mmedpo": "the bounds of the clipped weights are not given, and a standardised weight below zero would turn the "
    "preference; the data hold raw weights, which the trainer takes as they are",
    "chip": "one sigmoid over a sum where the paper has four terms",
    "ipo": "the paper's sums are means a token in its authors' runs and in TRL",
    "tdpo1": "the shipped settings train this form, not the better one of the paper",
    "tdpo2": "off in the shipped settings",
    "vdpo": "the shipped script sets gamma 0 with image-free values as constants: no gradient is left",
    "povid": "the labels of the noised answer are made with the noised images",
    "opa_dpo": "the sigmoid is taken position by position, of answers whose positions an edit has shifted",
    "symmpo": "the script passes learning rate and weight by position, which is easily turned round",
    "asft": "the paper has KL(policy || reference), the code KL(reference || policy)",
    "svco": "each term compares one text under two inputs: partition functions do not cancel",
    "lpoi": "one text under several images: partition functions do not cancel",
}
"""What is wrong in published code or in a formula, by method; of the others nothing is known."""

__all__ = [
    "BOTH", "EXTRA", "HELD", "LADDER", "METHODS", "PUBLISHED", "VIEWS", "TokenMask", "Method", "SequenceLogps",
    "LossTerms", "LossCoefficients", "anchored",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("clinalign.objectives.logps"), name)
    raise AttributeError(f"module 'clinalign.objectives' has no attribute '{name}'")
