"""One system's outcomes on one set of examples: clean answers, answers without the image, margins without evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clinalign.data.images import read_image
from clinalign.errors import RowError
from clinalign.evaluation.answering import answers
from clinalign.evaluation.calibration import with_probability
from clinalign.evaluation.causal import can_flip, flip_outcomes
from clinalign.evaluation.contests import Choices
from clinalign.evaluation.grounding import CONDITION as ATTENTION
from clinalign.evaluation.grounding import grounding_outcomes
from clinalign.evaluation.judge import judged
from clinalign.evaluation.llm_judge import rejudged
from clinalign.evaluation.options import EvaluationOptions
from clinalign.evaluation.reliance import find_donors, stable, without_image
from clinalign.evaluation.vqa import patient, yes_no
from clinalign.language.choices import values_of
from clinalign.llm import Client
from clinalign.progress import track
from clinalign.records import Example, Outcome
from clinalign.tables import Journal, Quarantine

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
    goes on where it was; batches are the same for any order of the examples and any interruption.
    """
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
    done = {
        (row.condition, row.example_id): row
        for row in (journal.rows.values() if journal is not None else ())
        if (row.system, row.seed) == (system, seed)
    }

    def keep(fresh: list[Outcome]) -> None:
        new = [o for o in fresh if (o.condition, o.example_id) not in done]
        done.update({(o.condition, o.example_id): o for o in new})
        if journal is not None:
            journal.add(new)

    def ask(condition: str, asked: list[Example], show: Callable[[Example], list[np.ndarray]]) -> None:
        for batch in _pending(asked, [condition], done, options.batch_size, f"{system}, {condition}"):
            images = {example.id: show(example) for example in batch}
            prompts = [(example.question, images[example.id]) for example in batch]
            generated = answers(vlm, prompts, options)
            verdict = partial(judged, system=system, decoder=options.decoder.name, seed=seed, condition=condition)
            fresh = [verdict(example, said) for example, said in zip(batch, generated, strict=True)]
            if client is not None:
                fresh = rejudged(client, batch, fresh, options.judge, options.judge_both)
            if condition == "clean" and weighed:
                fresh = with_probability(vlm, batch, fresh, images, choices, weighed, options.batch_size)
            keep(fresh)

    closed = [example for example in chosen if yes_no(example)] if options.calibration else []
    weighed = {example.id for example in limited(closed, options.calibration_limit)}
    ask("clean", chosen, lambda example: [read_image(folder / image) for image in example.images])
    pictured = [example for example in chosen if example.images]
    givers = find_donors(pictured) if "shuffled" in options.reliance else {}
    for condition in options.reliance:
        ask(condition, pictured, partial(without_image, folder=folder, condition=condition, donors=givers))
    flippable = limited([example for example in chosen if can_flip(example)], options.flip_limit)
    if options.flips:
        for batch in _pending(flippable, options.flips, done, options.batch_size, f"{system}, flips"):
            clean = {example.id: done["clean", example.id] for example in batch}
            keep(flip_outcomes(vlm, batch, clean, folder, options, choices))
    looked = limited([example for example in chosen if can_flip(example)], options.grounding_limit)
    if options.grounding:
        for batch in _pending(looked, [ATTENTION], done, options.batch_size, f"{system}, attention"):
            clean = {example.id: done["clean", example.id] for example in batch}
            keep(grounding_outcomes(vlm, batch, clean, folder, choices))
    conditions = ["clean", *options.reliance, *options.flips, *([ATTENTION] if options.grounding else [])]
    return [done[c, e.id] for c in conditions for e in chosen if (c, e.id) in done]


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


def _pending(
    examples: Sequence[Example], conditions: Sequence[str], done: dict[tuple[str, str], Outcome], size: int, label: str
) -> Iterator[list[Example]]:
    """Batches of similar length that lack an outcome. A batch half done is done again whole: same batch, same bits."""
    ordered = sorted(examples, key=lambda e: (len(e.images), len(e.question), e.id))
    batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    for batch in track(batches, f"{label} (batches)"):
        if not all((condition, example.id) in done for condition in conditions for example in batch):
            yield batch
