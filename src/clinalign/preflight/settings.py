"""Settings that do not go together, though each is a legal value."""

from __future__ import annotations

import os

from clinalign.preflight.finding import Finding
from clinalign.recipe import Recipe
from clinalign.storage import cache_folder
from clinalign.training.options import TrainOptions


def setting_findings(recipe: Recipe) -> list[Finding]:
    """Methods against corruption, precision, cache and number of processes, for every system that is trained."""
    found = _rounds(recipe)
    systems = {label: recipe.system(label) for label in recipe.systems()}
    if recipe.warmup is not None:
        systems["warmup"] = recipe.warmup
    for label, options in systems.items():
        prefix = "align" if options is recipe.align else "warmup" if label == "warmup" else f"compare.{label}"
        found += _precision(recipe, options, prefix)
        found += _evidence(recipe, options, prefix) if label != "warmup" else []
        found += _processes(options, prefix)
    return found


def _refused(subject: str, field: str, text: str) -> list[Finding]:
    return [Finding("refused", subject, field, text)]


def _rounds(recipe: Recipe) -> list[Finding]:
    if recipe.rounds > 1 and recipe.align.tune == "full" and recipe.reference == "base":
        text = "rounds after the first start from fine-tuned weights, which hold no base; set reference=previous"
        return _refused("training", "reference", text)
    return []


def _precision(recipe: Recipe, options: TrainOptions, prefix: str) -> list[Finding]:
    """As `training.trainer` refuses it once the model is loaded."""
    found: list[Finding] = []
    if recipe.dtype == "float16":
        found += _refused("training", "dtype", "float16: small gradients vanish in it; train with bfloat16 or float32")
    if options.tune == "full" and recipe.dtype != "float32":
        text = f"full in {recipe.dtype} rounds small updates away; use dtype=float32 with {prefix}.bf16=true"
        found += _refused("training", f"{prefix}.tune", text)
    if options.tune == "full" and recipe.quantize != "none":
        found += _refused(
            "training", f"{prefix}.tune", "full cannot train 4-bit weights; use tune=lora or quantize=none"
        )
    from clinalign.objectives import METHODS

    method = METHODS[options.method]
    if method.compares and options.tune == "full" and cache_folder(options.cache) is None:
        text = "off needs an adapter to switch off; set a folder, or tune=lora"
        found += _refused("training", f"{prefix}.cache", text)
    return found


def _evidence(recipe: Recipe, options: TrainOptions, prefix: str) -> list[Finding]:
    """A method that compares an image with its corrupted copy needs one."""
    from clinalign.objectives import METHODS

    method = METHODS[options.method]
    weight = method.fixed.get("gamma", options.gamma)
    if not method.corrupt or not weight or recipe.corrupt.kind != "none":
        return []
    text = (
        f"{options.method} compares each image with its corrupted copy, and corrupt.kind none makes none; set "
        f"corrupt.kind=noise, or {prefix}.method=no_visual"
    )
    return _refused("training", f"{prefix}.method", text)


def _processes(options: TrainOptions, prefix: str) -> list[Finding]:
    count = int(os.environ.get("WORLD_SIZE", "1") or 1)
    if options.batch >= count:
        return []
    return _refused("training", f"{prefix}.batch", f"{options.batch} is smaller than the {count} processes; raise it")
