"""Further prompt formats of one image: options, presupposing prompts, boxes, indications, worked examples.

Images always come before the prompt; `text.IMAGES` says how many a format takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from clinalign.data.phantom.cases import KINDS, SIDES, SIZES, ZONES, Case, box, render
from clinalign.data.phantom.language_prior import DENIED_FINDINGS, prior
from clinalign.data.phantom.questions import CLAIMS, STYLES, claim_questions
from clinalign.data.phantom.reports import LUNG
from clinalign.data.phantom.text_only import any_finding, given, knowledge, no_image
from clinalign.data.phantom.wording import (
    DENIALS,
    DENIED_PROMPTS,
    Question,
    Rng,
    fill,
    pick,
    shuffled,
)

LETTERS = "ABCDE"

_OTHER_OPTIONS = {
    "side": ("both sides", "neither side", "midline"),
    "size": ("absent", "not measurable", "unchanged"),
    "zone": ("all zones", "no zone"),
}
_OPTION_QUESTIONS = {
    "side": ("On which side is the {f}?", "Which side of the chest contains the {f}?"),
    "size": ("What is the size of the {f}?", "How big is the {f}?"),
    "zone": ("In which lung zone is the {f}?", "Which zone contains the {f}?"),
    "finding": ("Which abnormality is present?", "Which of these findings is seen?"),
}
_OPTION_STYLES = (
    "The answer is {x}, as seen on this chest radiograph.",
    "Option {x}, is the best answer for this image.",
    "Based on this image, the correct option is {x}.",
    "From the listed choices, {x}, fits this radiograph best.",
)
_OPTION_LAYOUTS = (" {l}. {o}", "\n{l}. {o}", "\n({l}) {o}")

_BOX_PROMPTS = ("Give the bounding box of the {f}.", "Locate the {f} with a box.", "Draw a box around the {f}.")
_BOX_STYLES = ("The {f} is at {x}.", "The box of the {f} is {x}.")


def options(case: Case, rng: Rng) -> list[Question]:
    """Questions with five lettered options; the short ground truth is the letter."""
    claims = [(f.kind, slot, getattr(f, slot)) for f in case.findings for slot in ("side", "size", "zone")]
    claims = [c for c in claims if c[2] is not None and not (c[1] == "zone" and c[0] not in LUNG)]
    out = [_options(rng, slot, value, kind, shuffled(rng, _distractors(slot, value))) for kind, slot, value in claims]
    found = {f.kind for f in case.findings}
    absent = [kind for kind in KINDS if kind not in found]
    if found and len(absent) >= 4:
        gold = pick(rng, sorted(found))
        out.append(_options(rng, "finding", gold, gold, shuffled(rng, absent)[:4]))
    return out


def _distractors(slot: str, gold: str) -> list[str]:
    values = {"side": SIDES, "size": SIZES, "zone": ZONES}[slot]
    return [v for v in values if v != gold] + list(_OTHER_OPTIONS[slot])


def _options(rng: Rng, slot: str, gold: str, finding: str, distractors: Sequence[str]) -> Question:
    listed = shuffled(rng, [gold, *distractors])
    layout = pick(rng, _OPTION_LAYOUTS)
    prompt = fill(pick(rng, _OPTION_QUESTIONS[slot]), finding)
    prompt += "".join(layout.format(l=letter, o=option) for letter, option in zip(LETTERS, listed, strict=True))
    letter = LETTERS[listed.index(gold)]
    full = pick(rng, _OPTION_STYLES).format(x=f"{letter}, {gold}")
    slots = {slot: gold, "letter": letter, "options": listed}
    return Question("options", "closed", prompt, letter, full, finding, slot, slots, prior(slot, gold, finding))


def presupposed(case: Case, rng: Rng) -> list[Question]:
    """Prompts that presuppose a finding: where it is or how far it extends, or an honest denial if it is absent."""
    found = {f.kind: f for f in case.findings}
    out = []
    for kind in KINDS:
        if kind == "cardiomegaly":
            continue
        slot = pick(rng, ("side", "size"))
        prompt = fill(pick(rng, DENIED_PROMPTS[slot]), kind)
        biased = kind in DENIED_FINDINGS
        if kind in found:
            value = getattr(found[kind], slot)
            full = fill(pick(rng, STYLES[slot]), kind, value)
            slots = {"presence": "yes", slot: value}
            label = "conflicting" if biased else prior(slot, value, kind)
        else:
            value, full = "none", fill(pick(rng, DENIALS[slot]), kind)
            slots = {"presence": "no", slot: None}
            label = "aligned" if biased else "neutral"
        out.append(Question("presupposed", "open", prompt, value, full, kind, slot, slots, label))
    return out


def boxes(case: Case, rng: Rng) -> list[Question]:
    """Bounding boxes as text: [x, y, w, h], integers from 0 to 63 on a grid of 64 x 64 over the image."""
    out = []
    for finding, corners in zip(case.findings, grid_boxes(case), strict=True):
        if finding.kind == "cardiomegaly":
            continue
        text = "[" + ", ".join(str(min(63, c)) for c in corners) + "]"
        full = pick(rng, _BOX_STYLES).format(f=finding.kind, x=text)
        prompt = fill(pick(rng, _BOX_PROMPTS), finding.kind)
        out.append(Question("box", "open", prompt, text, full, finding.kind, "box", {"box": text}))
    return out


@lru_cache(maxsize=256)
def grid_boxes(case: Case) -> tuple[tuple[int, int, int, int], ...]:
    """x, y, w, h of every finding of the case at 64 px."""
    return tuple(box(mask) for mask in render(case, 64).masks)


def indication(case: Case, rng: Rng) -> list[Question]:
    """Claim questions with an indication line in front; `slots["indication"]` says what it does.

    carries: it names the queried finding and the true side; contradicts: it names a wrong side or an absent finding;
    other: it is about something else.
    """
    out = []
    for question in claim_questions(case, rng):
        line, effect = _indication_line(case, question, rng)
        slots = {**question.slots, "indication": effect, "base": question.kind}
        out.append(replace(question, kind="indication", prompt=f"Indication: {line}. {question.prompt}", slots=slots))
    return out


def _indication_line(case: Case, question: Question, rng: Rng) -> tuple[str, str]:
    kind = question.finding
    assert kind is not None
    found = next((f for f in case.findings if f.kind == kind), None)
    draw = rng.random()
    if draw < 0.5 or kind == "cardiomegaly":
        return pick(rng, ("cough", "fever", "chest pain", "short of breath", "follow-up", "routine check")), "other"
    side = pick(rng, SIDES)
    effect = "carries" if found is not None and side == found.side else "contradicts"
    if question.slot not in ("side", "presence"):
        effect = "other"
    return f"suspected {side} {kind}", effect


def example(case: Case, rng: Rng, shown: Case | None = None) -> list[Question]:
    """Claim questions after one worked example in the prompt.

    Without `shown` the example is a question and answer about nothing in view (one image); with it the first of two
    images is the example's.
    """
    out = []
    for question in claim_questions(case, rng):
        source = shown or Case(case.patient, tuple(any_finding(k, rng) for k in LUNG if rng.random() < 0.5))
        shots = CLAIMS[question.kind](source, rng) or CLAIMS["presence"](source, rng)
        shot = pick(rng, shots)
        if shown is None:
            prompt = f"Example: {shot.prompt} {shot.full} Question: {question.prompt}"
        else:
            prompt = f"Image 1 is an example: {shot.prompt} {shot.full} Question about image 2: {question.prompt}"
        slots = {**question.slots, "base": question.kind}
        out.append(replace(question, kind="example" if shown is None else "example_image", prompt=prompt, slots=slots))
    return out


FORMATS: dict[str, Callable[[Case, Rng], list[Question]]] = {
    "options": options,
    "presupposed": presupposed,
    "box": boxes,
    "indication": indication,
    "knowledge": knowledge,
    "given": given,
    "no_image": no_image,
    "example": example,
}
"""Formats of no or one image: name -> builder(case, rng)."""
