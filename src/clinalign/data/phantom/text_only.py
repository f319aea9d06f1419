"""Phantom prompts without an image: facts, questions that a text in the prompt answers, and no image to look at."""

from __future__ import annotations

from clinalign.data.phantom.cases import KINDS, SIDES, SIZES, ZONES, Case, Finding
from clinalign.data.phantom.questions import CLAIM_KINDS, CLAIMS
from clinalign.data.phantom.reports import LUNG, REPORT_PROMPTS, phrase
from clinalign.data.phantom.wording import SIDE_PROMPTS, SIZE_PROMPTS, ZONE_PROMPTS, Question, Rng, fill, pick

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
    "size": (
        "According to the text, the {f} is {v} in its extent.",
        "The text describes the {f} as {v} in its extent.",
    ),
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
            "atelectasis": "Atelectasis looks like a bright band in the lung.",
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
            "atelectasis": "Atelectasis is a part of the lung that has lost its air.",
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
            "atelectasis": "Atelectasis affects the lung.",
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
    anything = Case(case.patient, tuple(any_finding(kind, rng) for kind in ("nodule", "consolidation", "atelectasis")))
    question = pick(rng, CLAIMS[kind](anything, rng))
    return [_text_only("no_image", question.prompt, "no image", full, "image", {"image": "no"}, question.finding)]


def any_finding(kind: str, rng: Rng) -> Finding:
    return Finding(kind, pick(rng, SIDES), pick(rng, ZONES), pick(rng, SIZES))


def _text_only(
    kind: str, prompt: str, answer: str, full: str, slot: str, slots: dict[str, str], finding: str | None = None
) -> Question:
    return Question(kind, "open", prompt, answer, full, finding, slot, slots)
