"""The two fixed baselines of the step benchmark, straight from the objective: eight full passes, nothing shared.

`published`: full-vocabulary logits for every position, log-softmax over all of them, token KL over all positions and
masked afterwards. `lean`: the same eight passes with logits for the answer only. Both end in one backward. No gradient
checkpointing in either (with it the published step is slower still and smaller; `published_checkpointed` times it).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

BETA, ALPHA, GAMMA, LAM = 0.1, 0.01, 0.1, 0.5


def eight_pass_loss(model: Any, batch: dict[str, Tensor], *, lean: bool) -> Tensor:
    """FiRe-MPO on a batch of equal lengths.

    `batch`: `chosen`, `rejected` token ids `[B, T]` with image tokens expanded, `chosen_mask`, `rejected_mask` `[B, T]`
    true on span tokens, `answer` (tokens of the answer), `clean`, `corrupt` pixel values. The model is a `PeftModel`.
    """
    keep = int(batch["answer"]) + 1 if lean else 0

    def forward(ids: Tensor, pixels: Tensor) -> Tensor:
        return model(input_ids=ids, pixel_values=pixels, logits_to_keep=keep, use_cache=False).logits.float()

    def span(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        rows = logits.shape[1]
        logps = torch.log_softmax(logits[:, :-1], -1).gather(-1, ids[:, -rows + 1 :, None])[..., 0]
        return (logps * mask[:, -rows + 1 :]).sum(1)

    sides = {"chosen": (batch["chosen"], batch["chosen_mask"]), "rejected": (batch["rejected"], batch["rejected_mask"])}
    sums: dict[tuple[str, str], Tensor] = {}
    clean_logits: Tensor | None = None
    for view in ("clean", "corrupt"):
        for side, (ids, mask) in sides.items():
            logits = forward(ids, batch[view])
            sums[view, side] = span(logits, ids, mask)
            if (view, side) == ("clean", "chosen"):
                clean_logits = logits
    reference: dict[tuple[str, str], Tensor] = {}
    reference_logits: Tensor | None = None
    with torch.no_grad(), model.disable_adapter():
        for view in ("clean", "corrupt"):
            for side, (ids, mask) in sides.items():
                logits = forward(ids, batch[view])
                reference[view, side] = span(logits, ids, mask)
                if (view, side) == ("clean", "chosen"):
                    reference_logits = logits
    ratio = {key: sums[key] - reference[key] for key in sums}
    rank = -logsigmoid(BETA * (ratio["clean", "chosen"] - ratio["clean", "rejected"]))
    visual = -logsigmoid(BETA * (ratio["corrupt", "rejected"] - ratio["corrupt", "chosen"]))
    assert clean_logits is not None and reference_logits is not None
    kl = _kl(clean_logits, reference_logits, batch["chosen_mask"])
    return (rank + GAMMA * visual + ALPHA * kl).mean()


def _kl(policy: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """λ KL(ref || policy) + (1 - λ) KL(policy || ref), over every row, then masked: `[B]`."""
    p, r = torch.log_softmax(policy[:, :-1], -1), torch.log_softmax(reference[:, :-1], -1)
    both = LAM * (r.exp() * (r - p)).sum(-1) + (1 - LAM) * (p.exp() * (p - r)).sum(-1)
    return (both * mask[:, -both.shape[1] :]).sum(1)


def baseline(model: Any, batches: list[dict[str, Tensor]], *, lean: bool) -> Callable[[int], Tensor]:
    """`step(i)`: the loss of batch `i`, gradients left in the adapter."""

    def step(i: int) -> Tensor:
        loss = eight_pass_loss(model, batches[i % len(batches)], lean=lean)
        loss.backward()
        return loss.detach()

    return step
