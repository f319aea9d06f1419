"""Settings that do not go together, though each is a legal value; and the services, packages and files they name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

from clinalign.engine import check_engine
from clinalign.llm.options import LLMOptions
from clinalign.objectives import Method
from clinalign.preflight.finding import Finding, tried
from clinalign.processes import count, reachable
from clinalign.recipe import Recipe
from clinalign.storage import cache_folder
from clinalign.training.options import ReinforceOptions, TrainOptions, method_of, overruled


def setting_findings(recipe: Recipe) -> list[Finding]:
    """Methods against corruption, precision, cache and number of processes, for every system that is trained."""
    found = _rounds(recipe)
    systems = {label: recipe.system(label) for label in recipe.systems()}
    if recipe.warmup is not None:
        systems["warmup"] = recipe.warmup
    for label, options in systems.items():
        prefix = "align" if options is recipe.align else "warmup" if label == "warmup" else f"compare.{label}"
        method, refused = tried("training", f"{prefix}.method", partial(method_of, options))
        found += refused
        if method is None:
            continue
        if text := overruled(options):  # of a method of the user's own; for those of this package the recipe refuses it
            found += _refused("training", prefix, text)
        found += _precision(recipe, options, method, prefix)
        if options.reinforce is not None:
            continue
        found += _evidence(recipe, options, method, prefix) if label != "warmup" else []
        found += _processes(recipe, options, method, prefix)
    found += _own_metrics(recipe) + tried("engine", "engine.kind", partial(check_engine, recipe.engine))[1]
    if recipe.answer.engine == "vllm" and recipe.pair.editor != "dataset":
        from clinalign.models.served import check_served

        found += tried("engine", "answer.engine", partial(check_served, here=recipe.engine.kind == "local"))[1]
    return found


def _own_metrics(recipe: Recipe) -> list[Finding]:
    """Metrics of one's own can be imported."""
    from clinalign.evaluation.metrics import own_metrics

    return tried("metrics", "evaluate.metrics", lambda: own_metrics(recipe.evaluate.metrics))[1]


def _refused(subject: str, field: str, text: str) -> list[Finding]:
    return [Finding("refused", subject, field, text)]


def _rounds(recipe: Recipe) -> list[Finding]:
    if recipe.rounds > 1 and recipe.align.tune == "full" and recipe.reference == "base":
        text = "rounds after the first start from fine-tuned weights, which hold no base; set reference=previous"
        return _refused("training", "reference", text)
    return []


def _precision(recipe: Recipe, options: TrainOptions, method: Method, prefix: str) -> list[Finding]:
    """As `training.trainer` refuses it once the model is loaded."""
    found: list[Finding] = []
    if recipe.dtype == "float16":
        found += _refused("training", "dtype", "float16: small gradients vanish in it; train with bfloat16 or float32")
    if options.tune == "full" and recipe.dtype != "float32":
        text = f"full in {recipe.dtype} rounds small updates away; use dtype=float32 with {prefix}.bf16=true"
        found += _refused("training", f"{prefix}.tune", text)
    if options.image_parts and recipe.dtype != "float32":
        text = f"{' and '.join(options.image_parts)} in {recipe.dtype} round small updates away; use dtype=float32"
        found += _refused("training", f"{prefix}.train", text)
    if options.tune == "full" and recipe.quantize != "none":
        found += _refused(
            "training", f"{prefix}.tune", "full cannot train 4-bit weights; use tune=lora or quantize=none"
        )
    if method.compares and options.tune == "full" and cache_folder(options.cache) is None:
        text = "off needs an adapter to switch off; set a folder, or tune=lora"
        found += _refused("training", f"{prefix}.cache", text)
    return found


def _evidence(recipe: Recipe, options: TrainOptions, method: Method, prefix: str) -> list[Finding]:
    """A method that compares an image with its corrupted copy needs one."""
    weight = method.fixed.get("gamma", options.gamma)
    if not method.corrupt or not weight or recipe.corrupt.kind != "none":
        return []
    text = (
        f"{options.method} compares each image with its corrupted copy, and corrupt.kind none makes none; set "
        f"corrupt.kind=noise, or {prefix}.method=no_visual"
    )
    return _refused("training", f"{prefix}.method", text)


def _processes(recipe: Recipe, options: TrainOptions, method: Method, prefix: str) -> list[Finding]:
    """As `training.trainer` refuses it once the model is loaded."""
    from clinalign.training.sharding import refusal

    quantize, cached = recipe.quantize != "none", cache_folder(options.cache) is not None
    if text := refusal(options, method, unpacked=recipe.unpacked, quantize=quantize, cached=cached):
        return _refused("training", f"{prefix}.parallel", text)
    if options.batch < count():
        text = f"{options.batch} is smaller than the {count()} processes; raise it"
        return _refused("training", f"{prefix}.batch", text)
    if not reachable():
        text = f"WORLD_SIZE={count()} without MASTER_ADDR: no launcher started this; unset it, or start with torchrun"
        return _refused("training", f"{prefix}.batch", text)
    return []


LONGEST_WAIT_S = 10.0


def service_findings(recipe: Recipe, done: frozenset[str]) -> list[Finding]:
    """Each service that the recipe names, tried. One whose stage is `done` is not needed any more."""
    found = []
    if recipe.pair.editor in ("llm", "replay"):
        replay = recipe.pair.replay if recipe.pair.editor == "replay" else ""
        if "pair" not in done:
            found += _ready("editor", "pair.llm", lambda: _endpoint(recipe.pair.llm, replay))
    if recipe.evaluate.judge != "rules" and "evaluate" not in done:
        found += _ready("judge", "evaluate.llm", lambda: _endpoint(recipe.evaluate.llm, recipe.evaluate.replay))
    if recipe.corrupt.segmenter and recipe.corrupt.kind != "none":
        found += _ready("segmenter", "corrupt.segmenter", lambda: _segmenter(recipe))
    if recipe.pair.decisions:
        found += _ready("decisions", "pair.decisions", lambda: _decisions(recipe))
    return found + _teachers(recipe) + _policies(recipe) + _trackers(recipe) + _metrics(recipe)


def _ready(subject: str, field: str, call: Callable[[], str]) -> list[Finding]:
    text, refused = tried(subject, field, call)
    return refused or [Finding("ready", subject, field, str(text))]


def _endpoint(options: LLMOptions, replay: str) -> str:
    from clinalign.llm import Client

    hurried = options.model_copy(update={"timeout_s": min(options.timeout_s, LONGEST_WAIT_S)})
    with Client(hurried, replay=replay) as client:
        return client.check()


def _segmenter(recipe: Recipe) -> str:
    from clinalign.models.segmenter import load_segmenter

    options = recipe.corrupt
    segmenter = load_segmenter(options.segmenter, adapter=options.segmenter_adapter, dtype=recipe.dtype)
    return f"{options.segmenter}: {segmenter.kind}, asked with a {segmenter.prompt}"


def _decisions(recipe: Recipe) -> str:
    from clinalign.pairs.decisions import read_decisions

    return f"{len(read_decisions(Path(recipe.pair.decisions)))} in {recipe.pair.decisions}"


def _teachers(recipe: Recipe) -> list[Finding]:
    from clinalign.models.teachers import load_teacher

    found: list[Finding] = []
    for label in recipe.systems():
        options = recipe.system(label)
        if options.distill is None:
            continue
        name = options.distill.teacher
        field = "align.distill.teacher" if options is recipe.align else f"compare.{label}.distill.teacher"
        teacher_model, refused = tried("teacher", field, lambda name=name: load_teacher(name))  # type: ignore[misc]
        found += refused
        if teacher_model is not None:
            found.append(
                Finding("ready", "teacher", field, f"{name}: {teacher_model.grid[0]} x {teacher_model.grid[1]} patches")
            )
    return found


def _policies(recipe: Recipe) -> list[Finding]:
    """What reinforcement needs: packages, own rewards, an expert with a text encoder."""
    from clinalign.folder import device_of
    from clinalign.models.expert import load_expert
    from clinalign.training.reinforce import check_reinforce

    found: list[Finding] = []
    for label in recipe.systems():
        options = recipe.system(label).reinforce
        if options is None:
            continue
        field = "align.reinforce" if label not in recipe.compare else f"compare.{label}.reinforce"
        device = device_of(recipe.device)

        def ready(options: ReinforceOptions = options, device: str = device) -> str:
            check_reinforce(options, device)
            if options.visual is not None:
                load_expert(options.expert)
            return f"TRL's GRPO, sampling by {options.engine}, expert {options.expert}"

        found += _ready("policy", field, ready)
    return found


def _trackers(recipe: Recipe) -> list[Finding]:
    from clinalign.training.metrics import check_trackers

    found: list[Finding] = []
    for label in recipe.systems():
        options = recipe.system(label)
        field = "align.report_to" if options is recipe.align else f"compare.{label}.report_to"
        found += tried("tracker", field, lambda names=options.report_to: check_trackers(names))[1]  # type: ignore[misc]
    return found


def _metrics(recipe: Recipe) -> list[Finding]:
    if not recipe.evaluate.external or importlib.util.find_spec("radeval") is not None:
        return []
    text = (
        f"{', '.join(recipe.evaluate.external)} will not run: radeval is not installed; pip install 'clinalign[eval]'"
    )
    return [Finding("warning", "metrics", "evaluate.external", text)]
