"""Time and memory of one training step against the published step, a lean one, and TRL's DPO trainer.

    python benchmarks/step.py --out step.json

Each variant runs in a process of its own and the processes take turns, one step each, so that a busy machine slows
all alike. Times are medians over the rounds after a warm-up step; ratios are medians of the ratios within a round.
Processor seconds and their ratios stand beside them: with one thread they hardly feel what else the machine does.
Memory is the peak resident size minus the resident size after the model is loaded (on a GPU: of its allocator).
Gradients are compared at the same random adapter, so that the policy differs from the reference.
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

import numpy as np

CHILD = Path(__file__).parent / "steps" / "child.py"

FIREMPO = ("published", "published_checkpointed", "lean", "packed", "packed_cached")
DPO = ("trl", "dpo", "dpo_cached")
LORA = {"r": 16, "alpha": 32, "dropout": 0.0, "rslora": True}
LLAVA = {"family": "llava", "vision": [6, 192], "language": [8, 256], "vocab": 32000, "image_size": 224, "patch": 14,
         "prompt": 20, "span": 3, "batch": 4, "micro": 4, "batches": 2, "dtype": "float32"}  # fmt: skip
QWEN = {"family": "qwen3_vl", "vision": [24, 1024], "language": [36, 2560], "heads": [32, 8, 128], "inner": 9728,
        "vocab": 151936, "mrope": [24, 20, 20], "deepstack": [5, 11, 17], "patch": 16, "prompt": 40, "span": 3,
        "batch": 8, "micro": 2, "batches": 2, "dtype": "bfloat16", "lora": LORA | {"r": 128, "alpha": 256}}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "reference": LLAVA | {"answer": 40, "fork": 20},
    "answer_15": LLAVA | {"answer": 15, "fork": 7},
    "answer_120": LLAVA | {"answer": 120, "fork": 60},
    "qwen_400_15": QWEN | {"image_size": 640, "answer": 15, "fork": 7},
    "qwen_400_120": QWEN | {"image_size": 640, "answer": 120, "fork": 60},
    "qwen_1024_15": QWEN | {"image_size": 1024, "answer": 15, "fork": 7},
    "qwen_1024_120": QWEN | {"image_size": 1024, "answer": 120, "fork": 60},
    "tiny": LLAVA | {"vision": [2, 32], "language": [2, 64], "vocab": 800, "image_size": 56, "prompt": 6,
                     "answer": 10, "fork": 4, "batch": 2, "micro": 1},
    "tiny_qwen": {"family": "qwen3_vl", "vision": [3, 64], "language": [3, 64], "vocab": 800, "image_size": 64,
                  "patch": 8, "prompt": 6, "answer": 10, "fork": 4, "span": 3, "batch": 2, "micro": 2, "batches": 2,
                  "dtype": "float32"},
}  # fmt: skip
ON = {"cpu": "reference,answer_15,answer_120", "cuda": "qwen_400_15,qwen_400_120,qwen_1024_15,qwen_1024_120"}
"""Shapes measured by default on each device."""


class Child:
    """One variant in its own process, driven a step at a time over its standard input."""

    def __init__(self, variant: str, work: Path, threads: int, script: Path = CHILD) -> None:
        self.variant = variant
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, str(script), variant, str(work)]
        self.log = (work / f"{variant}.log").open("w+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment
        )
        self.ready: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        """The next JSON line; other output of libraries is passed over."""
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("@"):
                return dict(json.loads(line[1:]))
        self.log.seek(0)
        raise RuntimeError(f"{self.variant} ended early:\n{self.log.read()[-3000:]}")

    def ask(self, word: str) -> dict[str, Any]:
        """Sends one command and returns its answer."""
        assert self.process.stdin
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.read()


def measure(shape: dict[str, Any], variants: tuple[str, ...], rounds: int, threads: int, device: str) -> dict[str, Any]:
    """Runs the variants on one shape and returns their times, memory and gradients' distance.

    On a CPU all processes live together and take turns; on a GPU, which holds one at a time, they follow each other. A
    variant that does not run (out of memory) is reported with its error.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "shape.json").write_text(json.dumps({"lora": LORA, **shape, "device": device}))
        subprocess.run([sys.executable, str(CHILD), "build", folder], check=True)
        times: dict[str, list[float]] = {}
        cpu: dict[str, list[float]] = {}
        found: dict[str, dict[str, Any]] = {}
        for group in [variants] if device == "cpu" else [(variant,) for variant in variants]:
            try:
                _take_turns(group, work, rounds, threads, times, cpu, found)
            except RuntimeError as error:
                if device == "cpu":
                    raise
                times.pop(group[0], None)
                found[group[0]] = {"error": str(error).strip().splitlines()[-1]}
        ran = {name: values for name, values in found.items() if "error" not in values}
        result = {"shape": shape, "variants": found, "ratios": ratios(times, ran, shape)}
        result["processor_ratios"] = {
            k: v for k, v in ratios(cpu, ran, shape).items() if k.startswith("speedup") and "epochs" not in k
        }
        return result | {"errors": distances(work, {name: values["first_loss"] for name, values in ran.items()})}


def _take_turns(
    variants: tuple[str, ...],
    work: Path,
    rounds: int,
    threads: int,
    times: dict[str, list[float]],
    cpu: dict[str, list[float]],
    found: dict[str, dict[str, Any]],
) -> None:
    """One step of each in turn, the first in line changing from round to round."""
    children = [Child(variant, work, threads) for variant in variants]
    for child in children:
        child.ready = child.read()
    warm_up = {child.variant: child.ask("step")["loss"] for child in children}
    for turn in range(rounds):
        for child in children[turn % len(children) :] + children[: turn % len(children)]:
            answer = child.ask("step")
            times.setdefault(child.variant, []).append(answer["seconds"])
            cpu.setdefault(child.variant, []).append(answer["cpu_seconds"])
    for child in children:
        peak = child.ask("end")["peak_mb"]
        child.process.kill()
        child.process.wait()
        found[child.variant] = {
            "seconds": percentiles(times[child.variant]),
            "cpu_seconds": percentiles(cpu[child.variant]),
            "memory_mb": round(peak - child.ready["loaded_mb"], 1),
            "build_seconds": child.ready["build_seconds"],
            "first_loss": warm_up[child.variant],
        }


def percentiles(values: list[float]) -> dict[str, float]:
    """Median and spread of the times of one variant."""
    low, middle, high = (float(np.percentile(values, share)) for share in (25, 50, 75))
    return {
        "p25": round(low, 4), "median": round(middle, 4), "p75": round(high, 4),
        "min": round(min(values), 4), "max": round(max(values), 4), "n": len(values),
    }  # fmt: skip


def ratios(times: dict[str, list[float]], variants: dict[str, Any], shape: dict[str, Any]) -> dict[str, float]:
    """Speed-ups (median of the ratios within a round) and memory ratios of ours against each baseline."""
    found = {}

    def speed(slow: str, fast: str) -> float:
        return round(float(np.median(np.divide(times[slow], times[fast]))), 2)

    for baseline in ("published", "published_checkpointed", "lean"):
        if {baseline, "packed", "packed_cached"} <= times.keys():
            found[f"speedup_vs_{baseline}"] = speed(baseline, "packed")
            found[f"speedup_vs_{baseline}_cached"] = speed(baseline, "packed_cached")
            memory = variants[baseline]["memory_mb"]
            found[f"memory_ratio_vs_{baseline}"] = round(variants["packed"]["memory_mb"] / memory, 3)
            found[f"memory_ratio_vs_{baseline}_cached"] = round(variants["packed_cached"]["memory_mb"] / memory, 3)
    if {"trl", "dpo", "dpo_cached"} <= times.keys():
        found["speedup_vs_trl"] = speed("trl", "dpo")
        found["speedup_vs_trl_cached"] = speed("trl", "dpo_cached")
        steps = shape["batches"] * 3
        ours = variants["dpo_cached"]["build_seconds"] + steps * float(np.median(times["dpo_cached"]))
        found["speedup_vs_trl_3_epochs"] = round(steps * float(np.median(times["trl"])) / ours, 2)
        found["memory_ratio_vs_trl"] = round(variants["dpo"]["memory_mb"] / variants["trl"]["memory_mb"], 3)
    return found


def distances(work: Path, losses: dict[str, float]) -> dict[str, dict[str, Any]]:
    """|loss - loss'| / |loss'| and ||g - g'|| / ||g'|| of each variant against the published one, or against TRL."""
    from safetensors.numpy import load_file

    found = {}
    for group in (FIREMPO, DPO):
        names = [name for name in group if name in losses]
        grads = {name: load_file(work / f"{name}.safetensors") for name in names}
        for name in names[1:]:
            one, other = grads[names[0]], grads[name]
            assert one.keys() == other.keys(), f"{name} trains other parameters than {names[0]}"
            gap = sum(float(((other[k].astype("float64") - one[k]) ** 2).sum()) for k in one)
            norm = sum(float((one[k].astype("float64") ** 2).sum()) for k in one)
            loss = abs(losses[name] - losses[names[0]]) / abs(losses[names[0]])
            found[name] = {"against": names[0], "loss": loss, "gradient": (gap / norm) ** 0.5}
    return found


def machine(device: str, threads: int) -> dict[str, Any]:
    """Where the numbers come from."""
    packages = ("torch", "transformers", "peft", "trl", "accelerate")
    versions = {name: metadata.version(name) for name in packages if _installed(name)}
    model = platform.processor()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "device": device, "cpu": model, "cores": os.cpu_count(), "threads": threads, "load_at_start": load,
        "python": platform.python_version(), "system": platform.system(), "versions": versions,
    }  # fmt: skip


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--rounds", type=int, default=7, help="timed steps of every variant")
    parser.add_argument("--shapes", help="comma-separated, of: " + ", ".join(SHAPES))
    parser.add_argument("--variants", help="comma-separated, of: " + ", ".join(FIREMPO + DPO))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads of each process")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args()
    # TRL needs a processor of the transformers library, which Qwen's is not without torchvision.
    variants = tuple((args.variants or ",".join(FIREMPO + (DPO if args.device == "cpu" else ()))).split(","))
    where = machine(args.device, args.threads)
    shapes = {}
    for name in (args.shapes or ON[args.device]).split(","):
        shapes[name] = measure(SHAPES[name], variants, args.rounds, args.threads, args.device)
        shown = {name: {key: shapes[name][key] for key in ("ratios", "processor_ratios")}}
        print(json.dumps(shown, indent=1), file=sys.stderr)
    first = next(iter(shapes.values()))
    exact = {
        "max_rel_error_loss": max((e["loss"] for s in shapes.values() for e in s["errors"].values()), default=None),
        "max_rel_error_grad": max((e["gradient"] for s in shapes.values() for e in s["errors"].values()), default=None),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(exact | first["ratios"] | {"machine": where, "shapes": shapes}, indent=1) + "\n")
    print(args.out)


if __name__ == "__main__":
    main()
