"""Seeded hostile inputs against the command line: what a row, recipe, file, folder or endpoint may not do to a run.

    python benchmarks/fuzz.py --out benchmarks/results/fuzz.json [--seed S] [--share 0.1] [--only rows recipes ...]

Every input is given to a child process (20 s, 3 GiB). Counted are errors that were not caught (`tracebacks`), exit
codes other than those that are right (`wrong_exits`), good rows among bad ones that are gone (`good_rows_lost`), inputs
that took too long or too much (`slow`), and planted instructions that changed text outside an edit's spans
(`injections_passed`). `faults` names each of them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

from fuzzing import base as good
from fuzzing import files, folders, injections, recipes, replies, tables
from fuzzing.worker import Case, Worker

COUNTS = {
    "rows": 10_000,
    "recipes": 2_000,
    "images": 300,
    "volumes": 300,
    "models": 200,
    "folders": 200,
    "replies": 100,
}
INJECTIONS = 200
FUZZ = "name: fuzz\nmodel: embedded\ndata: {source: table, path: table.csv}\n"
TINY = """name: tiny
model: embedded
data: {source: phantom, splits: {align: 6, dev: 2, test: 6}, per_case: 1}
align: {method: dpo, max_steps: 1, batch: 2}
audit: go_on
evaluate: {resamples: 100, permutations: 100}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the inputs of each kind")
    parser.add_argument("--only", nargs="*", choices=[*COUNTS, "injections"], help="kinds to run; all without it")
    given = parser.parse_args()
    chosen = given.only or [*COUNTS, "injections"]
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name), given.seed, given.share, chosen)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in found.items() if key != "faults"}))


def measure(base: Path, seed: int, share: float, chosen: list[str]) -> dict[str, Any]:
    """Runs the kinds one after another and counts."""
    os.environ["CLINALIGN_CACHE"] = str(base / "cache")
    good.draw_folder(base)
    (base / "fuzz.yaml").write_text(FUZZ)
    (base / "tiny.yaml").write_text(TINY)
    import clinalign.models  # noqa: F401  (children are forked with it)

    counts: Counter[str] = Counter()
    faults: list[dict[str, Any]] = []
    seconds: dict[str, float] = {}
    for kind, count in COUNTS.items():
        if kind not in chosen:
            continue
        started = time.monotonic()
        with Worker() as worker:
            for case in _cases(kind, max(1, round(count * share)), base, random.Random(f"{seed}/{kind}")):
                _judge(case, worker, counts, faults)
        seconds[kind] = round(time.monotonic() - started, 1)
        print(f"{kind}: {counts[kind]} in {seconds[kind]} s, {len(faults)} faults so far", file=sys.stderr)
    if "injections" in chosen:
        planted = max(8, round(INJECTIONS * share))
        passed, made = injections.passed(planted, base, random.Random(f"{seed}/injections"))
        counts |= Counter({"injections_passed": passed, "injections": planted, "injected_pairs": made})
    names = [*COUNTS, "tracebacks", "wrong_exits", "good_rows_lost", "slow", "injections_passed"]
    more = {"seed": seed, "injections": counts["injections"], "pairs_with_injections": counts["injected_pairs"]}
    return {name: counts[name] for name in names} | more | {"seconds": seconds, "faults": faults}


def _cases(kind: str, count: int, base: Path, draw: random.Random) -> Iterator[Case]:
    if kind == "folders":
        finished = base / "finished"
        command = [sys.executable, "-P", "-m", "clinalign.cli", "run", str(base / "tiny.yaml"), "--out", str(finished)]
        subprocess.run(command, check=True, capture_output=True)
        return folders.runs(count, base, finished, draw)
    make = {
        "rows": tables.cases,
        "recipes": recipes.cases,
        "images": files.pictures,
        "volumes": files.volumes,
        "models": folders.models,
        "replies": replies.cases,
    }[kind]
    return make(count, base, draw)


def _judge(case: Case, worker: Worker, counts: Counter[str], faults: list[dict[str, Any]]) -> None:
    """Runs a case and notes what was wrong with it."""
    outcome = worker.run(case)
    lost = case.lost() if outcome.code == 0 else 0
    wrong = {
        "slow": int(outcome.slow),
        "tracebacks": int(not outcome.slow and (outcome.code is None or outcome.code == 1)),
        "wrong_exits": int(outcome.code not in (None, 1, *case.codes)),
        "good_rows_lost": lost,
    }
    counts[case.area] += case.count
    counts.update(wrong)
    if any(wrong.values()):
        kinds = {name: number for name, number in wrong.items() if number}
        faults.append({"area": case.area, "note": case.note, **kinds, "seconds": round(outcome.seconds, 1)})
        faults[-1]["words"] = outcome.words[-700:]


if __name__ == "__main__":
    main()
