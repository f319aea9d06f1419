"""The most likely token at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def greedy(
    vlm: Any, prompts: Sequence[tuple[str, Sequence[np.ndarray]]], *, max_new_tokens: int, batch_size: int
) -> list[Any]:
    """Greedy answers to (prompt, images) pairs, in their order."""
    return list(vlm.generate(prompts, max_new_tokens=max_new_tokens, batch_size=batch_size))
