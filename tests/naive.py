"""The objective written down plainly, eight full passes with full logits: what the fast paths must equal.

One pass is one answer after one image, alone in its batch. Nothing here is shared, cached, packed or tiled.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from clinalign.models import VLM
from clinalign.objectives import METHODS, LossCoefficients, Method, SequenceLogps, anchored
from clinalign.objectives.logps import ViewLogps
from clinalign.training.encode import Sample

NOT_OF_THE_MODEL = {"num_crops", "num_patches", "rows", "cols"}


def inputs(vlm: VLM, prompt: list[int], answer: list[int], images: list[np.ndarray]) -> dict[str, Any]:
    """Keyword arguments of the Hugging Face model's own forward for one sequence."""
    ids = torch.tensor([prompt + answer])
    out: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if images:
        pixels = vlm.processor.image_processor(images=list(images), return_tensors="pt")
        out |= {name: value.to(vlm.device) for name, value in pixels.items() if name not in NOT_OF_THE_MODEL}
    if vlm.family.axes == 3:
        out["mm_token_type_ids"] = (ids == vlm.image_token_id).int()
    if vlm.family.name == "gemma3":
        out["token_type_ids"] = (ids == vlm.image_token_id).int()
    return {name: value.to(vlm.device) for name, value in out.items()}


def answer_logits(vlm: VLM, prompt: list[int], answer: list[int], images: list[np.ndarray]) -> Tensor:
    """Logits [T, V] of an answer's tokens, from one ordinary forward of the whole model over the whole sequence."""
    logits = vlm.model(**inputs(vlm, prompt, answer, images)).logits[0].float()
    return logits[len(prompt) - 1 : -1]


def token_logps(logits: Tensor, answer: list[int]) -> Tensor:
    """log pi(y_t) [T]."""
    return logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)]


def kl(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """KL(p || q) [T] over the vocabulary."""
    p, q = p_logits.log_softmax(-1), q_logits.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def _mask(which: str, spans: list[bool]) -> Tensor:
    if which == "answer":
        return torch.ones(len(spans))
    if which == "rest":
        return 1 - torch.tensor(spans).float()
    return torch.tensor(spans).float() if which == "spans" else torch.zeros(len(spans))


class LazyLogits(dict[tuple[str, str], Any]):
    """Logits by (view, side); those that nobody asks for are never computed. Filled with functions."""

    def __getitem__(self, key: tuple[str, str]) -> Tensor:
        value = super().__getitem__(key)
        if callable(value):
            self[key] = value = value()
        found: Tensor = value
        return found


Passes = dict[str, LazyLogits]


def views_of(sample: Sample) -> dict[str, tuple[list[int], list[str]]]:
    """Prompt and image keys of every view that a sample has."""
    views = {"clean": (sample.prompt, sample.images)}
    if sample.corrupted is not None:
        views["corrupt"] = sample.prompt, sample.corrupted
        for view in ("first", "second"):
            if view in sample.prompts:
                views[view] = sample.prompts[view][1], [*sample.images, *sample.corrupted]
    if "free" in sample.prompts:
        views["free"] = sample.prompts["free"][1], []
    return views | {f"level{n}": (sample.prompt, images) for n, images in enumerate(sample.ladder, 1)}


def passes(vlm: VLM, sample: Sample, read: Any) -> Passes:
    """Logits [T, V] of policy and reference by (view, side), one full pass each, made when they are asked for."""
    out: Passes = {"policy": LazyLogits(), "reference": LazyLogits()}

    def reference(prompt: list[int], answer: list[int], images: list[np.ndarray]) -> Tensor:
        with vlm.adapter_off():
            return answer_logits(vlm, prompt, answer, images)

    for view, (prompt, keys) in views_of(sample).items():
        images = [read(key) for key in keys]
        sides = [s for s in sample.answers if s != "mismatched" and (s == "chosen" or not view.startswith("level"))]
        for side in sides:
            if (view, side) in (("first", "rejected"), ("second", "rejected")):
                continue
            given = prompt, sample.answers[side], images
            out["policy"][view, side] = partial(answer_logits, vlm, *given)
            out["reference"][view, side] = partial(reference, *given)
    return out


WRITTEN_OUT = {
    "firempo", "no_visual", "no_fkl", "no_rkl", "no_kl", "v1", "v2", "d1", "d2", "d3", "rrpo", "rrpo_authors",
    "mask_dpo", "mdpo", "dpo", "sft",
}  # fmt: skip


def span_weights(sample: Sample, method: Method, w: LossCoefficients) -> Any:
    """What each token of a side weighs in the sums, [T]."""
    inside, outside = method.span_weight, 1.0
    if method.by_kind:
        inside, outside = (w.betas.get(kind, w.beta) / w.beta for kind in (sample.kind, "rest"))
    return lambda side: torch.where(torch.tensor(sample.spans[side]), inside, outside)


def logps(sample: Sample, known: Passes, method: Method, w: LossCoefficients, nll_on: str = "answer") -> SequenceLogps:
    """What a loss is computed from, of one pair, from the logits of its passes and masks over whole answers."""
    policy, reference = known["policy"], known["reference"]
    out = SequenceLogps.zeros(1)
    corrupt = method.corrupt if w.gamma else ()
    seen = {"clean": method.clean, "corrupt": corrupt if all(("corrupt", side) in policy for side in corrupt) else ()}
    out.has_corrupt[0] = float(bool(seen["corrupt"]))
    weigh = span_weights(sample, method, w)
    for view, sides in method.views.items():
        has = all((view, side) in policy for side in sides)
        sums: list[dict[str, Tensor]] = [{}, {}]
        for side in sides:
            counted = _mask(method.preference_on, sample.spans[side]) * weigh(side)
            for into, values in zip(sums, (policy, reference), strict=True):
                logits = values[view, side] if has else None
                zero = torch.zeros(1)
                into[side] = (
                    zero if logits is None else (counted * token_logps(logits, sample.answers[side])).sum()[None]
                )
        out.views[view] = ViewLogps(torch.tensor([float(has)]), *sums)
    if method.likeliest and w.alpha:
        likeliest = policy["corrupt", "chosen"].detach().argmax(-1).tolist()
        out.likeliest = token_logps(policy["clean", "chosen"], likeliest).sum()[None]
        out.ref_likeliest = token_logps(reference["clean", "chosen"], likeliest).sum()[None]
    out.weight[0] = sample.weight
    nll_mask = method.nll_on if method.nll_on != "none" else nll_on if w.nll else "none"
    for view, prefix in (("clean", ""), ("corrupt", "corrupt_")):
        for side in seen[view]:
            answer, spans = sample.answers[side], sample.spans[side]
            p, q = policy[view, side], reference[view, side]
            mine, theirs = token_logps(p, answer), token_logps(q, answer)
            counted = _mask(method.preference_on, spans) * weigh(side)
            setattr(out, f"{prefix}{side}", (counted * mine).sum()[None])
            if not method.reference_free:
                setattr(out, f"{prefix}ref_{side}", (counted * theirs).sum()[None])
            if f"{side}_tokens" in vars(out) and not prefix:
                setattr(out, f"{side}_tokens", counted.sum()[None])
            if prefix + side not in method.held:
                continue
            held = {"chosen": "", "rejected": "rejected_", "corrupt_counterfactual": "corrupt_"}[prefix + side]
            kl_mask, nll = _mask(method.kl_on if w.alpha else "none", spans), _mask(nll_mask, spans)
            setattr(out, f"{held}kl_forward", (kl_mask * kl(q, p)).sum()[None])
            setattr(out, f"{held}kl_reverse", (kl_mask * kl(p, q)).sum()[None])
            setattr(out, f"{held}nll", -(nll * mine).sum()[None] / nll.sum().clamp(min=1))
            if not held:
                out.nll_tokens = nll.sum()[None]
                out.dft = -(nll * mine.detach().exp() * mine).sum()[None] / nll.sum().clamp(min=1)
    return out


def pair_loss(sample: Sample, known: Passes, name: str, weights: LossCoefficients, nll_on: str = "answer") -> Tensor:
    """Loss of one pair under a method: of the methods around FiRe-MPO from the formulas, of others from plain sums."""
    method = METHODS[name]
    w = method.coefficients(weights)
    if name not in WRITTEN_OUT:
        sums = logps(sample, known, method, w, nll_on)
        return anchored(method.loss(sums, w), sums, w).loss[0]
    policy, reference = known["policy"], known["reference"]

    def reward(view: str, side: str) -> Tensor:
        answer, mask = sample.answers[side], _mask(method.preference_on, sample.spans[side])
        gap = token_logps(policy[view, side], answer) - token_logps(reference[view, side], answer)
        return w.beta * (mask * gap).sum()

    chosen_logps = token_logps(policy["clean", "chosen"], sample.answers["chosen"])
    if name == "sft":
        return -chosen_logps.mean()
    loss = -logsigmoid(reward("clean", "chosen") - reward("clean", "rejected"))
    if ("corrupt", "chosen") in policy and w.gamma and method.corrupt:
        if name in ("v1", "mdpo"):
            gap = reward("clean", "chosen") - reward("corrupt", "chosen")
        elif name == "v2":
            gap = reward("clean", "chosen") - reward("corrupt", "rejected")
        else:
            gap = reward("corrupt", "rejected") - reward("corrupt", "chosen")
        loss = loss - w.gamma * logsigmoid(gap)
    if name == "mdpo":
        loss = loss - logsigmoid(reward("clean", "chosen"))
    if w.alpha and method.kl_on != "none":
        mask = _mask(method.kl_on, sample.spans["chosen"])
        p, q = policy["clean", "chosen"], reference["clean", "chosen"]
        loss = loss + w.alpha * (mask * (w.lam * kl(q, p) + (1 - w.lam) * kl(p, q))).sum()
    if w.nll:
        mask = _mask(nll_on, sample.spans["chosen"])
        loss = loss - w.nll * (mask * chosen_logps).sum() / mask.sum().clamp(min=1)
    return loss


def loss(
    vlm: VLM, samples: list[Sample], read: Any, name: str, weights: LossCoefficients, nll_on: str = "answer"
) -> Tensor:
    """Mean over the pairs."""
    return torch.stack([pair_loss(s, passes(vlm, s, read), name, weights, nll_on) for s in samples]).mean()


def token_kl(policy_logits: Tensor, reference_logits: Tensor) -> tuple[Tensor, Tensor]:
    """KL(reference || policy) and KL(policy || reference) of rows of logits [R, V], each [R], in fp32."""
    p, q = policy_logits.float().log_softmax(-1), reference_logits.float().log_softmax(-1)
    return (q.exp() * (q - p)).sum(-1), (p.exp() * (p - q)).sum(-1)
