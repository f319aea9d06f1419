"""Two processes against one on tiny models: the same losses, whole and in shares, and no deadlock in random trainings.

Losses, gradient norms, margins and divergences of every step are compared; the difference of a run that did not end is
null, and what it ended with stands behind its name.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CLOSE = 1e-5
TOGETHER = 10
"""Random trainings that the same two processes do before new ones take their place."""


def measure(folder: Path, *, runs: int = 50) -> dict[str, Any]:
    """`ddp_equal`, `fsdp_equal`: twenty steps of uneven batches of pairs with and without images, within 1e-5 of one
    process; `ddp_difference`, `fsdp_difference`: how far. `deadlocks` in `runs` random trainings, `random_ended` and
    `random_equal` of them; `random_difference`: the largest of those that ended; `random_odd`: what was not equal."""
    sys.path.insert(0, str(ROOT / "tests"))
    from several import Watched, compared, drawn, twenty

    watched = Watched(folder)
    found: dict[str, Any] = {}
    for parallel in ("ddp", "fsdp"):
        [gap] = compared(watched, [twenty(parallel, parallel)], parallel).values()
        found |= {f"{parallel}_equal": gap < CLOSE, f"{parallel}_difference": _finite(gap)}
    gaps: dict[str, float] = {}
    for start in range(0, runs, TOGETHER):
        jobs = [drawn(number, f"random-{number}") for number in range(start, min(start + TOGETHER, runs))]
        gaps |= compared(watched, jobs, f"random-{start}")
        print(f"{len(gaps)} of {runs} random trainings, {watched.deadlocks} deadlocks", file=sys.stderr, flush=True)
    ended = [gap for gap in gaps.values() if math.isfinite(gap)]
    return found | {
        "deadlocks": watched.deadlocks,
        "random_runs": runs,
        "random_ended": len(ended),
        "random_equal": sum(gap < CLOSE for gap in ended),
        "random_difference": max(ended, default=0.0),
        "random_odd": {name: _finite(gap) for name, gap in gaps.items() if not gap < CLOSE},
    }


def _finite(gap: float) -> float | None:
    return gap if math.isfinite(gap) else None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=50)
    given = parser.parse_args()
    print(json.dumps(measure(given.folder, runs=given.runs), indent=1))
