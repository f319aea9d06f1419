"""What a training will take, tried on this machine with some of its pairs: nothing is kept but the numbers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clinalign.models import VLM
from clinalign.models.features import Features
from clinalign.records import Example, Pair
from clinalign.storage import Quarantine
from clinalign.training.encode import truth_pairs
from clinalign.training.estimate import Estimate, estimate, measure
from clinalign.training.loop import batch_at, total_steps
from clinalign.training.options import TrainOptions
from clinalign.training.step import PackedSteps
from clinalign.training.trainer import _budgeted, _features, _prepare, _steps, _usable

TRIED = 16
"""Pairs whose images are encoded and whose reference values are computed for a trial."""


def try_training(
    vlm: VLM, pairs: Sequence[Pair], folder: Path, options: TrainOptions, *, count: int = 0, seed: int = 0
) -> Estimate:
    """The estimate of a training on `count` pairs like these (0: on these), its seconds by start, images, reference and
    steps. The model gets the adapter that it would train, and is not trained.

    The start is what a training does before its first step as this does: its pairs are read, the adapter is made, and
    its largest and smallest micro-batch are tried."""
    with tempfile.TemporaryDirectory() as place:
        options = options.completed().model_copy(update={"cache": place})
        features = _features(vlm, folder, options)
        quarantine = Quarantine(Path(place) / "quarantine.jsonl")
        began = time.perf_counter()
        samples, _ = _usable(vlm, pairs, features, options, "check", quarantine, "check")
        reading = time.perf_counter() - began
        steps = _steps(vlm, samples, features, options, "base")
        options = _budgeted(options, steps)
        an_image, a_reference = _before_steps(steps, features, options)
        nothing = replace(steps.plan, reference_free=True)
        began = time.perf_counter()
        kept, steps.plan = steps.plan, nothing  # the reference of these pairs alone is looked at
        _prepare(vlm, options, seed, "base", steps, seed)
        steps.plan = kept
        vlm.model.train()
        if options.gradient_checkpointing:
            vlm.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        params = vlm.trainable()
        found = measure(estimate(vlm.model, params, steps.sizes, options, seed), steps, params, options, seed)
        trying = time.perf_counter() - began
        count = count or len(samples)
        distinct = {key for sample in samples for key in (*sample.images, *(sample.corrupted or ()))}
        seen = min(count, total_steps(count, options) * options.batch)
        parts = {
            "start": reading * count / len(samples) + trying,
            "images": an_image * len(distinct) / len(samples) * seen,
            "reference": a_reference * seen,
            "steps": found.parts["steps"] * total_steps(count, options) / total_steps(len(samples), options),
        }
    return replace(found, seconds=sum(parts.values()), parts=parts)


def _before_steps(steps: PackedSteps, features: Features, options: TrainOptions) -> tuple[float, float]:
    """Seconds of an image's features and of a pair's reference values, with what is slow once left out; the pairs are
    those of the first steps, so that their values are there when steps are tried."""
    count = len(steps.samples)
    looked = range(min(total_steps(count, options), 1 + TRIED // options.batch))
    first = list(dict.fromkeys(i for step in looked for i in batch_at(step, count, options, 0)))[:TRIED]
    some = [steps.samples[i] for i in first]
    shown = list(dict.fromkeys(n for s in some for view in steps.plan.seen for n in steps.plan.images(s, view) or ()))
    features.get(shown[:1])
    began = time.perf_counter()
    features.get(shown)
    an_image = (time.perf_counter() - began) / max(1, len(shown) - 1)
    if not steps.plan.needs_reference or steps.reference is None:
        return an_image, 0.0
    plan, size = steps.reference_plan, options.micro_batch or options.batch
    steps.reference.fill(some[:1], plan)
    began = time.perf_counter()
    steps.reference.fill(some[1:], plan, batch_size=size)
    return an_image, (time.perf_counter() - began) / max(1, len(some) - 1)


def stand_ins(vlm: VLM, examples: Sequence[Example]) -> list[Pair]:
    """Pairs before there are any, of the size that answers like the truth would give: chosen is the truth, rejected a
    word and the truth, and every other image that a method may ask for is the image itself."""

    def ids(text: str) -> list[int]:
        return [*vlm.tokenizer(text, add_special_tokens=False)["input_ids"], vlm.end_id]

    pairs = []
    for pair in truth_pairs(examples, vlm.tokenizer, vlm.end_id):
        other = f"Not {pair.chosen}"
        pairs.append(
            replace(
                pair,
                rejected=other,
                rejected_token_ids=ids(other),
                rejected_spans=[[0, 3]],
                corrupted_images=list(pair.images) or None,
                ladder_images=[list(pair.images)] * 2 if pair.images else [],
                corrupted_answer=other,
                corrupted_answer_token_ids=ids(other),
                corrupted_answer_spans=[[0, 3]],
            )
        )
    return pairs
