"""The step: the loss of some pairs from one pass of the scorer, whatever the method.

Image features come from a cache (encoder and projector are frozen), the reference's numbers from another; the head
touches only the rows whose next token counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from clinalign.models import VLM
from clinalign.models.attention import NOTHING, AttentionRequest
from clinalign.models.features import Features
from clinalign.models.tree import TokenScores, score_tokens
from clinalign.objectives import LossCoefficients, LossTerms, Method, SequenceLogps, TokenMask, anchored
from clinalign.training.batches import PairBatch, ScoringPlan, pack_pairs, plan_for
from clinalign.training.distill import Distill
from clinalign.training.encode import Sample
from clinalign.training.reference import Reference


@dataclass
class PackedSteps:
    """Everything a training loop needs of the pairs: `sizes` in tokens, and `loss` of some of them."""

    vlm: VLM
    samples: Sequence[Sample]
    method: Method
    coefficients: LossCoefficients
    features: Features
    reference: Reference | None = None
    nll_on: TokenMask = "answer"
    padding: str = "right"
    bf16: bool = False
    distill: Distill | None = None
    draw: int = 0
    sizes: Sequence[int] = field(init=False)
    plan: ScoringPlan = field(init=False)

    def __post_init__(self) -> None:
        self.coefficients = self.method.coefficients(self.coefficients)
        self.plan = plan_for(self.method, self.coefficients, self.nll_on)
        if self.distill is not None:
            self.attach(self.distill)
        self.sizes = [s.size * (2 if s.corrupted and self.plan.corrupt else 1) for s in self.samples]
        if self.reference is None:
            self.reference = Reference(self.vlm, self.features, bf16=self.bf16)

    def attach(self, distill: Distill) -> None:
        """Distillation beside the method. Where the answer's own rows are taught, rows hold answers to their end."""
        self.distill = distill
        self.plan = replace(self.plan, whole=distill.options.rows == "answer")

    def loss(self, indexes: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss over the pairs, and values per pair [len(indexes)], detached, NaN where one does not apply.

        Dropout masks belong to the pair and to `draw`: they do not depend on the other pairs.
        """
        if self.vlm.peft is not None:
            self.vlm.peft.masks.step(self.draw)
        chosen = [self.samples[i] for i in indexes]
        batch = pack_pairs(self.vlm, chosen, self.plan, padding=self.padding).to(self.vlm.device)
        captured = self.distill.capture(chosen, batch) if self.distill else None
        logps = sequence_logps(
            self.vlm,
            chosen,
            batch,
            self.plan,
            self.features,
            self.reference,
            bf16=self.bf16,
            request=captured.request if captured else NOTHING,
        )
        terms = anchored(self.method.loss(logps, self.coefficients), logps, self.coefficients)
        if self.distill:
            terms.parts |= self.distill.terms(captured, len(chosen))
            terms.loss = terms.loss + sum(terms.parts[name].nan_to_num(0.0) for name in ("vis", "att"))
        return terms.loss.mean(), metrics(terms, logps, self.coefficients, self.plan)


def sequence_logps(
    vlm: VLM,
    samples: Sequence[Sample],
    batch: PairBatch,
    plan: ScoringPlan,
    features: Features,
    reference: Reference | None,
    *,
    bf16: bool = False,
    request: AttentionRequest = NOTHING,
) -> SequenceLogps:
    """The scored tokens' numbers summed by pair [P]."""
    known = reference.get(samples, batch, plan) if reference is not None and plan.needs_reference else None
    states = known.states if known is not None else None
    scores = score_tokens(vlm, batch.trees, features, states, request=request, bf16=bf16)
    ref = known.logps if known is not None else torch.zeros_like(scores.logps)
    return sum_tokens(samples, batch, plan, scores, ref)


def sum_tokens(
    samples: Sequence[Sample], batch: PairBatch, plan: ScoringPlan, scores: TokenScores, ref: Tensor
) -> SequenceLogps:
    """Token values [R] (KLs [K]) and the reference's [R] summed by pair, side and image."""
    count, logps = len(samples), scores.logps

    def total(values: Tensor, pairs: Tensor) -> Tensor:
        return values.new_zeros(count).index_add(0, pairs, values)

    sums = SequenceLogps.zeros(count, device=logps.device)
    for name, values in (("", logps), ("ref_", ref)):
        for side, weight in zip(("chosen", "rejected"), batch.preference, strict=True):
            for prefix, view in (("", ~batch.corrupt), ("corrupt_", batch.corrupt)):
                setattr(sums, f"{prefix}{name}{side}", total(values * weight * view, batch.pair))
    has = [float(bool(plan.corrupt) and sample.corrupted is not None) for sample in samples]
    sums.has_corrupt = torch.tensor(has, device=logps.device)
    sums.kl_forward = total(scores.kl_forward, batch.pair[: len(scores.kl_forward)])
    sums.kl_reverse = total(scores.kl_reverse, batch.pair[: len(scores.kl_reverse)])
    if plan.nll != "none":
        sums.nll = -total(logps * batch.nll, batch.pair) / total(batch.nll, batch.pair).clamp(min=1)
    return sums


def metrics(
    terms: LossTerms, logps: SequenceLogps, coefficients: LossCoefficients, plan: ScoringPlan
) -> dict[str, Tensor]:
    """TRL's names for the rewards, the terms at the weights they enter with, and the KL each way, per pair [P]."""
    nan = torch.full_like(terms.loss, torch.nan)
    chosen = coefficients.beta * (logps.chosen - logps.ref_chosen)
    rejected = coefficients.beta * (logps.rejected - logps.ref_rejected)
    ranked = terms.margin is not None
    out = {
        "rewards/chosen": chosen if ranked else nan,
        "rewards/rejected": rejected if ranked else nan,
        "rewards/margins": chosen - rejected if ranked else nan,
        "rewards/accuracies": (chosen > rejected).float() if ranked else nan,
        "logps/chosen": logps.chosen if ranked else nan,
        "logps/rejected": logps.rejected if ranked else nan,
    }
    out |= {f"loss/{name}": value for name, value in terms.parts.items()}
    if plan.corrupt and terms.visual_margin is not None:
        seen = logps.has_corrupt > 0
        out["visual/margins"] = torch.where(seen, terms.visual_margin, nan)
        out["visual/accuracies"] = torch.where(seen, (terms.visual_margin > 0).float(), nan)
    if plan.kl != "none":
        out |= {"kl/forward": logps.kl_forward, "kl/reverse": logps.kl_reverse}
    return {name: value.detach() for name, value in out.items()}
