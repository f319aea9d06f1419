"""One system's outcomes on one set of examples: clean answers, answers without the image, margins without evidence."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import clinalign
from clinalign.errors import RowError, UsageError
from clinalign.evaluation.answer_pairs import Choices
from clinalign.evaluation.answering import answers
from clinalign.evaluation.calibration import with_probability
from clinalign.evaluation.causal import can_flip, flip_outcomes
from clinalign.evaluation.found import Found
from clinalign.evaluation.grounding import CONDITION as ATTENTION
from clinalign.evaluation.grounding import grounding_outcomes
from clinalign.evaluation.judge import judged
from clinalign.evaluation.llm_judge import rejudged
from clinalign.evaluation.options import EvaluationOptions
from clinalign.evaluation.reliance import find_donors, stable, without_image
from clinalign.evaluation.vqa import patient, yes_no
from clinalign.imaging.images import content_name, read_image
from clinalign.language.substitution import values_of
from clinalign.llm import Client
from clinalign.models.memory import Shrinking
from clinalign.progress import say
from clinalign.records import Example, Outcome
from clinalign.storage import Journal, Quarantine, named_files, to_row

STAGE = "evaluate"


def evaluate(
    vlm: Any,
    examples: list[Example],
    folder: Path,
    options: EvaluationOptions,
    *,
    system: str,
    seed: int = 0,
    journal: Journal | None = None,
    quarantine: Quarantine | None = None,
) -> list[Outcome]:
    """Outcomes of `system`, condition by condition, each in the order of `examples`.

    Examples whose image cannot be read go to the quarantine. With a journal (rows of any system) a killed evaluation
    goes on where it was, as far as model, options and content are still those that its rows were made with; batches are
    the same for any order of the examples and any interruption.
    """
    if options.grounding and not (vlm.functions.known and vlm.functions.geometry):
        raise UsageError(
            f"evaluate.grounding: which pixels an image token stands for is not known of a {vlm.family} model here; "
            f"set evaluate.grounding=false"
        )
    chosen = _readable(vlm, limited(examples, options.limit), examples, folder, quarantine)
    asks_llm = options.judge != "rules"
    with Client(options.llm, replay=options.replay) if asks_llm else nullcontext() as client:
        return _measure(vlm, chosen, folder, options, system, seed, journal, values_of(examples), client)


def _measure(
    vlm: Any,
    chosen: list[Example],
    folder: Path,
    options: EvaluationOptions,
    system: str,
    seed: int,
    journal: Journal | None,
    choices: Choices,
    client: Client | None,
) -> list[Outcome]:
    settings = options.model_dump(mode="json")
    given = [clinalign.__version__, system, seed, settings, named_files(settings), choices]
    made_with = [*given, vlm.fingerprint()] if journal is not None else given
    found = Found(made_with, folder, journal, options.batch_size, system)

    shrink = Shrinking("evaluate.batch_size", "lower evaluate.max_new_tokens, or set dtype=bfloat16 or a smaller model")

    def fitted(call: Callable[[EvaluationOptions], list[Any]]) -> list[Any]:
        """What a call gives with as many questions at once as the memory takes."""
        return shrink(lambda size: call(options.model_copy(update={"batch_size": size})), options.batch_size)

    def ask(condition: str, asked: list[Example], show: Callable[[Example], list[np.ndarray]]) -> None:
        images: dict[str, list[np.ndarray]] = {}

        def shown(batch: list[Example]) -> list[Any]:
            images.clear()
            images.update({example.id: show(example) for example in batch})
            return [[e.id in weighed, [content_name(image) for image in images[e.id]]] for e in batch]

        for batch, keep in found.pending([condition], asked, condition, shown):
            prompts = [(example.question, images[example.id]) for example in batch]
            generated = fitted(partial(answers, vlm, prompts))
            verdict = partial(judged, system=system, decoder=options.decoder.name, seed=seed, condition=condition)
            fresh = [verdict(example, said) for example, said in zip(batch, generated, strict=True)]
            if client is not None:
                fresh = rejudged(client, batch, fresh, options.judge, options.judge_both)
            if condition == "clean" and weighed:
                weigh = partial(with_probability, vlm, batch, fresh, images, choices, weighed)
                fresh = shrink(weigh, options.batch_size)
            keep(fresh)

    def said(batch: list[Example]) -> list[Any]:
        return [to_row(found.done["clean", example.id]) for example in batch]

    closed = [example for example in chosen if yes_no(example)] if options.calibration else []
    weighed = {example.id for example in limited(closed, options.calibration_limit)}
    ask("clean", chosen, lambda example: [read_image(folder / image) for image in example.images])
    pictured = [example for example in chosen if example.images]
    givers = find_donors(pictured) if "shuffled" in options.reliance else {}
    for condition in options.reliance:
        if condition == "no_image" and vlm.images_a_question[0]:
            say(f"evaluate.reliance: {vlm.name} takes no question without an image; no_image is left out")
            continue
        ask(condition, pictured, partial(without_image, folder=folder, condition=condition, donors=givers))
    flippable = limited([example for example in chosen if can_flip(example)], options.flip_limit)
    for batch, keep in found.pending(options.flips, flippable, "flips", said) if options.flips else ():
        clean = {example.id: found.done["clean", example.id] for example in batch}
        keep(fitted(partial(flip_outcomes, vlm, batch, clean, folder, choices=choices)))
    looked = limited([example for example in chosen if can_flip(example)], options.grounding_limit)
    for batch, keep in found.pending([ATTENTION], looked, "attention", said) if options.grounding else ():
        clean = {example.id: found.done["clean", example.id] for example in batch}
        look = partial(grounding_outcomes, vlm, clean=clean, folder=folder, choices=choices)
        keep(shrink(partial(_in_parts, look, batch), options.batch_size))
    conditions = ["clean", *options.reliance, *options.flips, *([ATTENTION] if options.grounding else [])]
    return [found.done[c, e.id] for c in conditions for e in chosen if (c, e.id) in found.done]


def _in_parts(call: Callable[[list[Example]], list[Outcome]], examples: list[Example], size: int) -> list[Outcome]:
    """What a call gives for `size` examples at a time."""
    starts = range(0, len(examples), size)
    return [outcome for start in starts for outcome in call(examples[start : start + size])]


def limited(examples: list[Example], limit: int) -> list[Example]:
    """At most `limit` examples (0: all), whole patients in the order of a hash, in their original order."""
    if not limit or len(examples) <= limit:
        return examples
    sizes: dict[str, int] = {}
    for example in examples:
        sizes[patient(example)] = sizes.get(patient(example), 0) + 1
    kept, total = set(), 0
    for name in sorted(sizes, key=stable):
        if total + sizes[name] <= limit:
            kept.add(name)
            total += sizes[name]
    return [example for example in examples if patient(example) in kept]


def _readable(
    vlm: Any, chosen: list[Example], examples: list[Example], folder: Path, quarantine: Quarantine | None
) -> list[Example]:
    rows = {example.id: row for row, example in enumerate(examples, 1)}
    reported = {row["id"] for row in quarantine.rows if row["stage"] == STAGE} if quarantine is not None else set()
    result = []
    for example in chosen:
        try:
            vlm.prompt_ids(example.question, [read_image(folder / image) for image in example.images])
            result.append(example)
        except RowError as error:
            if quarantine is not None and example.id not in reported:
                why = {"field": error.field, "reason": error.reason, "detail": error.detail}
                quarantine.add(STAGE, row=rows[example.id], id=example.id, **why)
    return result
