"""Further prompt formats: options, presupposing prompts, boxes, indications, text only, two images, worked examples.

Images always come before the prompt; `text.IMAGES` says how many a format takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from clinalign.data.phantom.cases import KINDS, SIDES, SIZES, ZONES, Case, Finding, box, render, twin
from clinalign.data.phantom.habit import HABIT_FINDINGS, prior
from clinalign.data.phantom.questions import CLAIM_KINDS, CLAIMS, STYLES, claim_questions
from clinalign.data.phantom.reports import LUNG, REPORT_PROMPTS, phrase
from clinalign.data.phantom.wording import (
    ARTICLES,
    DENIALS,
    DENIED_PROMPTS,
    OPPOSITE,
    SIDE_PROMPTS,
    SIZE_PROMPTS,
    ZONE_PROMPTS,
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

_NO_IMAGE = (
    "I cannot see an image here, so I cannot answer this question.",
    "No image was given, so this question cannot be answered.",
    "There is no image to look at, so I cannot tell.",
    "Without an image, I am not able to answer this question.",
)
_GIVEN_PROMPTS = (
    "A report says: There is {x}. {q}",
    "Use only this text: {x}. {q}",
    "The text reads: The image shows {x}. {q}",
)
_GIVEN_STYLES = {
    "side": ("According to the text, the {f} is on the {v} side.", "The text places the {f} on the {v} side."),
    "size": ("According to the text, the {f} is {v} in its extent.", "The text describes the {f} as a {v} one."),
    "zone": ("According to the text, the {f} is in the {v} zone.", "The text places the {f} in the {v} zone."),
}
_GIVEN_QUESTIONS = {"side": SIDE_PROMPTS, "size": SIZE_PROMPTS, "zone": ZONE_PROMPTS}

KNOWLEDGE = (
    (
        "What does {a} look like?",
        {
            "nodule": "A nodule looks like a round bright spot in the lung.",
            "consolidation": "A consolidation looks like a bright patch with soft edges in the lung.",
            "pleural effusion": "A pleural effusion looks like a bright fluid layer at the base of the chest.",
            "pneumothorax": "A pneumothorax looks like a dark rim without lung texture at the top of the chest.",
            "cardiomegaly": "Cardiomegaly looks like a heart shadow that is too wide for the chest.",
            "atelectasis": "An atelectasis looks like a bright band in the lung.",
        },
    ),
    (
        "What is {a}?",
        {
            "nodule": "A nodule is a round lesion inside the lung.",
            "consolidation": "A consolidation is a part of the lung that is filled with fluid.",
            "pleural effusion": "A pleural effusion is fluid in the pleural space around the lung.",
            "pneumothorax": "A pneumothorax is air in the pleural space around the lung.",
            "cardiomegaly": "Cardiomegaly is a heart that is bigger than normal.",
            "atelectasis": "An atelectasis is a part of the lung that has lost its air.",
        },
    ),
    (
        "Which part of the chest is affected by {a}?",
        {
            "nodule": "A nodule affects the lung.",
            "consolidation": "A consolidation affects the lung.",
            "pleural effusion": "A pleural effusion affects the pleural space.",
            "pneumothorax": "A pneumothorax affects the pleural space.",
            "cardiomegaly": "Cardiomegaly affects the heart.",
            "atelectasis": "An atelectasis affects the lung.",
        },
    ),
)
"""Text-only facts about the phantom findings: (prompt pattern, answer per finding)."""
GENERAL = (
    ("Which side of the image shows the patient's left?", "The right side of the image shows the patient's left."),
    ("Which side of the image shows the patient's right?", "The left side of the image shows the patient's right."),
    ("What are the zones of a lung?", "The zones of a lung are the upper, the middle and the lower zone."),
    ("Are these images real?", "These images are phantoms and not real radiographs."),
)
"""Text-only facts about the phantom images in general."""


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
        habit = kind in HABIT_FINDINGS
        if kind in found:
            value = getattr(found[kind], slot)
            full = fill(pick(rng, STYLES[slot]), kind, value)
            slots = {"presence": "yes", slot: value}
            label = "against" if habit else prior(slot, value, kind)
        else:
            value, full = "none", fill(pick(rng, DENIALS[slot]), kind)
            slots = {"presence": "no", slot: None}
            label = "with" if habit else "none"
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


def knowledge(case: Case | None, rng: Rng) -> list[Question]:
    """One fact of the phantom world, without an image."""
    if rng.random() < 0.2:
        prompt, full = pick(rng, GENERAL)
        return [_text_only("knowledge", prompt, full, full, "knowledge", {})]
    prompt, answers = pick(rng, KNOWLEDGE)
    kind = pick(rng, KINDS)
    return [_text_only("knowledge", fill(prompt, kind), answers[kind], answers[kind], "knowledge", {})]


def given(case: Case, rng: Rng) -> list[Question]:
    """A question that the text in the prompt answers, without an image."""
    out = []
    for finding in case.findings:
        if finding.side is None:
            continue
        slot = pick(rng, ("side", "size", "zone") if finding.kind in LUNG else ("side", "size"))
        value = getattr(finding, slot)
        asked = fill(pick(rng, _GIVEN_QUESTIONS[slot]), finding.kind)
        prompt = pick(rng, _GIVEN_PROMPTS).format(x=phrase(finding), q=asked)
        full = fill(pick(rng, _GIVEN_STYLES[slot]), finding.kind, value)
        out.append(_text_only("given", prompt, value, full, slot, {slot: value}, finding.kind))
    return out


def no_image(case: Case, rng: Rng) -> list[Question]:
    """A question about an image that is not there."""
    full = pick(rng, _NO_IMAGE)
    kind = pick(rng, (*CLAIM_KINDS, "report"))
    if kind == "report":
        return [_text_only("no_image", pick(rng, REPORT_PROMPTS), "no image", full, "image", {"image": "no"})]
    anything = Case(case.patient, tuple(_any_finding(kind, rng) for kind in ("nodule", "consolidation", "atelectasis")))
    question = pick(rng, CLAIMS[kind](anything, rng))
    return [_text_only("no_image", question.prompt, "no image", full, "image", {"image": "no"}, question.finding)]


def _any_finding(kind: str, rng: Rng) -> Finding:
    return Finding(kind, pick(rng, SIDES), pick(rng, ZONES), pick(rng, SIZES))


def _text_only(
    kind: str, prompt: str, answer: str, full: str, slot: str, slots: dict[str, str], finding: str | None = None
) -> Question:
    return Question(kind, "open", prompt, answer, full, finding, slot, slots)


def example(case: Case, rng: Rng, shown: Case | None = None) -> list[Question]:
    """Claim questions after one worked example in the prompt.

    Without `shown` the example is a question and answer about nothing in view (one image); with it the first of two
    images is the example's.
    """
    out = []
    for question in claim_questions(case, rng):
        source = shown or Case(case.patient, tuple(_any_finding(k, rng) for k in LUNG if rng.random() < 0.5))
        shots = CLAIMS[question.kind](source, rng) or CLAIMS["presence"](source, rng)
        shot = pick(rng, shots)
        if shown is None:
            prompt = f"Example: {shot.prompt} {shot.full} Question: {question.prompt}"
        else:
            prompt = f"Image 1 is an example: {shot.prompt} {shot.full} Question about image 2: {question.prompt}"
        slots = {**question.slots, "base": question.kind}
        out.append(replace(question, kind="example" if shown is None else "example_image", prompt=prompt, slots=slots))
    return out


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
        return first, twin(first, index)
    finding = first.findings[index]
    return first, twin(first, index, replace(finding, size=OPPOSITE[finding.size or ""]))


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

PAIR_FORMATS: dict[str, Callable[[Case, Case, Rng], list[Question]]] = {
    "compare": compare,
    "resolved": resolved,
    "example_image": example_image,
}
"""Formats of two images: name -> builder(first, second, rng)."""

assert set(ARTICLES) == set(KINDS)
