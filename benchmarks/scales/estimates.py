"""How far off `clinalign check` is: five small recipes, what it says beside what their training then takes.

Time is this process's CPU time, so that others on the machine do not count; memory is the peak of a process that trains
beside that of one that tries. Each is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

RECIPES: dict[str, dict[str, Any]] = {
    "firempo": {"method": "firempo", "batch": 4},
    "dpo": {"method": "dpo", "batch": 8},
    "sft": {"method": "sft", "batch": 8, "epochs": 2},
    "mdpo_checkpointed": {"method": "mdpo", "batch": 4, "gradient_checkpointing": True},
    "simpo_small_micro_batch": {"method": "simpo", "batch": 8, "micro_batch": 2},
}
"""Name -> what its `align` says."""
PATIENTS = 40
PREDICTED, TAKEN = "predicted", "taken"


def measure(folder: Path, *, patients: int = PATIENTS, names: tuple[str, ...] = tuple(RECIPES)) -> dict[str, Any]:
    """`estimate_time_error` and `estimate_memory_error`: the largest |predicted / taken - 1| of the recipes."""
    _call("corpus", "", folder, patients)
    found = {}
    for name in names:
        found[name] = {what: _call(what, name, folder, patients) for what in (PREDICTED, TAKEN)}
    errors = {
        what: max(abs(of[PREDICTED][what] / of[TAKEN][what] - 1) for of in found.values())
        for what in ("seconds", "peak_mb")
    }
    return {
        "estimate_time_error": round(errors["seconds"], 4),
        "estimate_memory_error": round(errors["peak_mb"], 4),
        "recipes": found,
    }


def _call(what: str, name: str, folder: Path, patients: int) -> dict[str, float]:
    call = [sys.executable, __file__, "--child", what, "--name", name, "--folder", str(folder)]
    done = subprocess.run([*call, "--patients", str(patients)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{what} {name} failed:\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(what: str, name: str, folder: Path, patients: int) -> dict[str, float]:
    """One part in this process; its clock is the CPU time of this process."""
    import time

    time.perf_counter = time.process_time  # before anything of ours looks at it
    from clinalign.folder import load_model
    from clinalign.recipe import load_recipe
    from clinalign.records import Example, Pair
    from clinalign.storage import Quarantine, open_table, read_table, write_table
    from clinalign.training.loop import peak_memory_mb

    base = ["device=cpu", f"data.splits={{align: {patients}, test: 1}}", f"align.cache={folder / 'cache'}" + name]
    given = [f"align.{key}={str(value).lower()}" for key, value in RECIPES.get(name, {}).items()]
    recipe = load_recipe("phantom", [*base, *given, "compare={}"])
    vlm = load_model(recipe)
    table = folder / "corrupted_pairs.parquet"
    if what == "corpus":
        from clinalign.data import read
        from clinalign.lesions import corrupt_pairs
        from clinalign.pairs import answered_under_corruption
        from clinalign.training.trial import stand_ins

        quarantine = Quarantine(folder / "quarantine.jsonl")
        examples: list[Example] = [e for e in read(recipe.data, folder, quarantine) if e.split == "align"]
        pairs = corrupt_pairs(stand_ins(vlm, examples), examples, folder, vlm, recipe.corrupt, quarantine)
        pairs = answered_under_corruption(pairs, examples, vlm.tokenizer)
        return {"pairs": write_table(table, pairs, Pair)}
    if what == PREDICTED:
        from clinalign.training.trial import try_training

        found = try_training(vlm, open_table(table, Pair), folder, recipe.align, seed=recipe.seed)
        return {"seconds": found.seconds, "peak_mb": found.peak_mb or 0.0, **found.parts}
    from clinalign.training import train

    began = time.process_time()
    out = folder / "runs" / name
    train(vlm, read_table(table, Pair), folder, recipe.align, out, label=name, seed=recipe.seed)
    return {"seconds": time.process_time() - began, "peak_mb": peak_memory_mb(vlm.device)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--patients", type=int, default=PATIENTS)
    parser.add_argument("--names", nargs="+", default=list(RECIPES))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--name", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.child:
        print(json.dumps(child(arguments.child, arguments.name, arguments.folder, arguments.patients)))
        return
    print(json.dumps(measure(arguments.folder, patients=arguments.patients, names=tuple(arguments.names)), indent=1))


if __name__ == "__main__":
    main()
