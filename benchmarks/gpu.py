"""What a card does with this library, in one command, without network or hub: random weights at the shape of
Qwen3-VL-4B.

    python benchmarks/gpu.py --out F [--minutes 7] [--parts environment,parity,step] [--shape tiny --device cpu]

Parts, the most telling first (`steps/card*.py`): the environment; packed scoring equal to separate passes in fp32 and
bf16 at full width and few layers; a FiRe-MPO step in time and peak memory, cached and not, against the published form
(checkpointed) and TRL's DPO, with its share of the card's peak against the bound of `flops.py`; attention kernels for
packed rows; answers and margins a second; decoders against greedy. F is written anew, atomically, after every number,
so that a run that is cut leaves what it had. A part for which no time is left says so. `--shape tiny` runs every
line of it on a CPU. Exit code 1 where a part failed; what does not fit into memory is a result and no failure.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "steps"), str(HERE)]


def all_parts() -> dict[str, Callable[[Any], Iterator[tuple[str, Any]]]]:
    """The parts in the order in which they run."""
    from card_answering import attention, decoders, speed
    from card_training import SIZES, parity, step
    from device_card import environment

    return {
        "environment": environment,
        "parity": parity,
        "step": step,
        "attention": attention,
        "speed": speed,
        "decoders": decoders,
        "more_steps": lambda card: step(card, () if card.tiny else SIZES[2:]),
    }


def measure(card: Any, parts: Mapping[str, Callable[[Any], Iterator[tuple[str, Any]]]], out: Path) -> dict[str, Any]:
    """Runs the parts in order and keeps F up to date. A part's failure is its own."""
    from clinalign.storage import write_json

    result: dict[str, Any] = {"shape": card.name, "device": card.device, "parts": {}}
    for name, part in parts.items():
        found: dict[str, Any] = {}
        result["parts"][name] = found
        began = time.monotonic()
        if card.left() < 0:
            found["skipped"] = "no time left"
        try:
            for key, value in part(card) if card.left() >= 0 else ():
                found[key] = value
                found["minutes"] = round((time.monotonic() - began) / 60, 2)
                write_json(out, result | summary(result["parts"]))
                print(f"{name}.{key}: {json.dumps(value)[:200]}", flush=True)
        except Exception as error:
            found["error"] = "".join(traceback.format_exception(error))[-3000:]
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        gc.collect()
        card.empty()
        result |= summary(result["parts"])
        write_json(out, result)
    return result


def summary(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The few numbers that are quoted, of the first shape of `step` where several were measured."""
    found: dict[str, Any] = {"card": parts.get("environment", {}).get("card", {}).get("name", "")}
    step = next((value for value in parts.get("step", {}).values() if isinstance(value, dict)), {})
    variants = step.get("variants", {})
    for name in ("packed_cached", "packed", "published_checkpointed", "trl", "dpo"):
        if "seconds" in variants.get(name, {}):
            found[f"{name}_seconds"] = variants[name]["seconds"]["median"]
            found[f"{name}_peak_gb"] = variants[name]["peak_gb"]
    for label, slow, fast in (
        ("speedup_vs_published", "published_checkpointed", "packed"),
        ("speedup_vs_published_cached", "published_checkpointed", "packed_cached"),
        ("speedup_vs_trl", "trl", "dpo"),
    ):
        if {f"{slow}_seconds", f"{fast}_seconds"} <= found.keys():
            found[label] = round(found[f"{slow}_seconds"] / found[f"{fast}_seconds"], 2)
    found |= {key: step[key] for key in ("utilisation",) if key in step}
    return found | {"failed": [name for name, part in parts.items() if "error" in part]}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--shape", default="qwen3_vl_4b", choices=("qwen3_vl_4b", "tiny"))
    parser.add_argument("--device", default="cuda", help="cuda, or cpu with --shape tiny")
    parser.add_argument("--parts", default="", help="comma-separated; empty: all")
    parser.add_argument("--minutes", type=float, default=7.0, help="no part begins, and no round, after so many")
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of every variant")
    given = parser.parse_args()
    started = time.monotonic()

    given.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        import torch
        from device_card import Card

        known = all_parts()
    except Exception:  # a broken torchvision, say: the file says so
        given.out.write_text(json.dumps({"failed": ["imports"], "error": traceback.format_exc()[-3000:]}) + "\n")
        raise
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device; install torch's CUDA build, or use --shape tiny --device cpu")
    names = given.parts.split(",") if given.parts else list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"--parts: {unknown[0]}: use some of {', '.join(known)}")
    with tempfile.TemporaryDirectory() as folder:
        card = Card(given.shape, given.device, Path(folder), started + 60 * given.minutes, given.rounds)
        result = measure(card, {name: known[name] for name in names}, given.out)
    print(json.dumps({key: value for key, value in result.items() if key != "parts"}))
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
