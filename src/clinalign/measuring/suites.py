"""A suite's questions under every condition that its scorer needs, put to a model through one function.

What is asked is a pure function of the examples and their images, so two systems are asked the same, and the text arm
of a suite sees no pixel at all. Nothing is left out of an answer: what a model is given of a chain stands before what
it goes on with, and an answer that cannot be read is the scorer's to count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clinalign.errors import RowError
from clinalign.evaluation.suites import causal, modality, s_chain, stages, uncertainty
from clinalign.evaluation.suites.shares import field, slot
from clinalign.imaging.images import Mask, read_image
from clinalign.lesions.corruption import corrupt, seed_of
from clinalign.lesions.regions import control_region, native_mask, region_of
from clinalign.records import Example, Outcome

SAMPLES = 10
MASKED = "inpaint"
"""How evidence is masked, and a place that is none by the same operation."""
SIDE = 6
"""Where nothing tells the shape of a mask, it is a square of this part of the image's height."""
Images = list[np.ndarray]
Prompts = Sequence[tuple[str, Images]]
Answer = Callable[[Prompts, int | None], Sequence[str]]
"""Prompts with images, and the seed of a draw or None for the system's own decoder, into texts in their order."""


class Question(NamedTuple):
    """What is asked: `given` is the beginning of the answer, and stands before the model's own text."""

    example: Example
    condition: str
    prompt: str
    images: Images
    given: str = ""


def questions(suite: str, examples: Sequence[Example], folder: Path) -> Iterator[Question]:
    """Every question of a suite, condition by condition. Raises `RowError` for an image that cannot be read."""
    yield from _ASKED.get(suite, _plain)(examples, folder)


def run(
    suite: str,
    examples: Sequence[Example],
    folder: Path,
    answer: Answer,
    *,
    system: str,
    decoder: str = "greedy",
    seed: int = 0,
    samples: int = SAMPLES,
    batch: int = 64,
) -> list[Outcome]:
    """The outcomes of a system on a suite; `evaluation.suites` sums them up. They are not judged: the scorers read the
    texts."""
    outcomes: list[Outcome] = []

    def put(part: list[Question], draw: int | None = None) -> None:
        texts = answer([(question.prompt, question.images) for question in part], draw)
        for question, text in zip(part, texts, strict=True):
            whole = f"{question.given}{text}" if question.given else text
            condition = question.condition if draw is None else uncertainty.SAMPLED
            outcomes.append(_outcome(question.example, suite, system, decoder, draw or seed, condition, whole))

    waiting: list[Question] = []
    for question in questions(suite, examples, folder):
        waiting.append(question)
        if len(waiting) == batch:
            put(waiting)
            waiting = []
    put(waiting)
    if suite == "uncertainty":
        asked = list(questions(suite, examples, folder))
        for draw in range(1, samples + 1):
            for start in range(0, len(asked), batch):
                put(asked[start : start + batch], draw)
    return outcomes


def _outcome(example: Example, suite: str, system: str, decoder: str, seed: int, condition: str, text: str) -> Outcome:
    return Outcome(
        example.id, example.task, suite, system, decoder, seed, condition, text, None, "none", length=len(text.split())
    )


def _plain(examples: Sequence[Example], folder: Path) -> Iterator[Question]:
    for example in examples:
        yield Question(example, "clean", example.question, _own(example, folder))


def _chains(examples: Sequence[Example], folder: Path) -> Iterator[Question]:
    """The chain asked for, with k right steps given, and with the first step's boxes of another patient given."""
    yield from _plain(examples, folder)
    donors = _ring(examples)
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
    shapes = {e.images[0]: e for e in examples if region_of(e) is not None}
    for example in examples:
        shape = shapes.get(example.images[0]) if example.images else None
        for condition, images in masked(example, folder, shape).items():
            yield Question(example, condition, example.question, images)


def masked(example: Example, folder: Path, shape: Example | None = None) -> dict[str, Images]:
    """The images of the target mask (with a region only) and of the irrelevant mask (where there is room for one).

    The irrelevant place has the shape of the evidence, or where the finding is absent that of `shape`, another question
    about the same image, or a square. It lies off both, and is masked by the same operation.
    """
    if not example.images:
        return {}
    native = _own(example, folder)
    image = native[0]
    own = region_of(example)
    evidence = native_mask(own, folder, image.shape[:2]) if own else None
    other = region_of(shape) if shape is not None else None
    pattern = evidence if evidence is not None else native_mask(other, folder, image.shape[:2]) if other else None
    avoid = pattern
    if pattern is None:
        pattern = _square(image)
    elsewhere = control_region(pattern, image, avoid)
    found: dict[str, Images] = {}
    if evidence is not None and not evidence.all():
        found[causal.TARGET] = [_drawn(image, evidence), *native[1:]]
    if elsewhere is not None:
        found[causal.CONTROL] = [_drawn(image, elsewhere), *native[1:]]
    return found


def _drawn(image: np.ndarray, mask: Mask) -> np.ndarray:
    return corrupt(image, mask, MASKED, 0.0, seed_of(image, mask, MASKED, 0.0))


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
    others, alike = _ring(pictured), causal.same_label_donors(pictured)
    for example in pictured:
        yield Question(example, "no_image", modality.prompt(example, "no_image"), [])
    for example in pictured:
        yield Question(example, "no_text", modality.prompt(example, "no_text"), _own(example, folder))
        yield Question(example, "clean", modality.prompt(example, "clean"), _own(example, folder))
    for condition in ("blank", "noise", "shuffled", "same_label"):
        for example in pictured:
            donor = others[example.id] if condition == "shuffled" else alike.get(example.id)
            if condition in ("blank", "noise"):
                images = [_without(image, condition, example.id) for image in _own(example, folder)]
            elif donor is not None:
                images = _own(donor, folder)
            else:
                continue
            yield Question(example, condition, modality.prompt(example, "clean"), images)
    for example in pictured:
        context = str(slot(others[example.id], "context") or "")
        prompt = modality.prompt(example, "shuffled_text", context)
        yield Question(example, "shuffled_text", prompt, _own(example, folder))


def _without(image: np.ndarray, condition: str, name: str) -> np.ndarray:
    """A black image, or grey noise (SD 64 around mid-grey) drawn from the example's id."""
    if condition == "blank":
        return np.zeros_like(image)
    rng = np.random.default_rng(int(_stable(name)[:16], 16))
    grey = rng.normal(128, 64, image.shape[:2]).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _stages(examples: Sequence[Example], folder: Path) -> Iterator[Question]:
    for condition in ("clean", *stages.REPLACED):
        for example in examples:
            yield Question(example, condition, stages.prompt(example, condition), _own(example, folder))


_ASKED: dict[str, Callable[[Sequence[Example], Path], Iterator[Question]]] = {
    "s_chain": _chains,
    "causal": _interventions,
    "modality": _arms,
    "stages": _stages,
}


def _own(example: Example, folder: Path) -> Images:
    return [read_image(folder / image) for image in example.images]


def _ring(examples: Sequence[Example]) -> dict[str, Example]:
    """For every example one of another patient: patients in the order of a hash, each takes from the next."""
    first = {causal.patient(example): example for example in sorted(examples, key=lambda e: e.id, reverse=True)}
    ring = sorted(first, key=_stable)
    if len(ring) < 2:
        raise RowError("patient_id", "one_patient", "a suite needs two patients: each takes the image of another")
    after = dict(zip(ring, ring[1:] + ring[:1], strict=True))
    return {example.id: first[after[causal.patient(example)]] for example in examples}


def _stable(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
