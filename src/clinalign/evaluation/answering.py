"""How the systems under evaluation answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clinalign.evaluation.options import EvaluationOptions


def answers(vlm: Any, prompts: Sequence[tuple[str, Sequence[np.ndarray]]], options: EvaluationOptions) -> list[Any]:
    """Generations of (prompt, images) pairs, in their order and in one batch: `text` and `finish_reason` each."""
    return list(vlm.generate(prompts, max_new_tokens=options.max_new_tokens, batch_size=max(1, len(prompts))))
