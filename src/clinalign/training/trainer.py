"""Pairs into an adapter: checks, reference, estimate, the loop, and what is left on disk."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from clinalign.errors import RowError, UsageError
from clinalign.imaging.images import read_image
from clinalign.models import VLM
from clinalign.models.features import Features
from clinalign.models.memory import Shrinking
from clinalign.models.teachers import load_teacher
from clinalign.objectives import LossCoefficients
from clinalign.processes import count, join, rank, share, wait
from clinalign.progress import say
from clinalign.records import Pair
from clinalign.storage import Lock, Mapped, Quarantine, Rows, cache_folder, remove_parts
from clinalign.training.batches import ScoringPlan, plan_for
from clinalign.training.constants import check_loss
from clinalign.training.distill import Distill, new_projection
from clinalign.training.encode import Sample, encode_pair, with_mismatched
from clinalign.training.estimate import Estimate, estimate, measure
from clinalign.training.loop import TOO_LARGE, batch_at, fit, total_steps
from clinalign.training.metrics import check_trackers, early_warnings
from clinalign.training.options import TrainOptions, method_of, overruled
from clinalign.training.reference import Reference
from clinalign.training.result import TrainResult, finished, seconds_of, training_key, write_result
from clinalign.training.sharding import refusal, shard, unshard
from clinalign.training.step import PackedSteps
from clinalign.training.teacher import Teacher

FILLED = 32
"""Images that are encoded together for a cache."""


def train(
    vlm: VLM,
    pairs: Sequence[Pair],
    folder: Path,
    options: TrainOptions,
    out: Path,
    *,
    label: str,
    quarantine: Quarantine | None = None,
    seed: int = 0,
    reference: str = "base",
    stage: str = "",
    resume: bool = True,
) -> TrainResult:
    """Trains; writes `out/adapter/` (PEFT or, with `tune: full`, the language model's weights; and a model card),
    `out/metrics.jsonl` and checkpoints.

    Image paths are relative to `folder`. `seed` stands in for seeds that the options leave open. A model that was
    loaded with an adapter goes on training it; `reference` is then the "base" model or the adapter's "previous" state.
    With `resume`, a finished run is returned as it is and an interrupted one goes on where its last checkpoint was.

    A pair that cannot be used goes to the quarantine under `stage` (default `align:<label>`), or raises a `UsageError`
    where no quarantine is given. Everything that can be refused is refused before the first step, as a `UsageError`.
    """
    check_trackers(options.report_to)
    options = options.completed()
    check_trains(vlm, options)
    if text := overruled(options):
        raise UsageError(f"{label}: {text}")
    cached = cache_folder(options.cache) is not None
    quantize = getattr(vlm.model, "is_quantized", False)
    if text := refusal(options, method_of(options), unpacked=vlm.unpacked, quantize=quantize, cached=cached):
        raise UsageError(f"{label}: {text}")
    join(cpu=vlm.device.type == "cpu")
    sharded = options.parallel == "fsdp" and count() > 1
    if options.parallel == "fsdp" and not sharded:
        say(f"{label}: parallel=fsdp, but this is one process; there is nothing to share")
    seeds = (_or(options.seed_model, seed), _or(options.seed_data, seed))
    began = time.perf_counter()
    with Lock(out):
        if rank() == 0:
            remove_parts(out)
        features = _features(vlm, folder, options)
        samples, kept = _usable(vlm, pairs, features, options, label, quarantine, stage or f"align:{label}")
        steps = _steps(vlm, samples, features, options, reference)
        options = _budgeted(options, steps)
        _prepare(vlm, options, seeds[0], reference, steps, seeds[1])
        distill = _distill(vlm, features, kept, options, seeds[0])
        if distill is not None:
            steps.attach(distill)
        fingerprint = training_key(vlm, options, seeds, kept, features, reference, distill)
        done = finished(out, fingerprint) if resume else None
        if done:
            say(f"{label}: trained already, {done.steps} steps")
            return done
        _announce(vlm, options, steps, seeds[1])
        if sharded:
            shard(vlm)
        params = vlm.trainable()
        rows = fit(steps, params, options, out, label=label, seeds=seeds, fingerprint=fingerprint, resume=resume)
        if sharded:
            unshard(vlm)
        vlm.model.eval()
        features.flush()
        if rows:
            say(f"{label}: loss {rows[0]['loss']:.4f} at step 1, {rows[-1]['loss']:.4f} at step {rows[-1]['step']}")
        result = TrainResult(
            out / "adapter", total_steps(len(samples), options), out / "metrics.jsonl",
            seconds_of(began, rows), early_warnings(rows),
        )  # fmt: skip
        if rank() == 0:
            write_result(vlm, options, result, rows, fingerprint, _facts(vlm, options, label, seeds, kept, len(pairs)))
        return result


def _budgeted(options: TrainOptions, steps: PackedSteps) -> TrainOptions:
    """The options with the steps that `max_tokens` pays for, at the mean size of a pair."""
    if not options.max_tokens:
        return options
    paid = options.max_tokens * len(steps.sizes) / max(1, sum(steps.sizes)) / options.batch
    return options.model_copy(update={"max_steps": max(1, round(paid))})


def fill_caches(
    vlm: VLM, pairs: Sequence[Pair], folder: Path, options: Sequence[TrainOptions], *, reference: str = "base"
) -> int:
    """Fills the caches of image features and reference values for every pair and everything that trainings with these
    options will ask for, so that they compute neither. Returns how many records of the reference were computed.

    Numbers are those of one process in one order, whatever trains on them later, side by side or not.
    """
    shared: dict[str, TrainOptions] = {}
    for one in options:
        if cache_folder(one.cache) is None:
            raise UsageError("align.cache is off: what several trainings share has to lie in a folder")
        asked = [_plan(one), method_of(one).needs, method_of(one).text, one.empty_span, one.max_length, one.bf16]
        shared.setdefault(str(asked), one.model_copy(update={"cache_features": True}))
    most_first = sorted(shared.values(), key=lambda one: -sum(map(len, _plan(one).seen.values())))
    features, computed = _features(vlm, folder, most_first[0]), 0
    for one in most_first:
        samples, _ = _usable(vlm, pairs, features, one, "shared", Quarantine(folder / "unused"), "shared")
        steps = _steps(vlm, samples, features, one, reference)
        plan = replace(_plan(one), kl="answer") if steps.plan.kl != "none" else steps.plan
        _encode_images(features, plan.shown(samples))
        if plan.needs_reference and steps.reference is not None:
            computed += steps.reference.fill(samples, plan, batch_size=one.micro_batch or one.batch)
    features.flush()
    return computed


def _encode_images(features: Features, names: Sequence[str]) -> None:
    for start in range(0, len(names), FILLED):
        features.get(names[start : start + FILLED])


def _plan(options: TrainOptions) -> ScoringPlan:
    method = method_of(options)
    return plan_for(method, method.coefficients(_weights(options)), options.nll_on)


def _weights(options: TrainOptions) -> LossCoefficients:
    return LossCoefficients(options.beta, options.alpha, options.gamma, options.lam, options.nll, options.betas)


def _announce(vlm: VLM, options: TrainOptions, steps: PackedSteps, seed: int) -> None:
    """Makes the model ready to train, and says what trains and what it will cost."""
    vlm.model.train()
    if options.gradient_checkpointing:
        vlm.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if rank() == 0:
        say(vlm.trainable_table())
        if vlm.projection is not None:
            size = sum(p.numel() for p in vlm.projection.parameters())
            say(f"image projection before layer {vlm.projection.layers}: {size:,} trainable")
        params = vlm.trainable()
        shrink = Shrinking("align.micro_batch", TOO_LARGE)

        def tried(size: int) -> Estimate:
            smaller = options.model_copy(update={"micro_batch": size})
            return measure(estimate(vlm.model, params, steps.sizes, smaller, seed), steps, params, smaller, seed)

        if options.parallel == "fsdp" and count() > 1:  # tried by one process before there are shares, it may not fit
            say(str(estimate(vlm.model, params, steps.sizes, options, seed)))
        else:
            say(str(shrink(tried, options.micro_batch or options.batch)))


def _or(chosen: int | None, default: int) -> int:
    return default if chosen is None else chosen


def check_trains(vlm: VLM, options: TrainOptions) -> None:
    """`UsageError` for what a loaded model cannot train: in a type that rounds small steps away, or unpacked."""
    if vlm.dtype == torch.float16:
        raise UsageError("dtype=float16: small gradients vanish in it; train with dtype=bfloat16 or float32")
    if options.image_parts and vlm.dtype != torch.float32:
        parts = " and ".join(options.image_parts)
        raise UsageError(f"train={parts} in bfloat16 rounds small updates away; use dtype=float32 with align.bf16=true")
    if options.image_parts and vlm.unpacked:
        raise UsageError("train=projector or tower needs the packed forward; leave it out, or set unpacked=false")
    if options.tune == "full" and vlm.dtype != torch.float32:
        raise UsageError("tune=full in bfloat16 rounds small updates away; use dtype=float32 with align.bf16=true")


def _features(vlm: VLM, folder: Path, options: TrainOptions) -> Features:
    cache = cache_folder(options.cache)
    disk = cache / "features" if cache is not None and options.cache_features else None
    return Features(vlm, lambda key: read_image(folder / key), folder=disk)


def _usable(
    vlm: VLM,
    pairs: Sequence[Pair],
    features: Features,
    options: TrainOptions,
    label: str,
    quarantine: Quarantine | None,
    stage: str,
) -> tuple[Sequence[Sample], Sequence[Pair]]:
    """Pairs as tokens, those that cannot be used left out with their reason; both lie on disk."""
    if not pairs:
        raise UsageError(f"{label}: there are no pairs to train on; look into the quarantine of the stages before")
    samples: Rows[Sample] = Rows()
    kept: Rows[Pair] = Rows()
    first = ""
    for row, pair in enumerate(pairs, 1):
        try:
            samples.append(_encode(vlm, pair, features, options))
            kept.append(pair)
        except RowError as error:
            first = first or f"pair '{pair.id}' (row {row}): {error}"
            if quarantine is None:
                raise UsageError(f"{label}: {first}; take it out, or pass a quarantine") from error
            quarantine.add(
                stage, reason=error.reason, file="pairs", row=row, id=pair.id, field=error.field, detail=error.detail
            )
    if not samples:
        raise UsageError(f"{label}: none of the {len(pairs)} pairs can be used; the first: {first}")
    return samples, kept


def _encode(vlm: VLM, pair: Pair, features: Features, options: TrainOptions) -> Sample:
    corrupted, method = pair.corrupted_images, method_of(options)
    return encode_pair(
        vlm,
        pair,
        [features.grid(key) for key in pair.images],
        None if corrupted is None else [features.grid(key) for key in corrupted],
        text=method.text,
        empty_span=options.empty_span,
        max_length=options.max_length,
        needs=method.needs,
        views=tuple(method.views),
    )


def _steps(
    vlm: VLM, samples: Sequence[Sample], features: Features, options: TrainOptions, reference: str
) -> PackedSteps:
    method = method_of(options)
    weights = _weights(options)
    check_loss(options.method, method, method.coefficients(weights))
    if method.baseline:
        samples = with_mismatched(samples, options.max_length or vlm.max_positions)
    steps = PackedSteps(
        vlm, samples, method, weights, features, nll_on=options.nll_on, bf16=options.bf16, padding="right"
    )
    cache = cache_folder(options.cache)
    previous = reference == "previous" and (vlm.peft is not None or bool(vlm.image_base))
    if steps.plan.needs_reference and cache is None and (previous or options.tune == "full"):
        raise UsageError("cache=off needs an adapter to switch off: with tune=full or reference=previous set a cache")
    if steps.plan.needs_reference:
        steps.reference = Reference(vlm, features, cache, bf16=options.bf16, adapted=previous)
    return steps


def _prepare(vlm: VLM, options: TrainOptions, seed: int, reference: str, steps: PackedSteps, seed_data: int) -> None:
    """Fills the reference cache for the pairs that training will see, then makes the parameters trainable.

    Of several processes each computes its share of the records and, where they are kept on disk, of the images'
    features; behind that each reads what all wrote, a record by what is in it and never by its place.
    """
    if vlm.fine_tuned and (options.tune == "lora" or reference == "base"):
        raise UsageError("the model was loaded with fine-tuned weights: only tune=full, reference=previous can go on")
    number = len(steps.samples)
    total = min(total_steps(number, options), number)
    seen = sorted({i for step in range(total) for i in batch_at(step, number, options, seed_data)})
    if options.image_parts and not any(steps.plan.shown([steps.samples[i]]) for i in seen):
        parts = " and ".join(options.image_parts)
        raise UsageError(f"train={parts}: none of the {len(seen)} pairs shows an image; leave it out")
    on_cpu = vlm.device.type == "cpu"
    if steps.features.folder is not None and count() > 1 and not options.image_parts:
        names = {steps.features.digest(name): name for name in steps.plan.shown(steps.samples[i] for i in seen)}
        _encode_images(steps.features, share([names[digest] for digest in sorted(names)]))
        steps.features.flush()
        wait(cpu=on_cpu)
    if steps.plan.needs_reference and steps.reference is not None and steps.reference.folder is not None:
        mine = Mapped(share(seen), lambda i: steps.samples[i])
        plan = steps.reference_plan
        steps.reference.verify(mine, plan, seed=seed_data)
        fill, shrink = steps.reference.fill, Shrinking("align.micro_batch", TOO_LARGE)
        shrink(lambda size: fill(mine, plan, batch_size=size), options.micro_batch or options.batch)
        steps.reference.complete = options.parallel == "fsdp" and count() > 1
        wait(cpu=on_cpu)
    if options.tune == "full":
        vlm.unfreeze_language_model()
    elif vlm.peft is None and "language" in options.train:
        vlm.attach_lora(**options.lora.model_dump(), seed=seed)
    if options.image_parts:
        vlm.train_images(options.image_parts)


def _distill(vlm: VLM, features: Features, pairs: Sequence[Pair], options: TrainOptions, seed: int) -> Distill | None:
    """W and the teacher's targets, where the options ask for them. Each process looks at its share of the images."""
    chosen = options.distill
    if chosen is None:
        return None
    if vlm.unpacked:
        raise UsageError("align.distill reads layers of the packed forward; leave it out, or set unpacked=false")
    if not vlm.family.geometry:
        raise UsageError(
            f"align.distill: which pixels an image token stands for is not known of a {vlm.family.name} model; "
            "leave it out"
        )
    if vlm.projection is None:
        vlm.attach_projection(new_projection(vlm, chosen, seed))
    elif chosen.layers and vlm.projection.layers != sorted(set(chosen.layers)):
        raise UsageError(
            f"align.distill.layers: {chosen.layers}, but the loaded adapter projects before {vlm.projection.layers}"
        )
    teacher_model = load_teacher(chosen.teacher, device=vlm.device)
    teacher = Teacher(teacher_model, features.read, chosen, cache_folder(options.cache))
    shown = sorted({(key, pair.prompt) for pair in pairs for key in pair.images})
    teacher.prepare(share(shown) if teacher.folder is not None else shown)
    wait(cpu=vlm.device.type == "cpu")
    return Distill(vlm, features, teacher, chosen, {pair.id: pair.prompt for pair in pairs})


def _facts(
    vlm: VLM, options: TrainOptions, label: str, seeds: Sequence[int], pairs: Sequence[Pair], given: int
) -> dict[str, Any]:
    """What the model card says about a run, its outcome aside."""
    edits = Counter(pair.edit_kind for pair in pairs)
    data = {
        "pairs": len(pairs),
        "left out (see quarantine)": given - len(pairs),
        "examples": len({pair.example_id for pair in pairs}),
        "own answer already right": sum(pair.was_correct for pair in pairs),
        "with a corrupted image": sum(bool(pair.corrupted_images) for pair in pairs),
        "edits": ", ".join(f"{kind} {count}" for kind, count in sorted(edits.items())),
    }
    settings = {name: value for name, value in options.model_dump(mode="json").items() if name != "report_to"}
    settings = {name: value for name, value in settings.items() if name not in ("cache", "lora", "distill")}
    if options.distill:
        settings |= {f"distill.{name}": value for name, value in options.distill.model_dump(mode="json").items()}
    settings |= {"seed_model": seeds[0], "seed_data": seeds[1]}
    if options.tune == "lora":
        settings |= {f"lora.{name}": value for name, value in options.lora.model_dump().items()}
    base = {
        "base": vlm.name,
        "method": options.method,
        "tune": options.tune,
        "parts": options.train,
        "pairs": len(pairs),
    }
    return {"label": label, **base, "data": data, "settings": settings}
