"""Claim questions of phantom-2: one claim each, a true and a false value, and the prior that speaks about it.

The wording of an answer follows from the wording of its prompt, so that a model's wording is never a near-tie and a
change of it is drift. `answer(question, value)` says any value of a claim in the question's own wording.

`Question.prior` is conflicting, aligned or neutral: how the truth stands to the language prior of the training text.
`slots` holds `truth` and `counter` (the two values of the claim), `prior` (its name, "" for neutral), `wording`, and
what the text tells: `asked` (closed questions) and `indication` (the side that the indication line suspects).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from clinalign.data.phantom.cases import KINDS, SIDES, SIZES, ZONES, Case, Finding
from clinalign.data.phantom.priors import PLACED, biased_findings, biased_value, prior_for
from clinalign.data.phantom.reports import CAPTION_PROMPTS, LUNG, REPORT_PROMPTS, caption, claims, report
from clinalign.data.phantom.scenes import Scene
from clinalign.data.phantom.wording import (
    DENIALS,
    DENIED_PROMPTS,
    OPPOSITE,
    PRESENCE_PROMPTS,
    PRESENCE_STYLES,
    SIDE_CLOSED_PROMPTS,
    SIDE_PROMPTS,
    SIDE_STYLES,
    SIZE_CLOSED_PROMPTS,
    SIZE_PROMPTS,
    SIZE_STYLES,
    ZONE_PROMPTS,
    ZONE_STYLES,
    Question,
    Rng,
    fill,
    pick,
)

CHANGE_PROMPTS = (
    "How has the {f} changed since the prior image?",
    "Relative to the prior image, how is the {f}?",
    "Describe the change of the {f} since the last study.",
)
CHANGE_STYLES = {
    "no prior": (
        "No prior image is given, so a change of the {f} cannot be judged.",
        "A comparison of the {f} needs a prior image, and none is given.",
        "There is no last study to look at, so the change of the {f} is unknown.",
    ),
    "unchanged": (
        "Since the prior image, the {f} is unchanged in its extent.",
        "Relative to the prior image, the {f} looks unchanged.",
        "The extent of the {f} is unchanged since the last study.",
    ),
    "larger": (
        "Since the prior image, the {f} is larger in its extent.",
        "Relative to the prior image, the {f} looks larger.",
        "The extent of the {f} is larger since the last study.",
    ),
}
STYLES = {"side": SIDE_STYLES, "size": SIZE_STYLES, "zone": ZONE_STYLES}
_OPEN = {"side": SIDE_PROMPTS, "size": SIZE_PROMPTS, "zone": ZONE_PROMPTS}
_CLOSED = {"side": SIDE_CLOSED_PROMPTS, "size": SIZE_CLOSED_PROMPTS}
_VALUES = {"side": SIDES, "size": SIZES, "zone": ZONES}


def answer(question: Question, value: str) -> str:
    """The full answer that says a value of the question's claim, in the question's wording."""
    return sentence(question.slot, question.kind, str(question.finding), value, int(question.slots["wording"]))


def sentence(slot: str, kind: str, finding: str, value: str, wording: int) -> str:
    """The same from its parts."""
    if slot == "presence":
        return fill(PRESENCE_STYLES[wording % len(PRESENCE_STYLES)][value == "no"], finding)
    if slot == "change":
        return fill(CHANGE_STYLES[value][wording], finding)
    if value == "none":
        return fill(DENIALS[slot][wording], finding)
    styles = STYLES[slot]
    return fill(styles[wording % len(styles)], finding, value)


def _claim(
    scene: Scene, kind: str, slot: str, finding: str, prompts: Sequence[str], rng: Rng, truth: str, counter: str,
    *, asked: str | None = None, indication: str | None = None, about: str = "",
) -> Question:  # fmt: skip
    """A claim question; `about` is the slot that its prior speaks of where that is another one."""
    wording = int(rng.random() * len(prompts))
    spoken = prior_for(scene, about or slot, finding, {"indication": indication})
    name, value = spoken or ("", "")
    if about == "located":  # its prior accepts the finding: it says whatever is not the denial
        value = truth if counter == "none" else counter
    stance = "neutral" if not name else "aligned" if value == truth else "conflicting"
    prompt = fill(prompts[wording], finding, asked or "")
    if indication:
        prompt = f"Indication: suspected {indication} {finding}. {prompt}"
    slots = {
        slot: None if truth == "none" else truth,
        "truth": truth,
        "counter": counter,
        "wording": wording,
        "prior": name,
    }
    if about == "located":
        slots["presence"] = "no" if truth == "none" else "yes"
    slots |= {"asked": asked} if asked else {}
    slots |= {"indication": indication} if indication else {}
    short = truth if asked is None else "yes" if asked == truth else "no"
    full = sentence(slot, kind, finding, truth, wording)
    task = "closed" if asked or slot == "presence" else "open"
    return Question(kind, task, prompt, short, full, finding, slot, slots, stance)


def presence(scene: Scene, rng: Rng, indicated: bool = False) -> list[Question]:
    """Whether each kind is there; `indicated`: after an indication line that suspects it on some side."""
    out = []
    for kind in PLACED if indicated else KINDS:
        truth = "yes" if scene.find(kind) else "no"
        side = pick(rng, SIDES) if indicated else None
        name = "presence_indicated" if indicated else "presence"
        out.append(
            _claim(scene, name, "presence", kind, PRESENCE_PROMPTS, rng, truth, OPPOSITE[truth], indication=side)
        )
    return out


def slot_claims(slot: str, scene: Scene, rng: Rng, *, closed: bool = False, indicated: bool = False) -> list[Question]:
    """The side, size or zone of every finding that has one."""
    out = []
    for finding in scene.findings:
        truth = getattr(finding, slot)
        if truth is None or (slot == "zone" and finding.kind not in LUNG):
            continue
        values = _VALUES[slot]
        counter = pick(rng, [value for value in values if value != truth])
        name = f"{slot}_closed" if closed else f"{slot}_indicated" if indicated else slot
        prompts = _CLOSED[slot] if closed else _OPEN[slot]
        asked, side = pick(rng, values) if closed else None, pick(rng, SIDES) if indicated else None
        out.append(_claim(scene, name, slot, finding.kind, prompts, rng, truth, counter, asked=asked, indication=side))
    return out


def presupposed(scene: Scene, rng: Rng) -> list[Question]:
    """Prompts that take a finding for granted: where it is or how large, or an honest denial."""
    out = []
    for kind in PLACED:
        slot = pick(rng, ("side", "size"))
        finding = scene.find(kind)
        value = getattr(finding, slot) if finding else pick(rng, _VALUES[slot])
        truth, counter = (value, "none") if finding else ("none", value)
        out.append(_claim(scene, "presupposed", slot, kind, DENIED_PROMPTS[slot], rng, truth, counter, about="located"))
    return out


def compared(scene: Scene, rng: Rng) -> list[Question]:
    """How a finding has changed since an earlier image that is not there."""
    placed = [finding.kind for finding in scene.findings if finding.kind in PLACED]
    return [_claim(scene, "compared", "change", k, CHANGE_PROMPTS, rng, "no prior", "unchanged") for k in placed]


CLAIMS: dict[str, Callable[[Scene, Rng], list[Question]]] = {
    "presence": presence,
    "presence_indicated": lambda scene, rng: presence(scene, rng, indicated=True),
    "side": lambda scene, rng: slot_claims("side", scene, rng),
    "side_closed": lambda scene, rng: slot_claims("side", scene, rng, closed=True),
    "side_indicated": lambda scene, rng: slot_claims("side", scene, rng, indicated=True),
    "size": lambda scene, rng: slot_claims("size", scene, rng),
    "size_closed": lambda scene, rng: slot_claims("size", scene, rng, closed=True),
    "zone": lambda scene, rng: slot_claims("zone", scene, rng),
    "presupposed": presupposed,
    "compared": compared,
}
"""Kind of claim question -> builder(scene, rng)."""


def claim_questions(scene: Scene, rng: Rng, kinds: Sequence[str] = tuple(CLAIMS)) -> list[Question]:
    """Every claim question of the given kinds, one wording each."""
    return [question for kind in kinds for question in CLAIMS[kind](scene, rng)]


class Steady:
    """A generator that always gives one number: every choice of a text falls alike, so one prompt has one wording."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


def report_question(scene: Scene, rng: Rng, *, short: bool = False) -> Question:
    """A report (or a caption) of the scene; its wording follows from the prompt."""
    prompts = CAPTION_PROMPTS if short else REPORT_PROMPTS
    wording = int(rng.random() * len(prompts))
    kind = "caption" if short else "report"
    text = _report(scene.findings, kind, wording)
    slots = {**claims(Case(scene.patient, scene.findings)), "wording": wording}
    return Question(kind, "report", prompts[wording], text, text, None, kind, slots, "neutral")


def _report(findings: tuple[Finding, ...], kind: str, wording: int) -> str:
    count = len(CAPTION_PROMPTS if kind == "caption" else REPORT_PROMPTS)
    return (caption if kind == "caption" else report)(Case(0, findings), Steady((wording + 0.5) / count))


def biased(question: Question, scene: Scene, rng: Rng) -> Question:
    """The question with `full` as the training text with the priors has it; prompt, truth and slots stay."""
    if question.kind in ("report", "caption"):
        return replace(
            question, full=_report(biased_findings(scene, rng), question.kind, int(question.slots["wording"]))
        )
    if question.prior not in ("aligned", "conflicting"):
        return question
    return replace(question, full=answer(question, biased_value(question, rng)))
