"""A suite's questions under every condition that its scorer needs, put to a model through one function.

What is asked is a pure function of the examples and their images, so two systems are asked the same, and the text arm
of a suite sees no pixel at all. Nothing is left out of an answer: what a model is given of a chain stands before what
it goes on with, and an answer that cannot be read is the scorer's to count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clinalign.decoding.options import Beam, DecoderOptions, Greedy, Sample, as_options
from clinalign.engine import Each
from clinalign.errors import RowError
from clinalign.evaluation.suites import BELOW, causal, eh, modality, s_chain, stages, uncertainty
from clinalign.evaluation.suites.shares import field, slot
from clinalign.imaging.images import Mask, content_name
from clinalign.lesions.corruption import corrupt, seed_of
from clinalign.lesions.regions import control_region, lesion_regions, native_mask, region_of
from clinalign.measuring.ablations import find_donors, without_image
from clinalign.measuring.asking import Reuse, ask, own_images, quarantined
from clinalign.measuring.evidence import likelihoods
from clinalign.measuring.measure import STAGE, System
from clinalign.measuring.options import EvaluationOptions
from clinalign.progress import say
from clinalign.records import Example, Outcome
from clinalign.storage import Journal, Quarantine

TOKENS = {"s_chain": 320}
"""Suites whose answers are longer than what `max_new_tokens` may allow for."""
MASKED = "inpaint"
"""How evidence is masked, and a place that is none by the same operation."""
SIDE = 6
"""Where nothing tells the shape of a mask, it is a square of this part of the image's height."""
Images = list[np.ndarray]


class Question(NamedTuple):
    """What is asked: `show` gives the images, `given` is the beginning of the answer, and stands before the model's own
    text."""

    example: Example
    condition: str
    prompt: str
    show: Callable[[], Images]
    given: str = ""


Answer = Callable[[Sequence[Question], int | None], Mapping[str, str]]
"""The questions of one condition, and the seed of a draw or None for the system's own decoder, into texts by example
id; a question without a text could not be asked."""


def questions(suite: str, examples: Sequence[Example], folder: Path) -> Iterator[Question]:
    """Every question of a suite, condition by condition. Raises `UsageError` where the examples are of one patient and
    a condition shows another's image."""
    yield from _ASKED.get(suite, _plain)(examples, folder)


Chances = Callable[[Sequence[Question]], Mapping[str, Mapping[str, float]]]
"""The questions of one condition into what is measured of them besides, by example id and name."""


def run(
    suite: str,
    asked: Sequence[Question],
    answer: Answer,
    *,
    system: str,
    decoder: str,
    seed: int,
    samples: int,
    chances: Chances | None = None,
) -> list[Outcome]:
    """The outcomes of a system on a suite's questions, `samples` draws of each beside them for `uncertainty`, and the
    `chances` of the choices for the arms of `modality`.

    They are not judged: the scorers (`evaluation.suites`) read the texts.
    """
    outcomes: list[Outcome] = []

    def put(part: Sequence[Question], condition: str, draw: int | None) -> None:
        texts = answer(part, draw)
        wanted = suite == "modality" and condition in modality.ARMS
        found = chances([q for q in part if q.example.id in texts]) if chances is not None and wanted else {}
        for question in (one for one in part if one.example.id in texts):
            text, e = f"{question.given}{texts[question.example.id]}", question.example
            named = (f"{BELOW}{suite}", system, decoder, draw or seed, condition)
            outcomes.append(Outcome(e.id, e.task, *named, text, None, "none", length=len(text.split())))
            outcomes[-1].metrics |= found.get(e.id, {})

    for condition, part in groupby(asked, key=lambda question: question.condition):
        put(list(part), condition, None)
    for draw in range(1, samples + 1) if suite == "uncertainty" else ():
        put(asked, uncertainty.SAMPLED, draw)
    return outcomes


def evaluate_suites(
    vlm: Any,
    asked: Mapping[str, Sequence[Question]],
    folder: Path,
    options: EvaluationOptions,
    *,
    system: str,
    seed: int = 0,
    samples: int,
    journal: Journal | None = None,
    quarantine: Quarantine | None = None,
    each: Each = map,
) -> list[Outcome]:
    """The outcomes of `system`, which answers by `options.decoder`, on the questions of every suite.

    `samples` as in `run`. A question whose image or prompt cannot be used goes to the
    quarantine; one without an image is left out, and said so, where the model takes none. With a journal of `Entry`
    only what is new is asked, as in `measuring.measure.evaluate`.
    """
    one = System(vlm, folder, options, system, seed, Reuse(vlm, journal, system, each), None)
    outcomes: list[Outcome] = []
    for suite, every in asked.items():
        refused: dict[str, RowError] = {}
        those = list(every)
        if vlm.images_a_question[0] and any(question.condition == "no_image" for question in those):
            say(
                f"evaluate.suites: {vlm.name} takes no question without an image; {suite} is asked without its text arm"
            )
            those = [question for question in those if question.condition != "no_image"]
        answer = partial(_answers, one, suite, refused)
        named: dict[str, Any] = {"system": system, "decoder": options.decoder.name, "seed": seed}
        outcomes += run(suite, those, answer, samples=samples, chances=partial(_chances, one, suite), **named)
        quarantined(quarantine, STAGE, list({q.example.id: q.example for q in those}.values()), refused)
    return outcomes


def _answers(
    one: System, suite: str, refused: dict[str, RowError], part: Sequence[Question], draw: int | None
) -> dict[str, str]:
    """The questions of a condition put to a model, group by group, through its journal."""
    decoder = as_options(one.options.decoder)
    longest = max(one.options.max_new_tokens, TOKENS.get(suite, 0))
    settings = {"decoder": decoder if draw is None else drawn(decoder, draw), "max_new_tokens": longest}
    by_id = {question.example.id: question for question in part}
    examples = [replace(question.example, question=question.prompt) for question in part]
    one.reuse.label = f"{one.name}, {suite}, {part[0].condition if draw is None else f'draw {draw}'}"
    texts: dict[str, str] = {}
    options = one.options.model_copy(update=settings)
    for _, found in ask(one.vlm, examples, lambda e: by_id[e.id].show(), options, one.reuse, one.shrink, refused):
        texts |= {name: entry.text for name, entry in found.items()}
    return texts


def _chances(one: System, suite: str, part: Sequence[Question]) -> dict[str, dict[str, float]]:
    """The probability of each choice of a question, all of one adding up to 1, from the likelihoods of their words."""
    by_id = {question.example.id: question for question in part if modality.choices(question.example)}
    examples = [replace(question.example, question=question.prompt) for question in by_id.values()]
    one.reuse.label = f"{one.name}, {suite}, probabilities of {part[0].condition if part else 'nothing'}"
    vlm, shrink, batch_size = one.vlm, one.shrink, one.options.batch_size

    def content(example: Example) -> list[Any]:
        shown = [content_name(image) for image in by_id[example.id].show()]
        return [example.question, shown, list(modality.choices(example))]

    def scored(group: Sequence[Example], size: int) -> Mapping[str, list[Any]]:
        asked = []
        for e in group:
            words = [vlm.tokenizer(c.capitalize(), add_special_tokens=False) for c in modality.choices(e)]
            asked.append((e.question, by_id[e.id].show(), [list(w["input_ids"]) for w in words]))
        found = likelihoods(vlm, asked, batch_size=size)
        return {
            e.id: [list(pair) for pair in zip(modality.choices(e), softmax(logps), strict=True)]
            for e, logps in zip(group, found, strict=True)
        }

    def make(group: list[Example]) -> Mapping[str, list[Any]]:
        return shrink(partial(scored, group), batch_size)

    rows = one.reuse.measured("chances", None, examples, content, make)
    return {name: {modality.chance(choice): p for choice, p in found} for name, found in rows.items()}


def softmax(logps: Sequence[float]) -> list[float]:
    """Log-likelihoods into probabilities that add up to 1."""
    weights = np.exp(np.asarray(logps) - max(logps))
    return [float(weight) for weight in weights / weights.sum()]


def drawn(decoder: DecoderOptions, seed: int) -> DecoderOptions:
    """A decoder that draws at temperature 1: the same with a temperature where it has one, else plain sampling."""
    if isinstance(decoder, Greedy | Beam) or not hasattr(decoder, "temperature"):
        return Sample(seed=seed)
    return decoder.model_copy(update={"temperature": 1.0, "seed": seed})


def _plain(examples: Sequence[Example], folder: Path) -> Iterator[Question]:
    for example in examples:
        yield Question(example, "clean", example.question, _own(example, folder))


def _chains(examples: Sequence[Example], folder: Path) -> Iterator[Question]:
    """The chain asked for, with k right steps given, and with the first step's boxes of another patient given."""
    yield from _plain(examples, folder)
    donors = find_donors(examples)
    for condition in (*(f"step_given_{k}" for k in s_chain.STEPS), "shuffled_boxes"):
        for example in examples:
            chain = str(field(example, "full") or "")
            if condition == "shuffled_boxes":
                given = s_chain.given(s_chain.with_boxes(chain, str(field(donors[example.id], "full") or "")), 1)
            else:
                given = s_chain.given(chain, int(condition[-1]))
            yield Question(example, condition, f"{example.question}\n{given}", _own(example, folder), given)


def _interventions(examples: Sequence[Example], folder: Path) -> Iterator[Question]:
    """The image, another patient's of the same label, the evidence masked, another place masked alike."""
    yield from _plain(examples, folder)
    donors = causal.same_label_donors(examples)
    for example in examples:
        if example.id in donors:
            yield Question(example, causal.SWAP, example.question, _own(donors[example.id], folder))
    shapes = {e.images[0]: e for e in examples if e.images and region_of(e) is not None}
    can = [(e, shapes.get(e.images[0]), set(masks(e, folder, shapes.get(e.images[0])))) for e in examples if e.images]
    for condition in (causal.TARGET, causal.CONTROL):
        for example, shape, there in can:
            if condition in there:
                yield Question(example, condition, example.question, partial(masked, example, folder, condition, shape))


def masked(example: Example, folder: Path, condition: str, shape: Example | None = None) -> Images:
    """The images of an example under one of the conditions that `masks` has."""
    images = own_images(example, folder)
    for number, mask in masks(example, folder, shape)[condition].items():
        image = images[number]
        images[number] = corrupt(image, mask, MASKED, 0.0, seed_of(image, mask, MASKED, 0.0))
    return images


def masks(example: Example, folder: Path, shape: Example | None = None) -> dict[str, dict[int, Mask]]:
    """What the target mask (with a region only) and the irrelevant mask (where there is room for one) cover, on every
    image that shows the finding, by the image's number.

    The irrelevant place has the shape of the evidence, or where the finding is absent that of `shape`, another question
    about the same image, or a square. It lies off both, and is masked by the same operation.
    """
    images = own_images(example, folder)
    evidence = _natively(example, images, folder)
    pattern = evidence or (_natively(shape, images, folder) if shape is not None else {})
    places = {
        number: control_region(pattern.get(number, _square(images[number])), images[number], pattern.get(number))
        for number in pattern or (0,)
    }
    elsewhere = {number: place for number, place in places.items() if place is not None}
    found: dict[str, dict[int, Mask]] = {}
    if evidence and not any(mask.all() for mask in evidence.values()):
        found[causal.TARGET] = evidence
    if len(elsewhere) == len(places):
        found[causal.CONTROL] = elsewhere
    return found


def _natively(example: Example, images: Images, folder: Path) -> dict[int, Mask]:
    regions = lesion_regions(example).items()
    return {number: native_mask(region, folder, images[number].shape[:2]) for number, region in regions}


def _square(image: np.ndarray) -> Mask:
    height, width = image.shape[:2]
    side = max(1, height // SIDE)
    mask = np.zeros((height, width), bool)
    top, left = (height - side) // 2, (width - side) // 2
    mask[top : top + side, left : left + side] = True
    return mask


def _arms(examples: Sequence[Example], folder: Path) -> Iterator[Question]:
    """Text, image and both, and both with one of them replaced. The text arm is asked without reading an image."""
    pictured = [example for example in examples if example.images]
    others, alike = find_donors(pictured), causal.same_label_donors(pictured)
    for example in pictured:
        yield Question(example, "no_image", modality.prompt(example, "no_image"), list)
    for condition in ("no_text", "clean"):
        for example in pictured:
            yield Question(example, condition, modality.prompt(example, condition), _own(example, folder))
    for condition in ("blank", "noise", "shuffled"):
        for example in pictured:
            show = partial(without_image, example, folder, condition, others)
            yield Question(example, condition, modality.prompt(example, "clean"), show)
    for example in (e for e in pictured if e.id in alike):
        yield Question(example, causal.SWAP, modality.prompt(example, "clean"), _own(alike[example.id], folder))
    for example in pictured:
        context = str(slot(others[example.id], "context") or "")
        prompt = modality.prompt(example, "shuffled_text", context)
        yield Question(example, "shuffled_text", prompt, _own(example, folder))


def _stages(examples: Sequence[Example], folder: Path) -> Iterator[Question]:
    for condition in ("clean", *stages.REPLACED):
        for example in examples:
            yield Question(example, condition, stages.prompt(example, condition), _own(example, folder))


def _options(examples: Sequence[Example], folder: Path) -> Iterator[Question]:
    """Options shuffled, and where the published ones have one fixed order in that order too."""
    yield from _plain(examples, folder)
    for example in examples:
        if example.fixed_order:
            yield Question(example, eh.FIXED, eh.fixed_order(example).question, _own(example, folder))


_ASKED: dict[str, Callable[[Sequence[Example], Path], Iterator[Question]]] = {
    "s_chain": _chains,
    "causal": _interventions,
    "modality": _arms,
    "stages": _stages,
    "eh": _options,
}


def _own(example: Example, folder: Path) -> Callable[[], Images]:
    return partial(own_images, example, folder)
