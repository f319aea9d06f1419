"""One decoder of `../decoders.py`: `decoding.py NAME FOLDER`, driven by the words `step`, `check` and `end`."""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llava import build_llava, words

from clinalign.decoding import decode
from clinalign.decoding.cai import calibrate
from clinalign.decoding.decoders import function_of
from clinalign.decoding.loop import start
from clinalign.decoding.options import DECODERS
from clinalign.models import load_vlm


def say(**values: Any) -> None:
    """One answer to the parent."""
    print("@" + json.dumps(values), flush=True)


def resident_mb(peak: bool) -> float:
    """Resident memory of this process, now or at its highest."""
    if peak:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def asked(shape: dict[str, Any], count: int) -> list[Any]:
    """Prompts of random words, each with a picture of noise."""
    rng = np.random.default_rng(0)
    side = shape["image_size"]
    return [
        (
            words(rng.integers(5, shape["vocab"], shape["prompt"]).tolist()),
            [rng.integers(0, 256, (side, side, 3), np.uint8)],
        )
        for _ in range(count)
    ]


def build(folder: Path, shape: dict[str, Any]) -> None:
    """The model's folder, and CAI's calibration of it."""
    keys = ("vision", "language", "vocab", "image_size", "patch")
    made = build_llava(folder / "model", **{k: tuple(v) if isinstance(v := shape[k], list) else v for k in keys})
    pictures = [images[0] for _, images in asked(shape, 10)]
    texts = [text for text, _ in asked(shape, 10)]
    calibrate(load_vlm(str(made)), pictures, texts, captions=texts[:2]).save(folder / "cai.safetensors")


def check(vlm: Any, name: str, shape: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Whether neutral settings give greedy's tokens, and how far the scores at default settings are from the clean."""
    prompts, tokens = asked(shape, 2), shape["neutral_tokens"]
    expected = [a.token_ids for a in decode(vlm, prompts, "greedy", max_new_tokens=tokens)]
    same = all(
        [a.token_ids for a in decode(vlm, prompts, options_of(name, folder, neutral), max_new_tokens=tokens)]
        == expected
        for neutral in shape["neutral"].get(name, [])
    )
    with torch.no_grad(), vlm.evaluating():
        batch = start(vlm, prompts)
        options, plain = options_of(name, folder, {}), DECODERS["greedy"]()
        clean = next(function_of(plain)(batch, plain)).log_softmax(-1)
        steps = function_of(options)(batch, options)
        next(steps)
        # From the second token on every decoder differs, M3ID included.
        scores = steps.send(clean.argmax(-1)).log_softmax(-1)
        again = function_of(plain)(batch, plain)
        next(again)
        clean = again.send(clean.argmax(-1)).log_softmax(-1)
        steps.close(), again.close()
    gap = float((scores - clean)[scores > -torch.inf].abs().max())
    return {"neutral_identical": same, "gap": gap, "tokens": min(map(len, expected))}


def options_of(name: str, folder: Path, given: dict[str, Any]) -> Any:
    """A decoder's options; CAI's calibration is the one built here."""
    more = {"calibration": str(folder / "cai.safetensors")} if name == "cai" else {}
    return DECODERS[name](**more, **given)


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    shape = json.loads((folder / "shape.json").read_text())
    torch.manual_seed(0)
    if name == "build":
        build(folder, shape)
        return
    vlm = load_vlm(str(folder / "model"))
    with torch.no_grad():
        vlm.head.weight[vlm.eos_ids] = 0.0
    prompts, options = asked(shape, shape["batch"]), options_of(name, folder, {})
    vlm.image_features([images[0] for _, images in prompts])
    gc.collect()
    say(loaded_mb=resident_mb(False))
    for line in sys.stdin:
        word = line.strip()
        if word == "step":
            began, cpu = time.perf_counter(), time.process_time()
            out = decode(vlm, prompts, options, max_new_tokens=shape["tokens"], batch_size=len(prompts))
            say(seconds=time.perf_counter() - began, cpu_seconds=time.process_time() - cpu,
                tokens=sum(len(a.token_ids) for a in out))  # fmt: skip
        elif word == "check":
            say(**check(vlm, name, shape, folder))
        else:
            say(peak_mb=resident_mb(True))
            return


if __name__ == "__main__":
    main()
