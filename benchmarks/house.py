"""One scorer, one attention, one store; and what the house costs beside an earlier commit of itself.

    python benchmarks/house.py --out house.json

Counts the places that form log-probabilities of answers, form attention rows or write tensors (the rules of
`tests/test_house.py`), and the files that 20 000 cached records make. Times the demo alone on the machine, the same
demo of commit 016227e in a temporary worktree, and the demo beside two busy processes; and the packed step at the
reference shape against that of the commit, a step each in turn. The machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from step import LORA, SHAPES, Child, machine

ROOT = Path(__file__).parents[1]
BEFORE = "016227e"
PARTS = ("places", "store", "step", "demo")
RECORDS = 20_000
BUSY = 2


def places() -> dict[str, int]:
    """How many files do what one file should."""
    spec = importlib.util.spec_from_file_location("test_house", ROOT / "tests" / "test_house.py")
    assert spec and spec.loader
    house = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(house)
    names = {"scorers": "log-probabilities of answers", "attentions": "attention rows of the decoder"}
    names |= {"tensor_stores": "tensors on disk"}
    count = {key: len(house.places(house.ONE_PLACE[name][0])) for key, name in names.items()}
    return count | {"scorers": len(house.places(r"\.hidden_states\("))}


def store() -> dict[str, int]:
    """Files of a cache of records as a reference makes them."""
    import torch

    from clinalign.storage.tensors import TensorStore

    with tempfile.TemporaryDirectory() as folder:
        cache = TensorStore(Path(folder), {"weights": "0"}, "reference")
        record = {name: torch.zeros(12) for name in ("chosen", "rejected", "corrupt_chosen", "corrupt_rejected")}
        record |= {"index": torch.arange(3), "states": torch.zeros(3, 128)}
        for start in range(0, RECORDS, 8):
            cache.put({f"{i:064x}": record for i in range(start, start + 8)})
        cache.flush()
        return {"files_20k": sum(p.is_file() for p in Path(folder).rglob("*"))}


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """A commit of this repository in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(tree)], check=True)


def step(before: Path, shape: str, rounds: int, threads: int) -> dict[str, float]:
    """Median time of the packed cached step over that of the earlier tree, and how far loss and gradient are apart."""
    from safetensors.numpy import load_file

    with tempfile.TemporaryDirectory() as folder:
        children, works = [], []
        for tree in (ROOT, before):
            work = Path(folder) / str(len(works))
            work.mkdir()
            (work / "shape.json").write_text(json.dumps({"lora": LORA, **SHAPES[shape], "device": "cpu"}))
            script = tree / "benchmarks" / "steps" / "child.py"
            os.environ["PYTHONPATH"] = str(tree / "src")
            subprocess.run([sys.executable, str(script), "build", str(work)], check=True)
            children.append(Child("packed_cached", work, threads, script))
            works.append(work)
        for child in children:
            child.ready = child.read()
        losses = [child.ask("step")["loss"] for child in children]
        times: list[list[float]] = []
        for turn in range(rounds):
            order = (0, 1) if turn % 2 == 0 else (1, 0)
            took = {i: children[i].ask("step")["seconds"] for i in order}
            times.append([took[0], took[1]])
        for child in children:
            child.ask("end")
            child.process.kill()
            child.process.wait()
        new, old = (load_file(work / "packed_cached.safetensors") for work in works)
        gap = sum(float(((new[k].astype("float64") - old[k]) ** 2).sum()) for k in old)
        norm = sum(float((old[k].astype("float64") ** 2).sum()) for k in old)
    own, other = np.median(np.array(times), axis=0)
    return {
        "step_ratio_before": round(float(own / other), 4),
        "step_s": round(float(own), 4),
        "step_before_s": round(float(other), 4),
        "step_loss_gap": abs(losses[0] - losses[1]) / abs(losses[1]),
        "step_gradient_gap": (gap / norm) ** 0.5,
    }


def demo(tree: Path) -> float:
    """Seconds of the demo of a tree, from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
        environment |= {"PYTHONPATH": str(tree / "src"), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment |= {"CLINALIGN_CACHE": f"{folder}/cache"}
        code = "from clinalign.cli import main; main()"
        began = time.perf_counter()
        command = [sys.executable, "-c", code, "demo", "--out", f"{folder}/demo"]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - began


@contextmanager
def busy(count: int) -> Iterator[None]:
    """While open, that many processes have something to do."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def demos(before: Path, runs: int) -> dict[str, float]:
    """The demo alone, that of the earlier tree, in turn; then beside busy processes."""
    own, other = [], []
    for _ in range(runs):
        own.append(demo(ROOT))
        other.append(demo(before))
    with busy(BUSY):
        loaded = demo(ROOT)
    idle = float(np.median(own))
    return {
        "demo_idle_s": round(idle, 1),
        "demo_before_s": round(float(np.median(other)), 1),
        "demo_idle_ratio_before": round(idle / float(np.median(other)), 3),
        "demo_loaded_s": round(loaded, 1),
        "demo_loaded_ratio": round(loaded / idle, 2),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated, of: " + ", ".join(PARTS))
    parser.add_argument("--before", default=BEFORE, help="the commit to compare with")
    parser.add_argument("--shape", default="reference", help="shape of the step: " + ", ".join(SHAPES))
    parser.add_argument("--rounds", type=int, default=11, help="timed steps of either tree")
    parser.add_argument("--runs", type=int, default=1, help="demos of either tree")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads of the step")
    args = parser.parse_args()
    parts = args.parts.split(",")
    found: dict[str, Any] = {"machine": machine("cpu", args.threads), "before": args.before}
    found |= places() if "places" in parts else {}
    found |= store() if "store" in parts else {}
    if {"step", "demo"} & set(parts):
        with worktree(args.before) as before:
            found |= step(before, args.shape, args.rounds, args.threads) if "step" in parts else {}
            found |= demos(before, args.runs) if "demo" in parts else {}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
