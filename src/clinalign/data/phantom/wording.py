"""Words and sentence patterns of the phantom text: small enough for a model of a few million parameters.

Every answer pattern says its claim exactly once, so that one word (or the presence phrase) decides whether it is
true, and a minimal edit can turn it. Patterns are plain `str.format` strings; `{a}` is the finding with its
article, `{the}` the finding with "the", `{v}` the value of the claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

ARTICLES = {
    "nodule": "a nodule",
    "consolidation": "a consolidation",
    "pleural effusion": "a pleural effusion",
    "pneumothorax": "a pneumothorax",
    "cardiomegaly": "cardiomegaly",
    "atelectasis": "atelectasis",
}
"""Finding to noun phrase with its indefinite article."""

OPPOSITE = {"left": "right", "right": "left", "small": "large", "large": "small", "yes": "no", "no": "yes"}


class Rng(Protocol):
    """The only thing the text needs of a generator: `random.Random` and `numpy.random.Generator` both have it."""

    def random(self) -> float: ...


def pick(rng: Rng, values: Sequence[T]) -> T:
    """One of `values`, uniformly."""
    return values[int(rng.random() * len(values))]


def shuffled(rng: Rng, values: Sequence[T]) -> list[T]:
    """`values` in uniformly random order."""
    out = list(values)
    for i in range(len(out) - 1, 0, -1):
        j = int(rng.random() * (i + 1))
        out[i], out[j] = out[j], out[i]
    return out


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt with its answer.

    kind: which format it is (`text.KINDS_OF_QUESTION`); task: closed, open or report;
    answer: the short ground truth ("yes", "left", "small"), always the truth, also after contamination;
    full: the answer as a sentence (or a report); finding: the finding asked about, if one;
    slot: the kind of claim (presence, side, size, zone, finding, box, letter, image, knowledge, report, caption);
    slots: the true value of each claim, with what was asked in closed questions under "asked";
    prior: "conflicting" when the truth contradicts the language prior of the training text, "aligned" when it agrees,
    else "neutral".
    """

    kind: str
    task: str
    prompt: str
    answer: str
    full: str
    finding: str | None
    slot: str
    slots: dict[str, Any] = field(default_factory=dict)
    prior: str = "neutral"


PRESENCE_PROMPTS = (
    "Is there {a}?",
    "Is {a} present?",
    "Does the radiograph show {a}?",
    "Can {a} be seen on this image?",
    "Is {a} visible on this radiograph?",
    "Do you see {a}?",
)
PRESENCE_STYLES = (
    (
        "There is {a} visible on this frontal chest radiograph.",
        "There is no {f} visible on this frontal chest radiograph.",
    ),
    (
        "This radiograph of the chest shows {a} on careful review.",
        "This radiograph of the chest shows no {f} on careful review.",
    ),
    (
        "On this chest image, {a} can be seen on close inspection.",
        "On this chest image, no {f} can be seen on close inspection.",
    ),
    (
        "The chest image shows evidence of {a} on this view.",
        "The chest image shows no evidence of {a} on this view.",
    ),
    (
        "Signs of {a} are present on this frontal chest radiograph.",
        "Signs of {a} are absent on this frontal chest radiograph.",
    ),
)
"""(present, absent) patterns; the two differ only in the words that decide."""

SIDE_CLOSED_PROMPTS = (
    "Is the {f} on the {v} side?",
    "Does the {f} lie on the {v}?",
    "Is the {f} {v}-sided?",
    "Is the {f} in the {v} half of the chest?",
)
SIDE_PROMPTS = (
    "On which side is the {f}?",
    "Which side of the chest contains the {f}?",
    "Is the {f} on the left or the right side?",
    "Which side is affected by the {f}?",
    "Tell me the side of the {f}.",
)
SIDE_STYLES = (
    "The {f} is seen on the {v} side of the chest.",
    "This radiograph shows the {f} on the {v} side of the chest.",
    "On this image, the {f} lies in the {v} half of the chest.",
    "On careful review, the {f} is found on the patient's {v} side.",
    "The {v} side of the chest contains the {f} on this radiograph.",
)

SIZE_CLOSED_PROMPTS = (
    "Is the {f} {v}?",
    "Is this a {v} {f}?",
    "Would you call the {f} {v}?",
    "Does the {f} look {v}?",
)
SIZE_PROMPTS = (
    "What is the size of the {f}?",
    "How big is the {f}?",
    "Is the {f} small or large?",
    "How would you grade the size of the {f}?",
    "Tell me the size of the {f}.",
)
SIZE_STYLES = (
    "The {f} appears {v} in relation to the whole chest.",
    "On this radiograph, the {f} is {v} in its overall extent.",
    "This image of the chest shows the {f} to be {v} in size.",
    "Judging by its extent, the {f} on this image is {v}.",
    "A {v} {f} can be recognised on this frontal chest radiograph.",
)

ZONE_PROMPTS = (
    "In which lung zone is the {f}?",
    "Which zone contains the {f}?",
    "Which zone of the lung shows the {f}?",
    "Is the {f} in the upper, middle or lower zone?",
    "Tell me the lung zone of the {f}.",
)
ZONE_STYLES = (
    "The {f} lies in the {v} zone of the lung on this radiograph.",
    "On this chest image, the {f} is seen in the {v} lung zone.",
    "This radiograph shows the {f} within the {v} zone of the lung.",
    "The {v} zone of the lung contains the {f} on this image.",
    "On careful review, the {f} is found in the {v} lung zone.",
)

WHICH_PROMPTS = (
    "Which abnormality is seen in the {side} {zone} zone?",
    "What is the finding in the {side} {zone} zone?",
    "What does the {side} {zone} zone show?",
)
WHICH_STYLES = (
    "The abnormality that is seen in this part of the image is {a}.",
    "In the region asked about, this radiograph shows {a}.",
    "This part of the chest radiograph contains {a} on close inspection.",
    "On careful review, the finding in this area is {a}.",
)
WHICH_NONE = "No abnormality can be seen in this part of the image."

DENIED_PROMPTS = {
    "side": (
        "Where is the {f} located?",
        "Describe the location of the {f}.",
        "Where do you see the {f}?",
    ),
    "size": (
        "How extensive is the {f}?",
        "Describe the extent of the {f}.",
        "How much space does the {f} take up?",
    ),
}
"""Prompts that presuppose a finding; kept apart from the open prompts, which are asked of present findings only."""
DENIALS = {
    "side": (
        "There is no {f} on this radiograph, so no location can be given.",
        "This radiograph shows no {f}, so there is no location to describe.",
        "No {f} can be seen on this image, so it has no location.",
    ),
    "size": (
        "There is no {f} on this radiograph, so no extent can be given.",
        "This radiograph shows no {f}, so there is no extent to describe.",
        "No {f} can be seen on this image, so it has no extent.",
    ),
}


def fill(pattern: str, finding: str, value: str = "") -> str:
    """Fill `{f}`, `{a}` and `{v}` of a pattern."""
    return pattern.format(f=finding, a=ARTICLES[finding], v=value)
