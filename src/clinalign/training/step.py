"""The packed step: the loss of some pairs from one forward over packed rows, whatever the method.

Image features come from a cache (encoder and projector are frozen), the reference's numbers from another; the head
touches only the rows whose next token counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from clinalign.models import VLM
from clinalign.models.features import Features
from clinalign.models.head import score_rows
from clinalign.objectives import Counted, Method, Sums, Terms, Weights, anchored
from clinalign.training.batches import Batch, Plan, pack, packed_rows, plan_for
from clinalign.training.distill import Distill
from clinalign.training.encode import Sample
from clinalign.training.reference import Reference


@dataclass
class PackedSteps:
    """Everything a training loop needs of the pairs: `sizes` in tokens, and `loss` of some of them."""

    vlm: VLM
    samples: Sequence[Sample]
    method: Method
    weights: Weights
    features: Features
    reference: Reference | None = None
    nll_on: Counted = "answer"
    padding: str = "right"
    bf16: bool = False
    distill: Distill | None = None
    draw: int = 0
    sizes: Sequence[int] = field(init=False)
    plan: Plan = field(init=False)

    def __post_init__(self) -> None:
        self.weights = self.method.weights(self.weights)
        self.plan = plan_for(self.method, self.weights, self.nll_on)
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
        batch = pack(self.vlm, chosen, self.plan, padding=self.padding).to(self.vlm.device)
        watch = self.distill.watch(chosen, batch) if self.distill else None
        seen = watch.arguments if watch else {}
        sums = packed_sums(
            self.vlm, chosen, batch, self.plan, self.features, self.reference, bf16=self.bf16, watch=seen
        )
        terms = anchored(self.method.loss(sums, self.weights), sums, self.weights)
        if self.distill:
            terms.parts |= self.distill.terms(watch, len(chosen))
            terms.loss = terms.loss + sum(terms.parts[name].nan_to_num(0.0) for name in ("vis", "att"))
        return terms.loss.mean(), metrics(terms, sums, self.weights, self.plan)


def packed_sums(
    vlm: VLM,
    samples: Sequence[Sample],
    batch: Batch,
    plan: Plan,
    features: Features,
    reference: Reference | None,
    *,
    bf16: bool = False,
    watch: Mapping[str, Any] | None = None,
) -> Sums:
    """One forward over the packed rows, one sweep of the head over the scored tokens, summed by pair [P]."""
    rows = packed_rows(vlm, batch, features, bf16=bf16, watch=watch)
    known = reference.get(samples, batch, plan) if reference is not None and plan.needs_reference else None
    hidden = known.hidden if known is not None else None
    logps, forward, reverse = score_rows(rows, vlm.head.weight, batch.target, hidden, vlm.reference_head)
    ref = known.logps if known is not None else torch.zeros_like(logps)
    return sum_tokens(samples, batch, plan, logps, ref, forward, reverse)


def sum_tokens(
    samples: Sequence[Sample], batch: Batch, plan: Plan, logps: Tensor, ref: Tensor, forward: Tensor, reverse: Tensor
) -> Sums:
    """Token values [R] (KLs [K]) summed by pair, side and image."""
    count = len(samples)

    def total(values: Tensor, pairs: Tensor) -> Tensor:
        return values.new_zeros(count).index_add(0, pairs, values)

    sums = Sums.zeros(count, device=logps.device)
    for name, values in (("", logps), ("ref_", ref)):
        for side, weight in zip(("chosen", "rejected"), batch.rank, strict=True):
            for prefix, view in (("", ~batch.corrupt), ("corrupt_", batch.corrupt)):
                setattr(sums, f"{prefix}{name}{side}", total(values * weight * view, batch.pair))
    has = [float(bool(plan.corrupt) and sample.corrupted is not None) for sample in samples]
    sums.has_corrupt = torch.tensor(has, device=logps.device)
    sums.kl_forward = total(forward, batch.pair[: len(forward)])
    sums.kl_reverse = total(reverse, batch.pair[: len(reverse)])
    if plan.nll != "none":
        sums.nll = -total(logps * batch.nll, batch.pair) / total(batch.nll, batch.pair).clamp(min=1)
    return sums


def metrics(terms: Terms, sums: Sums, weights: Weights, plan: Plan) -> dict[str, Tensor]:
    """TRL's names for the rewards, the terms at the weights they enter with, and the KL each way, per pair [P]."""
    nan = torch.full_like(terms.loss, torch.nan)
    chosen = weights.beta * (sums.chosen - sums.ref_chosen)
    rejected = weights.beta * (sums.rejected - sums.ref_rejected)
    ranked = terms.margin is not None
    out = {
        "rewards/chosen": chosen if ranked else nan,
        "rewards/rejected": rejected if ranked else nan,
        "rewards/margins": chosen - rejected if ranked else nan,
        "rewards/accuracies": (chosen > rejected).float() if ranked else nan,
        "logps/chosen": sums.chosen if ranked else nan,
        "logps/rejected": sums.rejected if ranked else nan,
    }
    out |= {f"loss/{name}": value for name, value in terms.parts.items()}
    if plan.corrupt and terms.visual_margin is not None:
        seen = sums.has_corrupt > 0
        out["visual/margins"] = torch.where(seen, terms.visual_margin, nan)
        out["visual/accuracies"] = torch.where(seen, (terms.visual_margin > 0).float(), nan)
    if plan.kl != "none":
        out |= {"kl/forward": sums.kl_forward, "kl/reverse": sums.kl_reverse}
    return {name: value.detach() for name, value in out.items()}
