"""Reports and captions of a phantom case.

A report has three to five sentences: the heart, what the lungs show and do not show, what the pleural space shows and
does not show. All six kinds are either described (size, side and, in the lung, zone) or denied.
"""

from __future__ import annotations

from typing import Any

from clinalign.data.phantom.cases import KINDS, Case, Finding
from clinalign.data.phantom.wording import ARTICLES, Question, Rng, pick

LUNG = ("nodule", "consolidation", "atelectasis")
PLEURA = ("pleural effusion", "pneumothorax")

REPORT_PROMPTS = (
    "Describe the findings.",
    "Write a report of this radiograph.",
    "Report the findings of this image.",
    "What are the findings on this chest radiograph?",
)
CAPTION_PROMPTS = (
    "Write a caption for this image.",
    "Describe this image in one sentence.",
    "Caption this radiograph.",
)

_HEART = {
    True: ("There is cardiomegaly.", "The heart shows cardiomegaly.", "Cardiomegaly is present."),
    False: ("There is no cardiomegaly.", "The heart shows no cardiomegaly.", "No cardiomegaly is present."),
}
_SHOWN = {
    "lung": ("There is {x}.", "The lungs show {x}.", "In the lungs, there is {x}."),
    "pleura": ("There is {x}.", "The pleural space shows {x}.", "In the pleural space, there is {x}."),
}
_ABSENT = ("No {x} is seen.", "There is no {x}.", "No {x} can be seen.")
_CLEAR = {
    "lung": ("The lungs are clear, with no {x}.", "The lungs show no {x}."),
    "pleura": ("The pleural space is clear, with no {x}.", "The pleural space shows no {x}."),
}
_CAPTIONS = ("Frontal chest radiograph showing {x}.", "Chest image with {x}.", "A chest radiograph that shows {x}.")
_NORMAL_CAPTIONS = (
    "Frontal chest radiograph showing no abnormality.",
    "Chest image with no abnormality.",
    "A chest radiograph that shows no abnormality.",
)


def phrase(finding: Finding) -> str:
    """A finding as a noun phrase: "a small nodule in the left upper zone", "a large pneumothorax on the right"."""
    if finding.side is None:
        return ARTICLES[finding.kind]
    where = f"in the {finding.side} {finding.zone} zone" if finding.kind in LUNG else f"on the {finding.side}"
    return f"a {finding.size} {finding.kind} {where}"


def report(case: Case, rng: Rng) -> str:
    """A report of the case in three to five sentences."""
    heart = pick(rng, _HEART[any(f.kind == "cardiomegaly" for f in case.findings)])
    body = [_region(case, "lung", LUNG, rng), _region(case, "pleura", PLEURA, rng)]
    if rng.random() < 0.5:
        body.insert(0, heart)
    else:
        body.append(heart)
    return " ".join(body)


def caption(case: Case, rng: Rng) -> str:
    """The abnormal findings in one sentence."""
    if not case.findings:
        return pick(rng, _NORMAL_CAPTIONS)
    return pick(rng, _CAPTIONS).format(x=_join([phrase(f) for f in case.findings], "and"))


def claims(case: Case) -> dict[str, dict[str, Any]]:
    """Each of the six kinds with its presence, side, zone and size."""
    found = {f.kind: f for f in case.findings}
    return {kind: _claim(found.get(kind)) for kind in KINDS}


def report_question(case: Case, rng: Rng) -> list[Question]:
    """The report as a question; its ground truth is the report itself."""
    text = report(case, rng)
    return [Question("report", "report", pick(rng, REPORT_PROMPTS), text, text, None, "report", claims(case))]


def caption_question(case: Case, rng: Rng) -> list[Question]:
    """The caption as a question; its ground truth is the caption itself."""
    text = caption(case, rng)
    return [Question("caption", "report", pick(rng, CAPTION_PROMPTS), text, text, None, "caption", claims(case))]


def _claim(finding: Finding | None) -> dict[str, Any]:
    if finding is None:
        return {"presence": "no", "side": None, "zone": None, "size": None}
    return {"presence": "yes", "side": finding.side, "zone": finding.zone, "size": finding.size}


def _region(case: Case, name: str, kinds: tuple[str, ...], rng: Rng) -> str:
    found = {f.kind: f for f in case.findings}
    shown = [phrase(found[kind]) for kind in kinds if kind in found]
    absent = _join([kind for kind in kinds if kind not in found], "or")
    if not shown:
        return pick(rng, _CLEAR[name]).format(x=absent)
    text = pick(rng, _SHOWN[name]).format(x=_join(shown, "and"))
    return f"{text} {pick(rng, _ABSENT).format(x=absent)}" if absent else text


def _join(items: list[str], word: str) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {word} {items[-1]}" if items else ""
