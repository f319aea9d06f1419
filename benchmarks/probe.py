"""Attention rows beside the fast kernel against whole eager maps: are they equal, and what do they cost?

    python benchmarks/probe.py --out results/probe.json

Writes `max_error` (largest difference of any attention weight, over one head per key and grouped heads, padded and not)
and `memory_ratio`: the peak of live tensors in a whole forward of 600 tokens through 32 layers with the probe, over
that of the eager route that returns every map; the worse of both kinds of heads. `added_ratio` is the same for what
either route adds to a plain forward. The shape "7B" has the proportions of a 7B model, 128 units a head and a wide MLP:
there the plain forward alone is more than a twentieth of the eager peak.
"""

from __future__ import annotations

import argparse
import json
import platform
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from clinalign.models.attention import REQUEST, AttentionRequest, Probe, install

TOKENS, LAYERS, VOCABULARY = 600, 32, 100
SHAPES = {
    "heads": {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8, "num_key_value_heads": 8},
    "grouped": {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8, "num_key_value_heads": 2},
    "7B": {"hidden_size": 512, "intermediate_size": 1376, "num_attention_heads": 4, "num_key_value_heads": 4},
}


def build(shape: dict[str, int], layers: int) -> Any:
    """A decoder with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(num_hidden_layers=layers, vocab_size=VOCABULARY, max_position_embeddings=TOKENS + 100, **shape)
    return LlamaModel(config).eval().requires_grad_(False)


def visible(tokens: int, padding: list[int]) -> Tensor:
    """bool [B, 1, tokens, tokens]: causal, padding on the left hidden; a hidden token sees itself."""
    seen = torch.arange(tokens) >= torch.tensor(padding)[:, None]
    causal = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    return (seen[:, None, None, :] & causal) | torch.eye(tokens, dtype=torch.bool)


@torch.no_grad()
def rows(model: Any, ids: Tensor, mask: Tensor, queries: Tensor) -> Any:
    """Attention of the queries by layer, from the probe."""
    found = Probe(queries)
    remove = install(model)
    model(input_ids=ids, attention_mask=mask, use_cache=False, **{REQUEST: AttentionRequest(probe=found)})
    remove()
    return found


@torch.no_grad()
def maps(model: Any, ids: Tensor, mask: Tensor) -> Any:
    """Every map of every layer, from the eager kernel."""
    model.set_attn_implementation("eager")
    additive = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    return model(input_ids=ids, attention_mask=additive, use_cache=False, output_attentions=True).attentions


@torch.no_grad()
def plain(model: Any, ids: Tensor, mask: Tensor) -> Any:
    """No attention at all comes out."""
    model.set_attn_implementation("sdpa")
    return model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state


def error(shape: dict[str, int], padding: list[int], tokens: int = 96, layers: int = 4) -> float:
    """Largest difference of the probed rows from the rows of the eager maps."""
    model = build(shape, layers)
    ids = torch.randint(VOCABULARY, (len(padding), tokens), generator=torch.Generator().manual_seed(1))
    mask, queries = visible(tokens, padding), torch.tensor([[tokens - 1, tokens - 7]] * len(padding))
    found, whole = rows(model, ids, mask, queries), maps(model, ids, mask)
    batch = torch.arange(len(padding))[:, None]
    return max(
        float((found[n].transpose(1, 2) - full.transpose(1, 2)[batch, queries]).abs().max())
        for n, full in enumerate(whole)
    )


def peak_bytes(work: Callable[[], Any]) -> int:
    """Highest sum of live tensor memory during `work` and while its result is held, above what was there before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        held = work()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = highest = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        level += event.nbytes()
        highest = max(highest, level)
    del held
    return highest


def memory(shape: dict[str, int]) -> dict[str, float]:
    """Peaks in MB of the three routes on one prompt, and their ratios."""
    model = build(shape, LAYERS)
    ids = torch.randint(VOCABULARY, (1, TOKENS), generator=torch.Generator().manual_seed(1))
    mask = visible(TOKENS, [0])
    peaks = {
        "plain": peak_bytes(lambda: plain(model, ids, mask)),
        "probe": peak_bytes(lambda: rows(model, ids, mask, torch.tensor([[TOKENS - 1]]))),
        "eager": peak_bytes(lambda: maps(model, ids, mask)),
    }
    return {f"{name}_mb": round(peak / 1e6, 2) for name, peak in peaks.items()} | {
        "ratio": peaks["probe"] / peaks["eager"],
        "added_ratio": (peaks["probe"] - peaks["plain"]) / (peaks["eager"] - peaks["plain"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    errors = {
        f"{heads}, {'padded' if any(padding) else 'not padded'}": error(SHAPES[heads], padding)
        for heads in ("heads", "grouped")
        for padding in ([0, 0], [0, 17])
    }
    shapes = {name: memory(shape) for name, shape in SHAPES.items()}
    result = {
        "max_error": max(errors.values()),
        "memory_ratio": max(shapes[name]["ratio"] for name in ("heads", "grouped")),
        "added_ratio": max(found["added_ratio"] for found in shapes.values()),
        "errors": errors,
        "shapes": shapes,
        "tokens": TOKENS,
        "layers": LAYERS,
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("torch", "transformers")} | {"python": platform.python_version()},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
