"""Greedy answers in batches by the model in this process, with the sampled token ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import clinalign
from clinalign.answers.options import AnswerOptions
from clinalign.errors import RowError, UsageError
from clinalign.imaging.images import content_name, read_image
from clinalign.models.memory import Shrinking
from clinalign.progress import track
from clinalign.records import Answer, Example
from clinalign.storage import Journal, Quarantine, key_of

STAGE = "answer"


def answer(
    vlm: Any,
    examples: list[Example],
    folder: Path,
    options: AnswerOptions,
    *,
    round: int = 0,
    journal: Journal | None = None,
    quarantine: Quarantine | None = None,
) -> list[Answer]:
    """One answer an example, in the order of `examples`; `folder` is what image paths are relative to.

    Answers cut off at `max_new_tokens` and examples whose image cannot be read are left out and go to the quarantine.
    With a journal a killed stage goes on where it was, as far as model, options and content are still those that its
    rows were made with. Batches are made from the whole set sorted by length and id, so
    an answer depends neither on the order of the examples nor on where a run was interrupted.
    """
    rows = {example.id: row for row, example in enumerate(examples, 1)}
    if len(rows) != len(examples):
        raise UsageError(f"{folder}: two examples have the same id; make ids unique")
    done: dict[str, Answer] = {}
    refused: dict[str, RowError] = {}
    made_with = [clinalign.__version__, vlm.fingerprint() if journal is not None else "", options.model_dump(), round]
    shrink = Shrinking("answer.batch_size", "lower answer.max_new_tokens, or set dtype=bfloat16 or a smaller model")
    for batch in track(list(batches(examples, options.batch_size)), f"{STAGE} (batches)"):
        readable = _readable(vlm, batch, folder, refused)
        keys = _keys(made_with, readable)
        known = {id: row for id, key in keys.items() if journal is not None and (row := journal.get(key)) is not None}
        done |= known
        if keys.keys() <= known.keys():
            continue
        prompts = [(example.question, images) for example, images in readable]
        generated = shrink(partial(_generated, vlm, prompts, options), max(1, len(prompts)))
        found = zip(readable, generated, strict=True)
        fresh = [_answer(e, said, vlm.name, round, options) for (e, _), said in found if e.id not in known]
        done |= {item.example_id: item for item in fresh}
        if journal is not None:
            journal.add({keys[item.example_id]: item for item in fresh})
    for example in examples:
        reason = _refusal(example, done, refused, options)
        if reason and quarantine is not None:
            quarantine.add(STAGE, row=rows[example.id], id=example.id, **reason)
    return [done[e.id] for e in examples if e.id in done and done[e.id].finish_reason != "length"]


def _generated(vlm: Any, prompts: list[tuple[str, list[np.ndarray]]], options: AnswerOptions, size: int) -> list[Any]:
    return list(vlm.generate(prompts, max_new_tokens=options.max_new_tokens, batch_size=size))


def _keys(made_with: list[Any], readable: list[tuple[Example, list[np.ndarray]]]) -> dict[str, str]:
    """The key of each answer of a batch, by example. In the last bits an answer depends on those it is sampled beside,
    so a key covers its whole batch: questions and pixels."""
    batch = [[example.id, example.question, [content_name(image) for image in images]] for example, images in readable]
    return {example.id: key_of([made_with, batch, example.id]) for example, _ in readable}


def batches(examples: Sequence[Example], size: int) -> Iterator[list[Example]]:
    """Examples of similar prompt length together, the same batches for any order of `examples`."""
    ordered = sorted(examples, key=lambda e: (len(e.images), len(e.question), e.id))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def _readable(
    vlm: Any, batch: list[Example], folder: Path, refused: dict[str, RowError]
) -> list[tuple[Example, list[np.ndarray]]]:
    """Examples with their images; those whose image or prompt cannot be used go to `refused`."""
    readable = []
    for example in batch:
        try:
            images = [read_image(folder / image) for image in example.images]
            vlm.prompt_ids(example.question, images)
            readable.append((example, images))
        except RowError as error:
            refused[example.id] = error
    return readable


def _answer(example: Example, generated: Any, model: str, round: int, options: AnswerOptions) -> Answer:
    return Answer(
        example_id=example.id,
        model=model,
        round=round,
        prompt=example.question,
        text=generated.text,
        token_ids=[int(token) for token in generated.token_ids],
        finish_reason=generated.finish_reason,
        decoder=options.decoder,
    )


def _refusal(
    example: Example, done: dict[str, Answer], refused: dict[str, RowError], options: AnswerOptions
) -> dict[str, str]:
    """Why an example has no usable answer, as quarantine fields; empty where it has one."""
    if example.id in refused:
        error = refused[example.id]
        return {"field": error.field, "reason": error.reason, "detail": error.detail}
    if done[example.id].finish_reason == "length":
        detail = f"no end within {options.max_new_tokens} tokens; raise answer.max_new_tokens"
        return {"field": "text", "reason": "truncated", "detail": detail}
    return {}
