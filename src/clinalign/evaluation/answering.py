"""How the systems under evaluation answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clinalign.decoding import decode
from clinalign.decoding.options import Greedy
from clinalign.evaluation.options import EvaluationOptions


def answers(vlm: Any, prompts: Sequence[tuple[str, Sequence[np.ndarray]]], options: EvaluationOptions) -> list[Any]:
    """Generations of (prompt, images) pairs in their order, made `batch_size` at a time: `text`, `finish_reason`."""
    size = {"max_new_tokens": options.max_new_tokens, "batch_size": options.batch_size}
    if options.decoder == Greedy():
        return list(vlm.generate(prompts, **size))
    return decode(vlm, prompts, options.decoder, **size)
