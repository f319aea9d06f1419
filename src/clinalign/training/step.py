"""The step: the loss of some pairs from one pass of the scorer, whatever the method.

Image features come from a cache (encoder and projector are frozen), the reference's numbers from another; the head
touches only the rows whose next token counts.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from clinalign.models import VLM
from clinalign.models.attention import NOTHING, AttentionRequest
from clinalign.models.features import Features
from clinalign.models.head import ROWS, row_logits
from clinalign.models.tree import TokenScores, score_states, score_tokens
from clinalign.objectives import HELD, LossCoefficients, LossTerms, Method, SequenceLogps, TokenMask, anchored
from clinalign.objectives.logps import ViewLogps
from clinalign.training.batches import NAMES, PairBatch, ScoringPlan, held_of, pack_pairs, plan_for
from clinalign.training.constants import StepConstants
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
    constants: StepConstants | None = None
    sizes: Sequence[int] = field(init=False)
    plan: ScoringPlan = field(init=False)

    def __post_init__(self) -> None:
        self.coefficients = self.method.coefficients(self.coefficients)
        self.plan = plan_for(self.method, self.coefficients, self.nll_on)
        if self.constants is None and (self.method.baseline or self.method.rescale):
            self.constants = StepConstants()
        if self.constants is not None:
            self.constants.rescales = self.method.rescale
        if self.constants is not None and self.method.baseline:
            self.constants.mismatched = self.mismatched
        if self.distill is not None:
            self.attach(self.distill)
        self.sizes = array("q", (self.plan.size(sample) for sample in self.samples))
        if self.reference is None:
            self.reference = Reference(self.vlm, self.features, bf16=self.bf16)

    def attach(self, distill: Distill) -> None:
        """Distillation beside the method. Where the answer's own rows are distilled, rows hold answers to their end."""
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
        given = logps
        if self.constants is not None:
            logps.baseline = logps.baseline + self.constants.z0
            given = self.constants.rescale(logps) if self.method.rescale else logps
        terms = anchored(self.method.loss(given, self.coefficients), logps, self.coefficients)
        if self.constants is not None and self.method.rescale:
            self.constants.measure(logps, given, terms.loss)
        if self.distill:
            terms.parts |= self.distill.terms(captured, len(chosen))
            terms.loss = terms.loss + sum(terms.parts[name].nan_to_num(0.0) for name in ("vis", "att"))
        return terms.loss.mean(), metrics(terms, logps, self.coefficients, self.plan)

    def unreached(self, indexes: Sequence[int]) -> Collection[str]:
        """Parameters that the loss of these pairs does not depend on: parts that images go through, of none."""
        return () if self.plan.shown(self.samples[i] for i in indexes) else self.vlm.image_base

    @property
    def reference_plan(self) -> ScoringPlan:
        """All that the reference is asked for."""
        return replace(self.plan, views=self.plan.views + OTHERS) if self.method.baseline else self.plan

    @torch.no_grad()
    def mismatched(self, indexes: Sequence[int], size: int) -> Tensor:
        """Log ratios [N] of the answers to other prompts of some pairs, `size` pairs at once; none where the method
        does not ask for them."""
        plan = replace(self.plan, clean=(), corrupt=(), views=OTHERS)
        found = [torch.zeros(0, device=self.vlm.device)]
        some = [self.samples[i] for i in indexes if "mismatched" in self.samples[i].answers]
        with self.vlm.evaluating():
            for start in range(0, len(some) if self.method.baseline else 0, size):
                part = some[start : start + size]
                batch = pack_pairs(self.vlm, part, plan, padding=self.padding).to(self.vlm.device)
                logps = sequence_logps(self.vlm, part, batch, plan, self.features, self.reference, bf16=self.bf16)
                found.append(logps.views["others"].ratio("mismatched"))
        return torch.cat(found)


OTHERS = (("others", ("mismatched",)),)
"""What is scored for a baseline from answers to other prompts."""


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
    scores = score_tokens(vlm, batch.trees, features, None if plan.likeliest else states, request=request, bf16=bf16)
    ref = known.logps if known is not None else torch.zeros_like(scores.logps)
    sums = sum_tokens(samples, batch, plan, scores, ref)
    if plan.likeliest and states is not None:
        sums.likeliest, sums.ref_likeliest = likeliest(vlm, batch, scores.states, states, len(samples))
    return sums


def likeliest(vlm: VLM, batch: PairBatch, states: Tensor, ref_states: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    """Sums [P] of log-probabilities under the image, the policy's and the reference's, of the tokens that the policy
    finds likeliest under the corrupted image, each behind the chosen answer's own.

    `states` [R, D] of all tokens; `ref_states` [K, D] of the KL's, which are those of the chosen answer.
    """
    keys = zip(batch.view.tolist(), batch.pair.tolist(), batch.index[0].tolist(), strict=True)
    row_of = {key: row for row, key in enumerate(keys) if key[2] >= 0}
    clean, corrupt = NAMES.index("clean"), NAMES.index("corrupt")
    both = [(row, row_of[corrupt, *key[1:]]) for key, row in row_of.items() if key[0] == clean]
    here, noised = torch.tensor(both, dtype=torch.long, device=states.device).reshape(-1, 2).t()
    head, readout = vlm.head.weight, vlm.readout
    with torch.no_grad():
        tokens = torch.cat([row_logits(some, head, readout).argmax(-1) for some in states[noised].split(ROWS)])
    mine = score_states(vlm, states[here], tokens)
    theirs = score_states(vlm, ref_states[here], tokens, reference=True)
    zero, owners = mine.new_zeros(pairs), batch.pair[here]
    return zero.index_add(0, owners, mine), zero.index_add(0, owners, theirs.detach())


def sum_tokens(
    samples: Sequence[Sample], batch: PairBatch, plan: ScoringPlan, scores: TokenScores, ref: Tensor
) -> SequenceLogps:
    """Token values [R] (KLs [K]) and the reference's [R] summed by pair, side and image."""
    count, logps = len(samples), scores.logps
    clean, corrupt = batch.under("clean"), batch.under("corrupt")

    def total(values: Tensor, pairs: Tensor) -> Tensor:
        return values.new_zeros(count).index_add(0, pairs, values)

    sums = SequenceLogps.zeros(count, device=logps.device)
    for side, weight in zip(plan.sides, batch.preference, strict=True):
        for name, values in (("", logps), ("ref_", ref)):
            for prefix, view in (("", clean), ("corrupt_", corrupt)):
                if hasattr(sums, f"{prefix}{name}{side}"):
                    setattr(sums, f"{prefix}{name}{side}", total(values * weight * view, batch.pair))
    sums.chosen_tokens, sums.rejected_tokens = (total(w * clean, batch.pair) for w in batch.preference[:2])
    for answer in plan.held:
        name, side = held_of(answer)
        if side in plan.seen.get(name, ()):
            kl, nll = (w[plan.sides.index(side)] * batch.under(name) for w in (batch.kl, batch.nll))
            _hold(sums, HELD[answer], batch, scores, kl, nll, total)
    for name, sides in plan.views:
        weights = {side: batch.preference[plan.sides.index(side)] * batch.under(name) for side in sides}
        mine, theirs = ({side: total(v * w, batch.pair) for side, w in weights.items()} for v in (logps, ref))
        sums.views[name] = ViewLogps(_has(samples, plan, name, logps.device), mine, theirs)
    sums.has_corrupt = _has(samples, plan, "corrupt", logps.device)
    sums.weight = torch.tensor([sample.weight for sample in samples], device=logps.device)
    return sums


def _has(samples: Sequence[Sample], plan: ScoringPlan, view: str, device: torch.device) -> Tensor:
    return torch.tensor([float(plan.images(sample, view) is not None) for sample in samples], device=device)


def _hold(
    sums: SequenceLogps,
    prefix: str,
    batch: PairBatch,
    scores: TokenScores,
    kl: Tensor,
    nll: Tensor,
    total: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """KLs and NLL of one answer under one image, at the tokens that weigh in them."""
    known = len(scores.kl_forward)
    for name in ("kl_forward", "kl_reverse"):
        setattr(sums, prefix + name, total(getattr(scores, name) * kl[:known], batch.pair[:known]))
    tokens = total(nll, batch.pair)
    setattr(sums, f"{prefix}nll", -total(scores.logps * nll, batch.pair) / tokens.clamp(min=1))
    if not prefix:
        sums.nll_tokens = tokens
        likely = scores.logps.detach().exp()
        sums.dft = -total(likely * scores.logps * nll, batch.pair) / tokens.clamp(min=1)


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
