"""Multi-modal mutual-information decoding (Favero et al., CVPR 2024, arXiv 2403.14003).

With lc and lu the log-probabilities with and without the image, token t scores lc + (exp(lambda t) - 1) (lc - lu), t
from 1. The branch without image sees every token of the answer; in a public port it saw none.
"""

from __future__ import annotations

import math

from clinalign.decoding.loop import DecodingSteps, PromptBatch, halves, plausible
from clinalign.decoding.options import M3ID
from clinalign.models.generate import advance, prefill


def m3id(batch: PromptBatch, options: M3ID) -> DecodingSteps:
    """Two branches in one batch, the second without images."""
    state = prefill(batch.vlm, *batch.pair_text_only())
    step = 1
    while True:
        clean, blind = (branch.log_softmax(-1) for branch in halves(state.logits))
        tokens = yield plausible(clean + weight(step, options.forgetting) * (clean - blind), clean, options.beta)
        advance(batch.vlm, state, tokens.repeat(2))
        step += 1


def weight(step: int, forgetting: float) -> float:
    """(1 - g) / g with g = exp(-forgetting * step): .0202 at step 1, 1.718 at step 50 with the default .02."""
    return math.expm1(forgetting * step)
