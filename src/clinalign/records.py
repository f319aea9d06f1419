"""The only things that travel between packages. Columns are a contract: add, never rename.

Paths are strings relative to the folder of the table that holds the record. Boxes are [x, y, w, h] in pixels of their
image. Spans are half-open character ranges [start, end) into the text they belong to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

Box = list[float]
Span = list[int]
PLACE = "\ufffc"
"""Where an image stands in a prompt that says so: Unicode's object replacement character, no word of any model."""


@dataclass(slots=True)
class Region:
    """Where something is: a box in pixels, or the path of a mask image (non-zero inside), or both, on one of the
    example's images (`image`, from 0)."""

    label: str
    box: Box | None = None
    mask: str | None = None
    image: int = 0


@dataclass(slots=True)
class Example:
    """One question about zero or more images, with its ground truth. `task` is closed, open or report.

    `regions[0]`, where present, is the region of the finding that the question is about; those of the same label on
    other images are of the same finding (slices that one lesion crosses). `captions`: what is said before the first
    of several images and behind each, such as SLICE 3; `counterfactuals`: of several images, what stands in each one's
    place without the finding. What a source does not give is empty: `finding`, `slot`, `kind` of the question; `prior`
    conflicting|aligned|neutral, how the truth stands to the language prior; `full` the answer as a sentence; `slots`
    the true value of each claim; `rejected` a worse answer; `counterfactual` the image without the finding; `options`
    of a multiple choice; `row` of the source, from 1; `statements` what each option says, as a sentence; `fixed_order`
    of the options where the source never varies it; `laterality` OD (right eye) or OS (left). `meta` is provenance: no
    code reads it.
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
    finding: str = ""
    slot: str = ""
    kind: str = ""
    prior: str = ""
    full: str = ""
    slots: dict[str, Any] = field(default_factory=dict)
    rejected: str = ""
    counterfactual: str = ""
    options: list[str] = field(default_factory=list)
    row: int = 0
    statements: list[str] = field(default_factory=list)
    fixed_order: list[str] = field(default_factory=list)
    laterality: str = ""
    captions: list[str] = field(default_factory=list)
    counterfactuals: list[str] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """What a model is asked: the question, behind the images and what is said of them where they have captions."""
        if not self.captions or len(self.captions) != len(self.images) + 1:
            return self.question
        return PLACE.join(self.captions) + ("\n\n" if self.captions[-1] else "") + self.question


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


class Side(NamedTuple):
    """One side of a pair: its text, the spans that differ from the other side, its token ids (EOS included)."""

    text: str
    spans: list[Span]
    token_ids: list[int]


@dataclass(slots=True)
class Pair:
    """A minimal-edit preference pair. `own` chosen|rejected|none says which side is the model's own sampled text
    (token ids identical).

    `corrupted_answer` is the answer that is right under `corrupted_images`, with the spans and ids of it; "" where none
    is known. `flips`: the rejected answer is right there. `weight` of the pair, for losses that weigh pairs.
    `ladder_images`: between `images` and `corrupted_images`, versions that show less and less.
    `region_source` dataset|segmenter|none; `corruption` noise|inpaint|counterfactual|crop|black|none; `corruption_area`
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
    corrupted_answer: str = ""
    corrupted_answer_spans: list[Span] = field(default_factory=list)
    corrupted_answer_token_ids: list[int] = field(default_factory=list)
    flips: bool = True
    weight: float = 1.0
    ladder_images: list[list[str]] = field(default_factory=list)

    @classmethod
    def make(
        cls,
        example: Example,
        chosen: Side,
        rejected: Side,
        *,
        id: str,
        own: str,
        was_correct: bool,
        edit_kind: str,
        editor: str,
        prompt: str = "",
        round: int = 0,
        seed: int = 0,
    ) -> Pair:
        """The pair of two sides of one example's answer, with its first region and no corruption yet; `prompt` ""
        stands for what the example asks."""
        region = example.regions[0] if example.regions else None
        return cls(
            id=id,
            example_id=example.id,
            round=round,
            images=list(example.images),
            prompt=prompt or example.prompt,
            chosen=chosen.text,
            rejected=rejected.text,
            chosen_spans=chosen.spans,
            rejected_spans=rejected.spans,
            own=own,
            chosen_token_ids=chosen.token_ids,
            rejected_token_ids=rejected.token_ids,
            was_correct=was_correct,
            edit_kind=edit_kind,
            editor=editor,
            region=region,
            region_source="dataset" if region is not None else "none",
            seed=seed,
        )


@dataclass(slots=True)
class Outcome:
    """One judged answer of one system to one example under one condition.

    `suite` is the data set of a run's own question, or `suites/NAME` (`evaluation.suites`), whose scorer reads the text
    (`judge` none). `correct` is None when no judge could tell. `metrics`: what the text alone gives;
    in `suites/modality` the probabilities of the choices, `p:yes`.
    `condition` clean|lesion_noise|control|counterfactual|inpainted|control_counterfactual|control_inpainted|blank|noise
    |shuffled|no_image, and in suites
    |same_label|target_mask|irrelevant_mask|no_text|shuffled_text|step_given_1|step_given_2|step_given_3|step_given_4
    |shuffled_boxes|given_recognition|given_knowledge|given_both|sampled|fixed_order.
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
class Measurement:
    """One number that was measured of one system on one example besides its answer.

    `name` margin|p_yes|drift|drift_claim|drift_rest|truth_nll|attention_ratio|attention_kl|attention_js
    |attention_pointing|lesion_area|rewarded; `condition` as in `Outcome`; `level` what the name is measured at: the
    noise's SD, a decoder layer, a percentage of the tokens.
    `value` is None where it could not be measured; `reason` then says why.
    """

    example_id: str
    system: str
    decoder: str
    seed: int
    condition: str
    name: str
    value: float | None
    level: float | None = None
    reason: str = ""


@dataclass(slots=True)
class TraceStep:
    """One step of an agent's work on a question: what went in (as a hash), what came out (as JSON), who, how long.

    `step` retrieve|decide|select|resolve|execute|answer|check; `error` says what went wrong in it, or why the checker
    rejected; `images` it was shown, `masks` it made; `system` whose step it is, within which its `id` is one step's.
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
    error: str = ""
    images: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    system: str = ""


def without_finding(example: Example) -> list[str]:
    """An example's images without the finding, as many as it has; none where they are not known."""
    first = [example.counterfactual, *example.images[1:]] if example.counterfactual else []
    return example.counterfactuals or first


def files_of(example: Example) -> list[str]:
    """Names below the run folder of all the images that an example is shown or measured with: its own, the masks of
    its regions, its counterfactual images."""
    names = [*example.images, *(region.mask for region in example.regions if region.mask), *without_finding(example)]
    return list(dict.fromkeys(names))
