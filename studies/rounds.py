"""Do two rounds help? The same tokens of training in one round, and in two: answer, edit, train, answer again.

    python -m studies.rounds --out rounds.json --work build/rounds

`keep` with the settings of studies/phantom2_finalists.yaml, on patients of no other study (draw 11): one round of
140 000 tokens, two of 70 000 with the base as reference, three seeds. Every run is a folder under --work, made by
`clinalign run`; a study that was stopped goes on. Differences are paired by question, seeds averaged first, with
intervals and a test by patient; an answer that cannot be judged is not right.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from clinalign.errors import UsageError
from clinalign.evaluation.intervals import mean_interval
from clinalign.evaluation.statistics import compare, per_question
from clinalign.folder import Run
from clinalign.recipe import load_recipe
from clinalign.records import Example, Outcome, Pair
from clinalign.run import execute
from clinalign.storage import file_hash, read_table, write_json

FILE = Path(__file__).parent / "phantom2_finalists.yaml"
ARMS = {"one round": (1, 140_000), "two rounds": (2, 70_000)}
"""Rounds, and tokens of packed rows in each."""


def ran(work: Path, arm: str, seed: int, own: list[str]) -> Path:
    """The folder of one run, finished."""
    rounds, tokens = ARMS[arm]
    overrides = [
        f"rounds={rounds}", f"align.max_tokens={tokens}", f"seed={seed}", "data.draw=11", "evaluate.drift=true",
        "data.splits={align: 150, test: 80}", "sweep=null", "audit=go_on", *own,
    ]  # fmt: skip
    out = work / f"{arm.partition(' ')[0]}-{seed}"
    execute(Run(load_recipe(FILE, overrides), out, resume=True))
    return out


def right(folder: Path) -> dict[str, dict[str, float]]:
    """1 or 0 by system and question."""
    found: dict[str, dict[str, float]] = {}
    for outcome in read_table(folder / "outcomes.parquet", Outcome):
        if outcome.condition == "clean":
            found.setdefault(outcome.system, {})[outcome.example_id] = float(outcome.correct is True)
    return found


def pairs(folder: Path) -> dict[str, int]:
    """Pairs of each round, and how many of them mend a wrong answer."""
    found: dict[str, int] = {}
    for pair in read_table(folder / "corrupted_pairs.parquet", Pair):
        for name in (f"round {pair.round}", *([] if pair.was_correct else [f"round {pair.round}, answer was wrong"])):
            found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))


def drift(folder: Path, label: str) -> float:
    """KL(base || system) a token of the base's own answers, outside the claim, in nats."""
    summary = json.loads((folder / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    return float(summary["systems"][label]["metrics"]["drift_rest"]["estimate"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--work", type=Path, default=Path("build/rounds"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE of the recipe")
    args = parser.parse_args()
    began = time.monotonic()
    folders = {arm: [ran(args.work, arm, seed, args.overrides) for seed in range(args.seeds)] for arm in ARMS}
    first = folders["one round"][0]
    people = {e.id: e.patient_id for e in read_table(first / "examples.parquet", Example) if e.split == "test"}
    label = load_recipe(FILE).align.label
    if len({file_hash(run / "examples.parquet") for runs in folders.values() for run in runs}) != 1:
        raise UsageError(f"{args.work}: runs of different questions; delete it or give another --work")
    values = {
        "base": np.array([[right(first)["base"][i] for i in people]]),
        **{
            arm: np.array([[found[label][i] for i in people] for found in map(right, runs)])
            for arm, runs in folders.items()
        },
    }
    patients = list(people.values())
    result: dict[str, Any] = {"questions": len(people), "patients": len(set(patients)), "systems": {}}
    for name, matrix in values.items():
        known = mean_interval(per_question(matrix), patients, kind="share").as_dict()
        result["systems"][name] = known | {"seeds": [round(float(row.mean()), 4) for row in matrix]}
    result["two_minus_one"] = compare(values["two rounds"], values["one round"], patients, kind="difference").as_dict()
    result["pairs"] = {arm: pairs(runs[0]) for arm, runs in folders.items()}
    result["drift_rest"] = {arm: [drift(run, label) for run in runs] for arm, runs in folders.items()}
    write_json(args.out, result | {"seconds": round(time.monotonic() - began, 1)})
    print(json.dumps(json.loads(args.out.read_text(encoding="utf-8")), indent=1))


if __name__ == "__main__":
    main()
