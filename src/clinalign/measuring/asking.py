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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import clinalign
from clinalign.decoding import decode
from clinalign.decoding.options import DecoderOptions, Greedy, as_options
from clinalign.engine import Each
from clinalign.errors import RowError, UsageError
from clinalign.imaging.images import content_name, read_image
from clinalign.measuring.options import AnswerOptions
from clinalign.models.memory import Shrinking
from clinalign.models.served import Served
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
Prompts = Sequence[tuple[str, Sequence[np.ndarray]]]
Answered = Callable[[Any, Prompts], list[Any]]
"""Generations of a model by prompt."""


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


Content = Callable[[Example], Any]
Make = Callable[[list[Example]], Mapping[str, list[Any]]]
Groups = Sequence[list[Example]]


class Made(NamedTuple):
    """What became of a part of a group: the keys of the whole group, the entries that were made, whom the model refused
    of the group."""

    keys: dict[str, str]
    fresh: dict[str, Entry]
    refused: dict[str, RowError]


class Reuse:
    """What is known of a model's examples from before, in a journal where there is one, by the keys of its making.
    `each` has the rest made, and what it gives is written down here."""

    def __init__(self, vlm: Any, journal: Journal | None, system: str, each: Each = map) -> None:
        self.journal, self.label, self.each = journal, system, each
        self.model = [system, vlm.fingerprint() if journal is not None else ""]

    def made(
        self, work: Callable[..., Iterator[Made]], made_with: Any, groups: Groups, each: Each
    ) -> Iterator[tuple[Made, dict[str, Entry]]]:
        """What `work` makes of each group, and all entries by example id, in order. Beside the group `work` gets
        `shared`, what a key covers besides its group's content, and the keys that are `known`: nothing is made where
        all are. What goes to other processes knows what was there when it was sent."""
        known: Collection[str] = ()
        if self.journal is not None:
            known = self.journal.rows.keys() if each is map else frozenset(self.journal.rows)
        shared = [clinalign.__version__, self.model, made_with]
        for parts in each(partial(work, shared=shared, known=known), groups):
            entries: dict[str, Entry] = {}
            for made in parts:
                entries |= self._kept(made)
            yield made, entries

    def _kept(self, made: Made) -> dict[str, Entry]:
        """All that is known of a group, with what was made of it written down."""
        if self.journal is None:
            return made.fresh
        there = {name: self.journal.get(key) for name, key in made.keys.items()}
        fresh = {name: entry for name, entry in made.fresh.items() if there[name] is None}
        self.journal.add({made.keys[name]: entry for name, entry in fresh.items()})
        return {name: entry for name, entry in (there | fresh).items() if entry is not None}

    def rows(
        self, what: str, made_with: Any, group: list[Example], content: Content, make: Make
    ) -> dict[str, list[Any]]:
        """What `make` gives of one group, rows of plain values by example id; all of it where some is not known. It is
        made here."""
        [found] = self.made(partial(_rows, content=content, make=make), [what, made_with], [group], map)
        return {name: entry.rows for name, entry in found[1].items()}

    def measured(
        self, what: str, made_with: Any, examples: Sequence[Example], content: Content, make: Make
    ) -> dict[str, list[Any]]:
        """What `make` gives of every group of the examples, as `rows`."""
        todo = groups(examples)
        made = self.made(partial(_rows, content=content, make=make), [what, made_with], todo, self.each)
        found: dict[str, list[Any]] = {}
        for _, entries in track(made, f"{self.label} (groups)", len(todo)):
            found |= {name: entry.rows for name, entry in entries.items()}
        return found


def _keys(shared: Any, content: Mapping[str, Any]) -> dict[str, str]:
    """Keys by example id of one group; `content`: what each member depends on."""
    common = key_of([*shared, content])
    return {name: key_of([common, name]) for name in content}


def _rows(group: list[Example], *, content: Content, make: Make, shared: Any, known: Collection[str]) -> Iterator[Made]:
    keys = _keys(shared, {example.id: content(example) for example in group})
    fresh: dict[str, Entry] = {}
    if not all(key in known for key in keys.values()):
        made = make(group)
        fresh = {name: Entry(rows=[list(row) for row in made.get(name, [])]) for name in keys}
    yield Made(keys, fresh, {})


def ask(
    vlm: Any,
    examples: Sequence[Example],
    show: Show,
    options: Any,
    reuse: Reuse,
    shrink: Shrinking,
    refused: dict[str, RowError],
    sampler: Served | None = None,
) -> Iterator[tuple[list[Example], dict[str, Entry]]]:
    """The examples group by group, with their answers by id. `options`: `decoder`, `max_new_tokens` and `batch_size`.
    `sampler` answers in the place of the model's own forward.

    Those that cannot be asked, because `show` raises RowError or the model does not take the prompt, go to `refused`.
    """
    decoder = as_options(options.decoder)
    made_with = ["answer", decoder.model_dump(mode="json"), options.max_new_tokens]
    made_with += [sampler.name] if sampler is not None else []
    if sampler is None:
        answered: Answered = partial(_generated, shrink, decoder=decoder, longest=options.max_new_tokens)
        size = options.batch_size
    else:  # it makes its own batches, of a group at a time
        answered, size = partial(sampler, decoder=decoder, longest=options.max_new_tokens), MOST
    work = partial(_asked, vlm=vlm, show=show, answered=answered, batch_size=size)
    todo = groups(examples)
    made = track(reuse.made(work, made_with, todo, reuse.each), f"{reuse.label} (groups)", len(todo))
    for group, (one, answers) in zip(todo, made, strict=True):
        refused |= one.refused
        yield [example for example in group if example.id in one.keys], answers


def _asked(
    group: list[Example],
    *,
    vlm: Any,
    show: Show,
    answered: Answered,
    batch_size: int,
    shared: Any,
    known: Collection[str],
) -> Iterator[Made]:
    """The answers of one group that are not known, parts of `batch_size` at once."""
    refused: dict[str, RowError] = {}
    shown = dict(_askable(vlm, group, show, refused))
    asked = [example for example in group if example.id in shown]
    keys = _keys(shared, {e.id: [e.prompt, [content_name(image) for image in shown[e.id]]] for e in asked})
    yield Made(keys, {}, refused)
    for part in _parts(sorted(asked, key=lambda e: (len(e.prompt), e.id)), batch_size):
        new = [example for example in part if keys[example.id] not in known]
        if new:
            prompts = [(example.prompt, shown[example.id]) for example in part]
            said = answered(vlm, prompts)
            answers = {
                e.id: Entry(one.text, [int(token) for token in one.token_ids], one.finish_reason)
                for e, one in zip(part, said, strict=True)
            }
            yield Made(keys, {example.id: answers[example.id] for example in new}, refused)


def _parts(examples: list[Example], size: int) -> list[list[Example]]:
    return [examples[start : start + size] for start in range(0, len(examples), size)]


def _generated(shrink: Shrinking, vlm: Any, prompts: Prompts, decoder: DecoderOptions, longest: int) -> list[Any]:
    """What `generate` gives, in smaller batches where the memory is not enough."""
    return shrink(partial(generate, vlm, prompts, decoder, longest), len(prompts))


def generate(vlm: Any, prompts: Prompts, decoder: DecoderOptions, longest: int, size: int) -> list[Any]:
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
    each: Each = map,
    sampler: Served | None = None,
) -> list[Answer]:
    """One answer an example, in the order of `examples`; `folder` is what image paths are relative to; `sampler`
    answers in the place of the model's own forward.

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
    for _, found in ask(vlm, examples, show, options, Reuse(vlm, journal, STAGE, each), shrink, refused, sampler):
        answers |= found
    detail = f"no end within {options.max_new_tokens} tokens; raise answer.max_new_tokens"
    cut = {name for name, one in answers.items() if one.finish_reason == "length"}
    quarantined(quarantine, STAGE, examples, refused | {name: RowError("text", "truncated", detail) for name in cut})
    return [
        Answer(e.id, vlm.name, round, e.prompt, one.text, one.token_ids, one.finish_reason, options.decoder)
        for e in examples
        if (one := answers.get(e.id)) is not None and e.id not in cut
    ]
