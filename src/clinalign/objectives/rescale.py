"""RC (arXiv 2604.18239): any margin loss with its two gradients rescaled, so that the chosen answer keeps rising.

    z+ <- a z+ + (1 - a) sg z+        z- <- z- / a + (1 - 1/a) sg z-        a = exp((log r* - log r) / 2)

Values stay, gradients are scaled: that of the chosen sum by a, that of the rejected sum by 1 / a. r is the loss's own
ratio |dL/dz+| / |dL/dz-| (1 for DPO), r* = |grad z-| / |grad z+| by parameters, smoothed in the logarithm over steps.
"""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from clinalign.objectives.logps import SequenceLogps


def scaled(value: Tensor, factor: float) -> Tensor:
    """The value, with `factor` times its gradient."""
    return factor * value + (1 - factor) * value.detach()


def factor(target: float, ratio: float = 1.0) -> float:
    """a, from r* and r; raises `ValueError` where one is not positive."""
    if not (target > 0 and ratio > 0):
        raise ValueError(f"gradient ratios {target:g} and {ratio:g} must be positive")
    return math.exp((math.log(target) - math.log(ratio)) / 2)


def smoothed(before: float | None, now: float, decay: float = 0.98) -> float:
    """The running logarithmic mean of r*; `now` where there is none before."""
    return now if before is None else math.exp(decay * math.log(before) + (1 - decay) * math.log(now))


def rescaled(logps: SequenceLogps, a: float) -> SequenceLogps:
    """The same values for any loss, the gradients of the chosen and the rejected sum scaled by a and 1 / a."""
    return replace(logps, chosen=scaled(logps.chosen, a), rejected=scaled(logps.rejected, 1 / a))
