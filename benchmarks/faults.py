"""Runs that are killed at random instants, changed, and resumed: is anything stale, lost or doubled?

    python benchmarks/faults.py --out faults.json [--seed 0]

A tiny recipe with every stage (the tests' tiny LLaVA, 30 questions) runs in a process of its own, gets a SIGKILL at a
random instant of a chosen stage, and is resumed. `identical` of the 50 `unchanged` ones end with the bytes of the run
that nobody killed: tables, adapters, summary, lists of images, metrics but for their times, stage keys. For the 60
`changed_resumes` one of settings, data, image bytes, weights, configuration and code version is changed between kill
and resume, in every stage; `changed_right` of them end with the bytes of a run from nothing with that change. `kills`
are those that met a living process; `lost` and `doubled` count rows of all tables. Two at a time, one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from paths import importable

CHANGED, UNCHANGED = 60, 50


def plan(seed: int) -> list[tuple[str, str]]:
    """(stage, change) of every case: each change in each stage, the rest drawn; unchanged ones in turn."""
    from resuming import CHANGES, STAGES

    draw = random.Random(seed)
    every = [(stage, what) for stage in STAGES for what in CHANGES]
    more = [(draw.choice(STAGES), CHANGES[i % len(CHANGES)]) for i in range(CHANGED - len(every))]
    return [*every, *more, *((STAGES[i % len(STAGES)], "") for i in range(UNCHANGED))]


def measure(seed: int) -> dict[str, Any]:
    """All cases, two at a time."""
    from resuming import Cases

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        cases = Cases(Path(folder) / "cases")

        def one(number: int, stage: str, what: str) -> dict[str, Any]:
            found = cases.tried(f"case-{number}", stage, what, random.Random(f"{seed} {number}"))
            print(f"{number}: {stage}, {found['changed']}: {found['differs'] or 'right'}", file=sys.stderr, flush=True)
            return found | {"what": what}

        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda row: one(row[0], *row[1]), enumerate(plan(seed))))
    changed = [row for row in found if row["what"]]
    unchanged = [row for row in found if not row["what"]]
    return {
        "kills": sum(row["killed"] for row in found),
        "unchanged": len(unchanged),
        "identical": sum(not row["differs"] for row in unchanged),
        "changed_resumes": len(changed),
        "changed_right": sum(not row["differs"] for row in changed),
        "lost": sum(row["lost"] for row in found),
        "doubled": sum(row["doubled"] for row in found),
        "by_change": dict(sorted(Counter(row["changed"] for row in found).items())),
        "wrong": [row for row in found if row["differs"]],
        "seed": seed,
        "seconds": round(time.monotonic() - began),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    result = measure(arguments.seed)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in result.items() if name != "wrong"}))


if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    importable("src", "tests")
    main()
