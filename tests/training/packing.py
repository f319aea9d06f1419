"""Random samples for the tests of the packed step."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from clinalign.models import VLM
from clinalign.objectives import METHODS, VIEWS, LossCoefficients, Method
from clinalign.training.batches import plan_for
from clinalign.training.encode import Sample, view_prompts

SIZES = dict.fromkeys(tiny.EVERY_FAMILY, [(32, 24), (24, 40)]) | {"llava": [(40, 32), (32, 48), (64, 64)]}


def read(vlm: VLM):
    """Reader of made-up images: the key "3" is image 3, "3x" its corrupted copy, "3+" and "3++" lie between."""

    def load(key: str) -> np.ndarray:
        number = int(key.rstrip("x+"))
        height, width = SIZES[vlm.family.name][number % len(SIZES[vlm.family.name])]
        picture = tiny.image(number, height, width)
        if key[-1] in "x+":
            size = 8 if key.endswith("x") else 2 * key.count("+")
            picture = picture.copy()
            picture[8 : 8 + size, 8 : 8 + size] = 255 - picture[8 : 8 + size, 8 : 8 + size]
        return picture

    return load


def sample(
    vlm: VLM,
    number: int,
    rng: np.random.Generator,
    *,
    images: int = 1,
    corrupted: bool = True,
    fork: int = 2,
    tails: tuple[int, int] = (3, 4),
    spans: tuple[int, int] = (2, 2),
    counterfactual: bool = True,
    example: str = "",
    prompt: str = "Where is the nodule?",
) -> Sample:
    """Random answers: `fork` shared tokens, tails of the given lengths, spans of the given sizes (0: none); with
    `counterfactual` a third answer, which shares at most as much."""
    words = np.setdiff1d(np.arange(8, len(vlm.tokenizer)), vlm.banned_ids + vlm.eos_ids)
    keys = [str(10 * number + i) for i in range(images)]
    grids = [vlm.image_grid(read(vlm)(key)) for key in keys]
    shared, answers, marks = rng.choice(words, fork).tolist(), {}, {}
    for n, (side, tail) in enumerate(zip(("chosen", "rejected"), tails, strict=True)):
        body = rng.choice(words, tail).tolist()
        if tail:
            body[0] = int(words[2 * number + n])
        answers[side] = shared + body + vlm.eos_ids[:1]
        size = min(spans[n], len(answers[side]))
        marks[side] = [False] * len(answers[side])
        for i in rng.choice(len(answers[side]), size, replace=False):
            marks[side][int(i)] = True
    if counterfactual:
        own = np.random.default_rng(number)  # the other answers are the same with and without it
        tail = own.choice(words, 1 + number % 3).tolist()
        answers["counterfactual"] = shared[: max(0, fork - number % 2)] + tail + vlm.eos_ids[:1]
        marks["counterfactual"] = [own.random() < 0.5 for _ in answers["counterfactual"]]
    own = np.random.default_rng(100 + number)
    answers["mismatched"] = own.choice(words, 2 + number % 3).tolist() + vlm.eos_ids[:1]
    marks["mismatched"] = [False] * len(answers["mismatched"])
    return Sample(
        id=f"pair{number}",
        example_id=example or f"example{number}",
        prompt=vlm.expand(prompt, grids),
        grids=grids,
        answers=answers,
        spans=marks,
        images=keys,
        corrupted=[f"{key}x" for key in keys] if corrupted and images else None,
        weight=0.25 + number,
        ladder=[[key + step for key in keys] for step in ("+", "++")[: 2 - number % 2]] if corrupted and images else [],
        prompts=view_prompts(vlm, prompt, grids, VIEWS),
        kind=("side", "size")[number % 2],
    )


def methods_to_try(coefficients: LossCoefficients, every: bool) -> list[str]:
    """All methods, or as many as show every setting of a plan of scoring: what is asked of the model and of the cache
    follows from the plan, and what a loss makes of the answers has nothing to do with it."""
    if every:
        return list(METHODS)
    chosen: list[str] = []
    seen: set[tuple[str, object]] = set()
    for name, method in METHODS.items():
        settings = set(vars(plan_for(method, method.coefficients(coefficients))).items())
        if not settings <= seen:
            chosen.append(name)
            seen |= settings
    return chosen


EVERY_METHOD = pytest.mark.parametrize(
    "every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["every setting", "every method"]
)
"""For `methods_to_try`: a covering part, and in the slow tests all of them."""


def usable(samples: list[Sample], method: Method) -> list[Sample]:
    """Those that a method can be trained on."""
    has = {
        "corrupted_images": lambda s: s.corrupted is not None,
        "corrupted_answer": lambda s: "counterfactual" in s.answers,
        "ladder_images": lambda s: bool(s.ladder),
    }
    return [sample for sample in samples if all(has[field](sample) for field in method.needs)]
