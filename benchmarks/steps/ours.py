"""The library's own variants of the step benchmark: packed, with and without the reference and feature caches."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from child import Meter, corpus, image_ids, randomise, serve
from llava import words
from torch import Tensor

from clinalign.models import VLM, load_vlm
from clinalign.models.features import Features
from clinalign.objectives import METHODS, LossCoefficients
from clinalign.training.encode import Sample
from clinalign.training.reference import Reference
from clinalign.training.step import PackedSteps


def run_ours(variant: str, work: Path, shape: dict[str, Any], meter: Meter) -> None:
    """`packed`, `packed_cached` (FiRe-MPO), `dpo`, `dpo_cached` (clean images only)."""
    vlm = load_vlm(str(work / "model"), device=shape["device"], dtype=shape["dtype"])
    vlm.attach_lora(**shape["lora"])
    params = randomise(vlm.model.named_parameters())
    vlm.model.train()
    step, build = stepper(variant, vlm, corpus(shape), work / "cache", shape)
    loaded = meter.loaded_mb()
    serve(step, params, work / f"{variant}.safetensors", meter, loaded, build())


def stepper(
    variant: str, vlm: VLM, rows: list[dict[str, Any]], cache: Path, shape: dict[str, Any]
) -> tuple[Callable[[int], Tensor], Callable[[], float]]:
    """`step(i)`: the loss of batch `i`, gradients left in the adapter; `build()` fills a cached variant's caches and
    gives its seconds."""
    pictures = {f"{i}{view}": row[view] for i, row in enumerate(rows) for view in ("clean", "corrupt")}
    features = Features(vlm, pictures.__getitem__)
    cached = variant.endswith("_cached")
    steps = PackedSteps(
        vlm,
        samples(vlm, rows, features, shape),
        METHODS["dpo" if variant.startswith("dpo") else "firempo"],
        LossCoefficients(),
        features,
        Reference(vlm, features, cache if cached else None),
    )

    def build() -> float:
        began = time.perf_counter()
        if cached:
            steps.reference.fill(steps.samples, steps.plan, batch_size=shape["batch"])
        return time.perf_counter() - began if cached else 0.0

    def step(i: int) -> Tensor:
        if not cached:
            features.memory.clear()  # every step encodes its images, once for policy and reference
        first = i * shape["batch"] % len(rows)
        losses = []
        for start in range(first, first + shape["batch"], shape["micro"]):
            loss, _ = steps.loss(range(start, start + shape["micro"]))
            (loss * shape["micro"] / shape["batch"]).backward()
            losses.append(loss.detach())
        return torch.stack(losses).mean()

    return step, build


def samples(vlm: VLM, rows: list[dict[str, Any]], features: Features, shape: dict[str, Any]) -> list[Sample]:
    """The corpus as the trainer holds it."""
    found = []
    for i, row in enumerate(rows):
        start, end = row["span"]
        spans = [start <= k < end for k in range(len(row["chosen"]))]
        grids = [features.grid(f"{i}clean")]
        prompt = vlm.expand(words(row["prompt"]), grids)
        assert prompt == image_ids(shape) + row["prompt"], "the library and the baselines see the same tokens"
        found.append(
            Sample(
                id=f"{i}", example_id=f"{i}", prompt=prompt, grids=grids, images=[f"{i}clean"],
                answers={side: row[side] for side in ("chosen", "rejected")},
                spans={side: list(spans) for side in ("chosen", "rejected")}, corrupted=[f"{i}corrupt"],
            )
        )  # fmt: skip
    return found
