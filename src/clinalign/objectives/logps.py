"""What every objective is computed from: for each pair, sums over the tokens that count.

S(v, y) is the sum of log pi(y_t | v, q, y_<t) over the counted tokens of an answer y: its spans, or all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class ViewLogps:
    """Sums under one more view, by answer: `logps` and the reference's `ref_logps` [P]; `has` [P]: 1 for the pairs that
    can be seen so."""

    has: Tensor
    logps: dict[str, Tensor]
    ref_logps: dict[str, Tensor]

    def ratio(self, side: str) -> Tensor:
        """r = S - S_ref of an answer, [P]."""
        return self.logps[side] - self.ref_logps[side]


@dataclass
class SequenceLogps:
    """Tensors [P], one value a pair, fp32. Fields that a method does not ask for stay zero.

    chosen, rejected and their reference values: S under the image. counterfactual: S of the answer that is right under
    the corrupted image. corrupt_*: the same under the corrupted image, for the pairs with `has_corrupt` 1.
    chosen_tokens, rejected_tokens: how many tokens the sums under the image have. kl_forward = KL(reference || policy)
    and kl_reverse = KL(policy || reference), over the counted tokens of the chosen answer under the image. nll: mean
    negative log-likelihood a token over the `nll_tokens` counted; dft: the same, each token weighted by its own
    probability as a constant. rejected_* of the rejected answer, corrupt_kl_* and corrupt_nll of the counterfactual
    answer under the corrupted image. weight: of the pair, given by the data. likeliest: S of the tokens that are the
    likeliest under the corrupted image, each in its place in the chosen answer, under the image. baseline: the mean log
    ratio of answers that belong to other prompts, a constant of the batch. views: sums under further views, by name.
    """

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    corrupt_chosen: Tensor
    corrupt_rejected: Tensor
    corrupt_ref_chosen: Tensor
    corrupt_ref_rejected: Tensor
    has_corrupt: Tensor
    kl_forward: Tensor
    kl_reverse: Tensor
    nll: Tensor
    counterfactual: Tensor
    ref_counterfactual: Tensor
    corrupt_counterfactual: Tensor
    corrupt_ref_counterfactual: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    nll_tokens: Tensor
    dft: Tensor
    rejected_kl_forward: Tensor
    rejected_kl_reverse: Tensor
    rejected_nll: Tensor
    corrupt_kl_forward: Tensor
    corrupt_kl_reverse: Tensor
    corrupt_nll: Tensor
    weight: Tensor
    likeliest: Tensor
    ref_likeliest: Tensor
    baseline: Tensor
    views: dict[str, ViewLogps] = field(default_factory=dict)

    @classmethod
    def zeros(cls, pairs: int, device: torch.device | str = "cpu") -> SequenceLogps:
        """All zero, to be filled in."""
        names = (name for name in cls.__dataclass_fields__ if name != "views")
        values: dict[str, Any] = {name: torch.zeros(pairs, device=device) for name in names}
        return cls(**values)


@dataclass(frozen=True)
class LossCoefficients:
    """beta: inverse temperature; alpha: KL; gamma: visual term; lam: share of KL(reference || policy); nll: anchor;
    betas: temperatures by kind of span, and that of the "rest".

    A method without such a term may give a letter to a constant of its own; it says so.
    """

    beta: float = 0.1
    alpha: float = 0.01
    gamma: float = 0.1
    lam: float = 0.5
    nll: float = 0.0
    betas: Mapping[str, float] = field(default_factory=dict)


@dataclass
class LossTerms:
    """A loss [P] and its parts [P] at the weights they enter with; margins [P] where the method has them."""

    loss: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    margin: Tensor | None = None
    visual_margin: Tensor | None = None


def anchored(terms: LossTerms, logps: SequenceLogps, coefficients: LossCoefficients) -> LossTerms:
    """Adds the NLL anchor on the chosen answer, where it has a weight."""
    if coefficients.nll:
        terms.parts["nll"] = coefficients.nll * logps.nll
        terms.loss = terms.loss + terms.parts["nll"]
    return terms
