"""How fast this machine is just now: bounds on processor time are written for a quiet core, and suites share theirs."""

from __future__ import annotations

import re
import time

QUIET_S = 0.023
"""Processor time of the work below on a quiet core."""
WORDS = "no nodule is seen in the left upper zone ; the heart is not enlarged . ".split()


def slower() -> float:
    """How many times longer fixed work of plain Python takes here and now than on a quiet core; at least 1."""
    seconds = []
    for _ in range(3):
        began = time.process_time()
        counts: dict[str, int] = {}
        for n in range(40_000):
            word = WORDS[n % len(WORDS)]
            counts[word] = counts.get(word, 0) + len(re.sub(r"[aeiou]", "", word))
        seconds.append(time.process_time() - began)
    return max(1.0, min(seconds) / QUIET_S)
