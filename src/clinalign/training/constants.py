"""Numbers that the loss of a step takes as constants: KTO's baseline and RC's factor.

Both are of the whole batch over all processes, so a loss that has them does not depend on how the batch is cut. KTO's
is measured before the step. RC's follows from the steps before it (1 at first), and lies in the rows of metrics, from
which a resumed run takes it up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clinalign.errors import UsageError
from clinalign.objectives import LossCoefficients, Method, SequenceLogps
from clinalign.objectives.logps import ViewLogps
from clinalign.objectives.rescale import factor, rescaled, smoothed

RATIO = "rc/ratio"
"""Column with RC's smoothed ratio behind a step."""

Total = Callable[[Tensor], Tensor]
"""The sum of a tensor over the processes."""


@dataclass
class StepConstants:
    """`z0`: KTO's baseline. `ratio`: RC's r* / r, smoothed; None before there is one. `measured`: of the step so far,
    the gradients of both sums by the parameters (flat) and what the loss has of each; None where nobody measures, no
    `rescales`. `mismatched`: log ratios of the answers to other prompts of some pairs, so many at once."""

    z0: float = 0.0
    ratio: float | None = None
    rescales: bool = False
    measured: list[Tensor] | None = None
    params: Sequence[Tensor] = field(default_factory=list)
    mismatched: Callable[[Sequence[int], int], Tensor] | None = None

    def before(self, indexes: Sequence[int], size: int, total: Total) -> None:
        """Measures what a step of these pairs needs before it, `size` pairs at once."""
        if self.mismatched is not None:
            self.baseline(self.mismatched(indexes, size), total)

    def baseline(self, ratios: Tensor, total: Total) -> None:
        """KTO's z0 from this process's log ratios [N] of answers to other prompts: max(0, their mean)."""
        summed = total(torch.stack([ratios.sum(), ratios.new_tensor(float(len(ratios)))]))
        self.z0 = max(0.0, float(summed[0] / summed[1].clamp(min=1)))

    def start(self, params: Mapping[str, Tensor]) -> None:
        """Begins to measure a step anew, as to RC."""
        self.params, self.measured = list(params.values()), [] if self.rescales else None

    def rescale(self, logps: SequenceLogps) -> SequenceLogps:
        """The sums with their gradients rescaled."""
        return rescaled(logps, 1.0 if self.ratio is None else factor(self.ratio))

    def measure(self, logps: SequenceLogps, given: SequenceLogps, loss: Tensor) -> None:
        """Adds some pairs: their sums as they are (`logps`), and the sums that the loss [P] was `given`."""
        if self.measured is None or not logps.chosen.requires_grad:
            return
        own = torch.autograd.grad(loss.sum(), [given.chosen, given.rejected], retain_graph=True)
        found = [_flat(value, self.params) for value in (logps.chosen, logps.rejected)]
        found += [grad.detach().abs().sum()[None] for grad in own]
        self.measured = [a + b for a, b in zip(self.measured, found, strict=True)] if self.measured else found

    def finish(self, total: Total) -> dict[str, float]:
        """Ends the step; its row of metrics gets what this returns. A step without gradient leaves the ratio alone, a
        process without a pair adds nothing."""
        if self.measured is None:
            return {}
        if not self.measured:
            flat = torch.cat([torch.zeros_like(value).flatten() for value in self.params])
            self.measured = [flat, flat.clone(), flat[:1].clone(), flat[:1].clone()]
        chosen, rejected, by_chosen, by_rejected = (total(value).norm().item() for value in self.measured)
        if min(chosen, rejected, by_chosen, by_rejected) > 0:
            self.ratio = smoothed(self.ratio, (rejected / chosen) / (by_chosen / by_rejected))
        self.measured = None
        return {} if self.ratio is None else {RATIO: self.ratio}

    def resume(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Takes the ratio up from the rows of the steps that are done."""
        for row in rows:
            self.ratio = row.get(RATIO, self.ratio)


def _flat(value: Tensor, params: Sequence[Tensor]) -> Tensor:
    """The gradient of a sum of values by the parameters, as one vector."""
    found = torch.autograd.grad(value.sum(), list(params), retain_graph=True, allow_unused=True)
    return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for g, p in zip(found, params)])


def check_loss(name: str, method: Method, coefficients: LossCoefficients) -> None:
    """Raises a `UsageError` where a loss refuses its coefficients, or where its gradients are to be rescaled and it
    does not raise the chosen answer against the rejected one. Found out on made-up numbers."""
    given = SequenceLogps.zeros(1)
    for view, sides in method.views.items():
        zeros = {side: torch.zeros(1) for side in sides}
        given.views[view] = ViewLogps(torch.ones(1), zeros, dict(zeros))
    given.chosen, given.rejected = (torch.tensor([value], requires_grad=True) for value in (-1.0, -2.0))
    given.chosen_tokens, given.rejected_tokens = torch.full((1,), 3.0), torch.full((1,), 3.0)
    try:
        loss = method.loss(given, coefficients).loss.sum()
    except ValueError as error:
        raise UsageError(f"method {name}: {error}") from error
    if not method.rescale:
        return
    grads = torch.autograd.grad(loss, [given.chosen, given.rejected], allow_unused=True) if loss.requires_grad else ()
    if not grads or any(grad is None or not grad.any() for grad in grads):
        raise UsageError(
            f"align.rescale: method {name} does not raise the chosen answer against the rejected one, so there are no "
            "two gradients to rescale; leave it out, or take a method with a margin, such as dpo"
        )
