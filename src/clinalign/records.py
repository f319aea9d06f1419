"""The only things that travel between rooms. Columns are a contract: add, never rename.

Paths are strings relative to the folder of the table that holds the record. Boxes are [x, y, w, h] in pixels of the
first image. Spans are half-open character ranges [start, end) into the text they belong to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Box = list[float]
Span = list[int]


@dataclass(slots=True)
class Region:
    """Where something is: a box in pixels, or the path of a mask image (non-zero inside), or both."""

    label: str
    box: Box | None = None
    mask: str | None = None


@dataclass(slots=True)
class Example:
    """One question about zero or more images, with its ground truth. `task` is closed, open or report.

    `regions[0]`, where present, is the region of the finding that the question is about.
    """

    id: str
    images: list[str]
    question: str
    answer: str
    task: str = "open"
    regions: list[Region] = field(default_factory=list)
    patient_id: str = ""
    modality: str = ""
    source: str = ""
    split: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Answer:
    """What a model said. `token_ids` are the sampled ids, EOS included; `finish_reason` is stop or length."""

    example_id: str
    model: str
    round: int
    prompt: str
    text: str
    token_ids: list[int]
    finish_reason: str
    decoder: str = "greedy"
    seed: int = 0


@dataclass(slots=True)
class Pair:
    """A minimal-edit preference pair. `own` chosen|rejected|none says which side is the model's own sampled text
    (token ids identical).

    `region_source` dataset|segmenter|none; `corruption` noise|inpaint|twin|crop|black|none; `corruption_area`
    lesion|image|none; `sigma` is the requested SD on the 0-255 scale.
    """

    id: str
    example_id: str
    round: int
    images: list[str]
    prompt: str
    chosen: str
    rejected: str
    chosen_spans: list[Span]
    rejected_spans: list[Span]
    own: str
    chosen_token_ids: list[int]
    rejected_token_ids: list[int]
    was_correct: bool
    edit_kind: str
    editor: str
    corrupted_images: list[str] | None = None
    control_images: list[str] | None = None
    region: Region | None = None
    region_source: str = "none"
    corruption: str = "none"
    corruption_area: str = "none"
    sigma: float = 0.0
    seed: int = 0


@dataclass(slots=True)
class Outcome:
    """One judged answer of one system to one example under one condition.

    `condition` clean|lesion_noise|control|removal|blank|noise|shuffled|no_image|attention; `correct` is None when no
    judge could tell.
    """

    example_id: str
    task: str
    suite: str
    system: str
    decoder: str
    seed: int
    condition: str
    text: str
    correct: bool | None
    judge: str
    reason: str = ""
    slots: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    length: int = 0


@dataclass(slots=True)
class TraceStep:
    """One step of an agent's work on a question: what went in (as a hash), what came out (as JSON), who, how long.

    `step` retrieve|decide|select|resolve|execute|answer|check; `fault` says what went wrong in it, or why the checker
    rejected; `images` it was shown, `masks` it made.
    """

    id: str
    question_id: str
    attempt: int
    number: int
    step: str
    who: str
    input_hash: str
    output: str
    output_hash: str
    seconds: float
    fault: str = ""
    images: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)


def files_of(example: Example) -> list[str]:
    """Names below the run folder of all the images that an example is shown or measured with: its own, the masks of
    its regions, its lesion-free twin."""
    twin = example.meta.get("twin")
    names = [*example.images, *(region.mask for region in example.regions if region.mask)]
    return [*names, twin] if isinstance(twin, str) and twin else names
