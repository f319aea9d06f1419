"""What MEDALIGN costs: time and memory of a packed SFT step with both terms against the same step without.

    python benchmarks/distill.py --out distill.json

Plain SFT, distillation with the probe, and distillation from whole eager attention maps, each in a process of its own;
they take turns, one step each. `step_ratio_vs_sft` is the median of the ratios within a round, and beside it the ratio
of the median processor seconds. `memory_ratio_vs_sft` compares peak memory above the loaded model.
`attention_memory_ratio_vs_eager` compares what the forward keeps for its backward pass because of L_att (beyond the
same step with L_vis alone), counted by storage: maps of all layers against rows of one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from step import LLAVA, LORA, Child, machine, percentiles

CHILD = Path(__file__).parent / "steps" / "distilled.py"
VARIANTS = ("sft", "distill", "eager")
SHAPES: dict[str, dict[str, Any]] = {
    "reference": LLAVA | {"answer": 40, "fork": 20},
    "tiny": LLAVA
    | {"vision": [2, 32], "language": [2, 64], "vocab": 800, "image_size": 56, "prompt": 6, "answer": 10, "fork": 4}
    | {"batch": 2, "micro": 2},
}


def measure(shape: dict[str, Any], rounds: int, threads: int, device: str) -> dict[str, Any]:
    """The three variants in turn, the first in line changing from round to round."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "shape.json").write_text(json.dumps({"lora": LORA, **shape, "device": device}))
        subprocess.run([sys.executable, str(CHILD), "build", folder], check=True)
        kept = {variant: _kept(variant, work) for variant in (*VARIANTS, "vis")}
        children = [Child(variant, work, threads, script=CHILD) for variant in VARIANTS]
        for child in children:
            child.ready = child.read()
        for child in children:
            child.ask("step")
        wall: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        cpu: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        for turn in range(rounds):
            for child in children[turn % 3 :] + children[: turn % 3]:
                answer = child.ask("step")
                wall[child.variant].append(answer["seconds"])
                cpu[child.variant].append(answer["cpu_seconds"])
        found: dict[str, Any] = {}
        for child in children:
            peak = child.ask("end")["peak_mb"]
            child.process.kill()
            child.process.wait()
            found[child.variant] = {
                "seconds": percentiles(wall[child.variant]),
                "cpu_seconds": percentiles(cpu[child.variant]),
                "memory_mb": round(peak - child.ready["loaded_mb"], 1),
                "peak_mb": round(peak, 1),
                "kept_for_backward_mb": round(kept[child.variant] / 2**20, 2),
            }
    vis = round(kept["vis"] / 2**20, 2)
    return {"shape": shape, "variants": found, "kept_with_vis_alone_mb": vis} | ratios(wall, found, vis)


def _kept(variant: str, work: Path) -> int:
    """In a process of its own, so that the measurement of peak memory starts from a fresh one."""
    command = [sys.executable, str(CHILD), variant, str(work), "kept"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def ratios(wall: dict[str, list[float]], found: dict[str, Any], vis: float) -> dict[str, float]:
    """The numbers of the first lines of the result."""
    sft, distill, eager = (found[name] for name in VARIANTS)
    attention = [one["kept_for_backward_mb"] - vis for one in (distill, eager)]
    return {
        "step_ratio_vs_sft": round(float(np.median(np.divide(wall["distill"], wall["sft"]))), 3),
        "cpu_ratio_vs_sft": round(distill["cpu_seconds"]["median"] / sft["cpu_seconds"]["median"], 3),
        "cpu_ratio_vs_sft_of_minima": round(distill["cpu_seconds"]["min"] / sft["cpu_seconds"]["min"], 3),
        "memory_ratio_vs_sft": round(distill["memory_mb"] / sft["memory_mb"], 3),
        "peak_memory_ratio_vs_sft": round(distill["peak_mb"] / sft["peak_mb"], 3),
        "attention_memory_ratio_vs_eager": round(attention[1] / attention[0], 1),
        "step_ratio_eager_vs_sft": round(float(np.median(np.divide(wall["eager"], wall["sft"]))), 3),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--rounds", type=int, default=12, help="timed steps of every variant")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="reference")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads of each process")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args()
    where = machine(args.device, args.threads)
    result = measure(SHAPES[args.shape], args.rounds, args.threads, args.device)
    first = {name: value for name, value in result.items() if name not in ("shape", "variants")}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(first | {"machine": where} | result, indent=1) + "\n")
    print(json.dumps(first, indent=1), file=sys.stderr)
    print(args.out)


if __name__ == "__main__":
    main()
