"""Phantom prompts about two images: where a finding is, whether it has resolved, a worked example with its image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from clinalign.data.phantom.cases import KINDS, Case, counterfactual
from clinalign.data.phantom.formats import example
from clinalign.data.phantom.wording import OPPOSITE, Question, Rng, fill, pick

_COMPARE_PROMPTS = ("In which image is there {a}?", "Which image shows {a}?", "Compare the images. Where is {a} seen?")
_COMPARE_STYLES = {
    "first": ("Of the two images, the first image shows {a}.", "Of the two, {a} is seen in the first image."),
    "second": ("Of the two images, the second image shows {a}.", "Of the two, {a} is seen in the second image."),
    "both": ("Of the two images, both show {a}.", "Of the two, {a} is seen in both."),
    "neither": ("Of the two images, neither shows {a}.", "Of the two, {a} is seen in neither."),
}
_CHANGE_PROMPTS = ("Has the {f} resolved in the second image?", "Is the {f} gone in the second image?")
_CHANGE_STYLES = {
    "yes": (
        "The {f} of the first image has resolved in the second image.",
        "In the second image, the {f} can no longer be seen.",
    ),
    "no": (
        "The {f} of the first image has not resolved in the second image.",
        "In the second image, the {f} can still be seen.",
    ),
}


def compare(first: Case, second: Case, rng: Rng) -> list[Question]:
    """In which of two images each kind is seen: first, second, both or neither."""
    kinds = [{f.kind for f in case.findings} for case in (first, second)]
    out = []
    for kind in KINDS:
        where = {(1, 0): "first", (0, 1): "second", (1, 1): "both", (0, 0): "neither"}[
            (int(kind in kinds[0]), int(kind in kinds[1]))
        ]
        full = fill(pick(rng, _COMPARE_STYLES[where]), kind)
        prompt = fill(pick(rng, _COMPARE_PROMPTS), kind)
        out.append(Question("compare", "closed", prompt, where, full, kind, "image", {"image": where}))
    return out


def follow_up(first: Case, rng: Rng) -> tuple[Case, Case] | None:
    """The case and a later image of the same patient in which one finding resolved or changed its size.

    None if the case is normal.
    """
    if not first.findings:
        return None
    index = int(rng.random() * len(first.findings))
    if first.findings[index].size is None or rng.random() < 0.5:
        return first, counterfactual(first, index)
    finding = first.findings[index]
    return first, counterfactual(first, index, replace(finding, size=OPPOSITE[finding.size or ""]))


def resolved(first: Case, second: Case, rng: Rng) -> list[Question]:
    """Whether each finding of the first image is gone in the second."""
    left = {f.kind for f in second.findings}
    out = []
    for finding in first.findings:
        answer = "no" if finding.kind in left else "yes"
        full = fill(pick(rng, _CHANGE_STYLES[answer]), finding.kind)
        prompt = fill(pick(rng, _CHANGE_PROMPTS), finding.kind)
        slots = {"resolved": answer}
        out.append(Question("resolved", "closed", prompt, answer, full, finding.kind, "image", slots))
    return out


def example_image(first: Case, second: Case, rng: Rng) -> list[Question]:
    """Claim questions about the second image; the first comes with a worked example."""
    return example(second, rng, shown=first)


PAIR_FORMATS: dict[str, Callable[[Case, Case, Rng], list[Question]]] = {
    "compare": compare,
    "resolved": resolved,
    "example_image": example_image,
}
"""Formats of two images: name -> builder(first, second, rng)."""
