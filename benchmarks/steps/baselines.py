"""The two fixed baselines of the step benchmark, straight from the objective: eight full passes, nothing shared.

`published`: full-vocabulary logits for every position, log-softmax over all of them, token KL over all positions and
masked afterwards. `lean`: the same eight passes with logits for the answer only. Both end in one backward. Neither
checkpoints its activations; `published_checkpointed` is `published` with gradient checkpointing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

BETA, ALPHA, GAMMA, LAM = 0.1, 0.01, 0.1, 0.5


def eight_pass_loss(model: Any, batch: dict[str, Any], *, lean: bool) -> Tensor:
    """FiRe-MPO on a batch of equal lengths.

    `batch`: `chosen`, `rejected` token ids `[B, T]` with image tokens expanded, `chosen_mask`, `rejected_mask` `[B, T]`
    true on span tokens, `answer` (tokens of an answer), `clean`, `corrupt`: what the model's forward takes for the
    images. The model is a `PeftModel`.
    """
    keep = batch["answer"] + 1 if lean else 0

    def forward(ids: Tensor, images: dict[str, Tensor]) -> Tensor:
        return model(input_ids=ids, logits_to_keep=keep, use_cache=False, **images).logits.float()

    def span(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        rows = logits.shape[1]
        logps = torch.log_softmax(logits[:, :-1], -1).gather(-1, ids[:, -rows + 1 :, None])[..., 0]
        return (logps * mask[:, -rows + 1 :]).sum(1)

    def passes() -> tuple[dict[tuple[str, str], Tensor], Tensor]:
        """S of both answers under both images, and the logits of the chosen answer under the clean one."""
        sums, kept = {}, None
        for view in ("clean", "corrupt"):
            for side in ("chosen", "rejected"):
                logits = forward(batch[side], batch[view])
                sums[view, side] = span(logits, batch[side], batch[f"{side}_mask"])
                kept = logits if kept is None else kept
        assert kept is not None
        return sums, kept

    policy, policy_logits = passes()
    with torch.no_grad(), model.disable_adapter():
        reference, reference_logits = passes()
    ratio = {key: policy[key] - reference[key] for key in policy}
    rank = -logsigmoid(BETA * (ratio["clean", "chosen"] - ratio["clean", "rejected"]))
    visual = -logsigmoid(BETA * (ratio["corrupt", "rejected"] - ratio["corrupt", "chosen"]))
    kl = _kl(policy_logits, reference_logits, batch["chosen_mask"])
    return (rank + GAMMA * visual + ALPHA * kl).mean()


def _kl(policy: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """λ KL(ref || policy) + (1 - λ) KL(policy || ref), over every row, then masked: `[B]`."""
    p, r = torch.log_softmax(policy[:, :-1], -1), torch.log_softmax(reference[:, :-1], -1)
    both = LAM * (r.exp() * (r - p)).sum(-1) + (1 - LAM) * (p.exp() * (p - r)).sum(-1)
    return (both * mask[:, -both.shape[1] :]).sum(1)


def baseline(model: Any, batches: Sequence[Sequence[dict[str, Any]]], *, lean: bool) -> Callable[[int], Tensor]:
    """`step(i)`: the loss of batch `i`, a list of micro-batches of one size; gradients are left in the adapter."""

    def step(i: int) -> Tensor:
        micro = batches[i % len(batches)]
        losses = []
        for part in micro:
            loss = eight_pass_loss(model, part, lean=lean) / len(micro)
            loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    return step
