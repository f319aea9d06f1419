"""Questions put to a model, for the answer stage and for the evaluation alike, and what is taken over from before.

In its last bits a model's answer depends on those that it is computed beside. So that a run that goes on, after a kill
or a change, still ends in the bytes of a run from nothing, what is computed together is settled by the ids of the
examples alone (`groups`), for any order of them and any interruption, and the key of an answer covers its whole group:
model, decoder, and the question and pixels of each member. A group holds at most a hundredth of the examples (eight of
few): whoever corrects one cell has that many questions asked anew and no more. The batch size is no part of a key: it
cuts a group into parts that fit the memory, as running out of memory does, and an answer differs by that at most where
two tokens are equally likely to the last bits.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import clinalign
from clinalign.decoding import decode
from clinalign.decoding.options import DecoderOptions, Greedy, as_options
from clinalign.errors import RowError, UsageError
from clinalign.imaging.images import content_name, read_image
from clinalign.measuring.options import AnswerOptions
from clinalign.models.memory import Shrinking
from clinalign.progress import track
from clinalign.records import Answer, Example
from clinalign.storage import Journal, Quarantine, Rows, key_of

STAGE = "answer"
FEWEST, MOST = 8, 64
"""Examples of a group: of few examples, and at most however many there are (their images are held at once)."""
PARTS = 100
ROOM = 4
"""Groups that share a bucket: an example more or less shifts these and no others."""
Show = Callable[[Example], list[np.ndarray]]


@dataclass(slots=True)
class Entry:
    """What a journal keeps of one example: its answer, or rows of plain values: its verdict, or what was measured."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str = ""
    rows: list[Any] = field(default_factory=list)


def stable(text: str) -> str:
    """A hash to order by that does not change between runs."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def groups(examples: Sequence[Example]) -> list[list[Example]]:
    """The examples in the groups that they are asked in: as many images each, in the order of a hash of their ids.

    Ids are dealt to buckets by their hash and buckets cut into groups, so that another example costs its bucket alone.
    """
    size, buckets = FEWEST, 1
    while 2 * size <= min(MOST, len(examples) // PARTS):
        size *= 2
    while 2 * buckets * ROOM * size <= len(examples):
        buckets *= 2
    dealt: dict[tuple[int, int], list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda e: stable(e.id)):
        dealt[len(example.images), int(stable(example.id), 16) % buckets].append(example)
    return [bucket[n : n + size] for _, bucket in sorted(dealt.items()) for n in range(0, len(bucket), size)]


class Reuse:
    """What is known of a model's examples from before, in a journal where there is one, by the keys of its making."""

    def __init__(self, vlm: Any, journal: Journal | None, system: str) -> None:
        self.journal, self.label = journal, system
        self.model = [system, vlm.fingerprint() if journal is not None else ""]

    def entries(self, made_with: Any, content: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Entry]]:
        """Keys and known entries by example id of one group; `content`: what each member depends on."""
        shared = key_of([clinalign.__version__, self.model, made_with, content])
        keys = {name: key_of([shared, name]) for name in content}
        if self.journal is None:
            return keys, {}
        known = {name: self.journal.get(key) for name, key in keys.items()}
        return keys, {name: entry for name, entry in known.items() if entry is not None}

    def keep(self, keys: Mapping[str, str], fresh: Mapping[str, Entry]) -> None:
        """Writes entries that are new under their keys."""
        if self.journal is not None:
            known = self.journal.rows.keys()
            self.journal.add({keys[name]: entry for name, entry in fresh.items() if keys[name] not in known})

    def rows(
        self,
        what: str,
        made_with: Any,
        examples: Sequence[Example],
        content: Callable[[Example], Any],
        make: Callable[[list[Example]], Mapping[str, list[Any]]],
    ) -> dict[str, list[Any]]:
        """What `make` gives of one group, rows of plain values by example id; all of it where some is not known."""
        keys, known = self.entries([what, made_with], {example.id: content(example) for example in examples})
        if len(known) < len(keys):
            made = make(list(examples))
            known = {name: Entry(rows=[list(row) for row in made.get(name, [])]) for name in keys}
            self.keep(keys, known)
        return {name: entry.rows for name, entry in known.items()}

    def measured(
        self,
        what: str,
        made_with: Any,
        examples: Sequence[Example],
        content: Callable[[Example], Any],
        make: Callable[[list[Example]], Mapping[str, list[Any]]],
    ) -> dict[str, list[Any]]:
        """`rows` of every group of the examples."""
        found: dict[str, list[Any]] = {}
        for group in track(groups(examples), f"{self.label} (groups)"):
            found |= self.rows(what, made_with, group, content, make)
        return found


def ask(
    vlm: Any,
    examples: Sequence[Example],
    show: Show,
    options: Any,
    reuse: Reuse,
    shrink: Shrinking,
    refused: dict[str, RowError],
) -> Iterator[tuple[list[Example], dict[str, Entry]]]:
    """The examples group by group, with their answers by id. `options`: `decoder`, `max_new_tokens` and `batch_size`.

    Those that cannot be asked, because `show` raises RowError or the model does not take the prompt, go to `refused`.
    """
    decoder = as_options(options.decoder)
    made_with = ["answer", decoder.model_dump(mode="json"), options.max_new_tokens]
    for group in track(groups(examples), f"{reuse.label} (groups)"):
        shown = dict(_askable(vlm, group, show, refused))
        asked = [example for example in group if example.id in shown]
        content = {e.id: [e.prompt, [content_name(image) for image in shown[e.id]]] for e in asked}
        keys, answers = reuse.entries(made_with, content)
        for part in _parts(sorted(asked, key=lambda e: (len(e.prompt), e.id)), options.batch_size):
            if all(example.id in answers for example in part):
                continue
            prompts = [(example.prompt, shown[example.id]) for example in part]
            generated = shrink(partial(generate, vlm, prompts, decoder, options.max_new_tokens), len(prompts))
            fresh = {
                e.id: Entry(one.text, [int(token) for token in one.token_ids], one.finish_reason)
                for e, one in zip(part, generated, strict=True)
                if e.id not in answers
            }
            reuse.keep(keys, fresh)
            answers |= fresh
        yield asked, answers


def _parts(examples: list[Example], size: int) -> list[list[Example]]:
    return [examples[start : start + size] for start in range(0, len(examples), size)]


def generate(
    vlm: Any, prompts: Sequence[tuple[str, Sequence[np.ndarray]]], decoder: DecoderOptions, longest: int, size: int
) -> list[Any]:
    """Generations (`text`, `token_ids`, `finish_reason`) of (prompt, images) pairs in their order, `size` at once."""
    if decoder == Greedy():
        return list(vlm.generate(prompts, max_new_tokens=longest, batch_size=size))
    return decode(vlm, prompts, decoder, max_new_tokens=longest, batch_size=size)


def _askable(
    vlm: Any, group: Sequence[Example], show: Show, refused: dict[str, RowError]
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Ids and images of the examples whose image and prompt can be used; the others go to `refused`."""
    for example in group:
        try:
            images = show(example)
            vlm.prompt_ids(example.prompt, images)
            yield example.id, images
        except RowError as error:
            refused[example.id] = error


def in_words(vlm: Any, examples: Sequence[Example], folder: Path) -> list[Example]:
    """The examples with the boxes of their questions as the model's family writes them. One whose box or image cannot
    be read stays as it is: asking it says why."""
    return [_in_words(vlm, e, folder) if "<box" in e.question else e for e in examples]


TARGETS = ("question", "answer", "rejected", "full")
"""Texts of an example that training reads."""


def targets_in_words(
    vlm: Any, examples: Sequence[Example], folder: Path
) -> tuple[Sequence[Example], dict[str, RowError]]:
    """The examples with the boxes of their questions and answers as the model's family writes them: what training takes
    for its prompts and targets. Those whose box or image cannot be read are left out, with the reason, by id."""
    found: Rows[Example] = Rows()
    refused: dict[str, RowError] = {}
    for example in examples:
        texts = {name: getattr(example, name) for name in TARGETS if "<box" in (getattr(example, name) or "")}
        try:
            images = own_images(example, folder) if texts else []
            said = {name: vlm.in_words(text, images, name) for name, text in texts.items()}
            found.append(replace(example, **said))
        except RowError as error:
            refused[example.id] = error
    return found, refused


def _in_words(vlm: Any, example: Example, folder: Path) -> Example:
    try:
        return replace(example, question=vlm.in_words(example.question, own_images(example, folder)))
    except RowError:
        return example


def own_images(example: Example, folder: Path) -> list[np.ndarray]:
    """An example's images as they are; raises RowError."""
    return [read_image(folder / image) for image in example.images]


def quarantined(
    quarantine: Quarantine | None, stage: str, examples: Sequence[Example], refused: Mapping[str, RowError]
) -> None:
    """Puts what was refused into the quarantine, each example once a stage; rows are counted from 1."""
    if quarantine is None or not refused:
        return
    reported = {row["id"] for row in quarantine.rows if row["stage"] == stage}
    for row, example in enumerate(examples, 1):
        error = refused.get(example.id)
        if error is not None and example.id not in reported:
            why = {"field": error.field, "reason": error.reason, "detail": error.detail}
            quarantine.add(stage, row=row, id=example.id, **why)


def answer(
    vlm: Any,
    examples: Sequence[Example],
    folder: Path,
    options: AnswerOptions,
    *,
    round: int = 0,
    journal: Journal | None = None,
    quarantine: Quarantine | None = None,
) -> list[Answer]:
    """One answer an example, in the order of `examples`; `folder` is what image paths are relative to.

    Answers cut off at `max_new_tokens` and examples whose image cannot be read are left out and go to the quarantine.
    With a journal of `Entry` only those are asked whose model, settings or content are others than the journal's.
    """
    examples = in_words(vlm, examples, folder)
    if len({example.id for example in examples}) != len(examples):
        raise UsageError(f"{folder}: two examples have the same id; make ids unique")
    shrink = Shrinking("answer.batch_size", "lower answer.max_new_tokens, or set dtype=bfloat16 or a smaller model")
    answers: dict[str, Entry] = {}
    refused: dict[str, RowError] = {}
    show = partial(own_images, folder=folder)
    for _, found in ask(vlm, examples, show, options, Reuse(vlm, journal, STAGE), shrink, refused):
        answers |= found
    detail = f"no end within {options.max_new_tokens} tokens; raise answer.max_new_tokens"
    cut = {name for name, one in answers.items() if one.finish_reason == "length"}
    quarantined(quarantine, STAGE, examples, refused | {name: RowError("text", "truncated", detail) for name in cut})
    return [
        Answer(e.id, vlm.name, round, e.prompt, one.text, one.token_ids, one.finish_reason, options.decoder)
        for e in examples
        if (one := answers.get(e.id)) is not None and e.id not in cut
    ]
