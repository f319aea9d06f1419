"""The objective written down plainly, eight full passes with full logits: what the fast paths must equal.

One pass is one answer after one image, alone in its batch. Nothing here is shared, cached, packed or tiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from clinalign.models import VLM
from clinalign.objectives import METHODS, LossCoefficients
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
    return torch.tensor(spans).float() if which == "spans" else torch.zeros(len(spans))


Passes = dict[str, dict[tuple[str, str], Tensor]]


def passes(vlm: VLM, sample: Sample, read: Any) -> Passes:
    """Logits [T, V] of policy and reference by (view, side): up to eight full passes."""
    views = {"clean": [read(key) for key in sample.images]}
    if sample.corrupted is not None:
        views["corrupt"] = [read(key) for key in sample.corrupted]
    out: Passes = {"policy": {}, "reference": {}}
    for view, images in views.items():
        for side, answer in sample.answers.items():
            out["policy"][view, side] = answer_logits(vlm, sample.prompt, answer, images)
            with vlm.adapter_off():
                out["reference"][view, side] = answer_logits(vlm, sample.prompt, answer, images)
    return out


def pair_loss(sample: Sample, known: Passes, name: str, weights: LossCoefficients, nll_on: str = "answer") -> Tensor:
    """Loss of one pair under a method, from the formulas."""
    method = METHODS[name]
    w = method.coefficients(weights)
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
