"""Time and memory of every decoder relative to greedy, on a LLaVA of random weights.

    python benchmarks/decoders.py --out decoders.json

Every decoder runs in a process of its own and the processes take turns, one batch each, so that a busy machine slows
all alike. Relative cost: the median over rounds of a decoder's time over greedy's in the same round, at the same number
of tokens (no answer ends early). Memory: peak resident size minus the size after loading, over greedy's.
`neutral_identical`: at settings that change nothing, 64 tokens and more are greedy's, token by token. `live`: at
default settings the scores of the second token differ from the clean ones.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

# A benchmark beside this one is named like a module of the standard library, which it must not shadow.
import numpy as np
from step import Child, percentiles

CHILD = Path(__file__).parent / "steps" / "decoding.py"
NAMES = ("greedy", "med_vcd", "vcd", "second", "imccd", "cai", "vhr", "pai", "m3id", "avisc", "damro")
NEUTRAL: dict[str, list[dict[str, Any]]] = {
    "med_vcd": [{"alpha": 0.0, "sink": 0.0, "keep": 1.0}],
    "vcd": [{"alpha": 0.0, "beta": 0.0}, {"noise_step": 0}],
    "second": [{"scales": [1.0], "alphas": []}],
    "imccd": [{"alpha": 0.0, "gamma": 1.0}, {"threshold": float("inf"), "gamma": 1.0}],
    "cai": [{"alpha": 0.0}],
    "vhr": [{"scale": 1.0}],
    "pai": [{"alpha": 0.0, "gamma": 1.0}],
    "m3id": [{"forgetting": 0.0}],
    "avisc": [{"alpha": 0.0}],
    "damro": [{"alpha": 0.0}],
}
SHAPES: dict[str, dict[str, Any]] = {
    "reference": {"vision": [6, 192], "language": [8, 256], "vocab": 32000, "image_size": 224, "patch": 14,
                  "prompt": 20, "batch": 4, "tokens": 128, "neutral_tokens": 64},
    "tiny": {"vision": [2, 32], "language": [2, 64], "vocab": 800, "image_size": 56, "patch": 14, "prompt": 6,
             "batch": 2, "tokens": 8, "neutral_tokens": 64},
}  # fmt: skip
LIVE = 1e-3


def measure(shape: dict[str, Any], names: tuple[str, ...], rounds: int, threads: int) -> dict[str, Any]:
    """Costs and checks of the named decoders; the first one is what the others are compared with."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "shape.json").write_text(json.dumps(shape | {"neutral": NEUTRAL}))
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
        subprocess.run([sys.executable, str(CHILD), "build", folder], check=True, env=environment)
        children = [Child(name, work, threads, CHILD) for name in names]
        for child in children:
            child.ready = child.read()
            child.ask("step")
        times: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(rounds):
            for child in children[turn % len(children) :] + children[: turn % len(children)]:
                answer = child.ask("step")
                assert answer["tokens"] == shape["batch"] * shape["tokens"], (
                    f"{child.variant}: {answer['tokens']} tokens"
                )
                times[child.variant].append(answer["seconds"])
        checks, memory = {}, {}
        for child in children:
            # Memory first: the checks run other decoders too.
            if child.variant != names[0]:
                other = Child(child.variant, work, threads, CHILD)
                other.read()
                checks[child.variant] = other.ask("check")
                other.ask("end")
            memory[child.variant] = child.ask("end")["peak_mb"] - child.ready["loaded_mb"]
        return {name: row(name, names[0], times, memory, checks, shape) for name in names}


def row(
    name: str, first: str, times: dict[str, list[float]], memory: dict[str, float], checks: dict[str, Any],
    shape: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """One decoder's numbers."""
    found: dict[str, Any] = {
        "relative_cost": round(float(np.median(np.divide(times[name], times[first]))), 3),
        "peak_memory_ratio": round(memory[name] / memory[first], 3),
        "tokens_per_s": round(shape["batch"] * shape["tokens"] / float(np.median(times[name])), 1),
        "seconds": percentiles(times[name]),
        "memory_mb": round(memory[name], 1),
    }
    if name in checks:
        found["neutral_identical"] = checks[name]["neutral_identical"] and checks[name]["tokens"] >= 64
        found["live"] = checks[name]["gap"] > LIVE
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the JSON goes")
    parser.add_argument("--shape", default="reference", choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--decoders", default=",".join(NAMES), help="which, greedy first")
    options = parser.parse_args(arguments)
    found = measure(SHAPES[options.shape], tuple(options.decoders.split(",")), options.rounds, options.threads)
    result = {
        "decoders": found,
        "shape": SHAPES[options.shape],
        "threads": options.threads,
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, values in found.items():
        print(name, {key: values[key] for key in values if key not in ("seconds", "memory_mb")})
    return 0


if __name__ == "__main__":
    sys.exit(main())
