"""Skills of the embedded model beside the claims of phantom-2: what it may forget while it is aligned.

A lesson is some pictures (0 to 8, uint8 [64, 64], before the prompt) and questions about them. No language prior
touches it: it asks about what no prior speaks of. An answer's wording follows from the prompt, so a right answer is
one text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from clinalign.data.phantom.cases import KINDS, SIDES, SIZES, ZONES, Finding, Render, box
from clinalign.data.phantom.claims import CHANGE_PROMPTS, CHANGE_STYLES, claim_questions
from clinalign.data.phantom.fundus import CORNERS, EYES, LARGE_CUP, draw_fundus, sample_groups
from clinalign.data.phantom.reports import LUNG, phrase
from clinalign.data.phantom.scenes import Scene, changed, render_scene
from clinalign.data.phantom.text_only import GENERAL, KNOWLEDGE
from clinalign.data.phantom.volume import LUNG_WINDOW, SolidNodule, Volume, render_volume, window
from clinalign.data.phantom.wording import SIZE_PROMPTS, ZONE_PROMPTS, Question, Rng, fill, pick, shuffled

PX = 64
LETTERS = "ABCDE"
ORDINALS = ("1", "2", "3", "4", "5", "6", "7", "8")
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Lesson:
    """Pictures and questions about all of them together."""

    images: list[Picture]
    questions: list[Question]


def _said(kind: str, prompt: str, answer: str, full: str, finding: str | None = None, task: str = "open") -> Question:
    return Question(kind, task, prompt, answer, full, finding, kind, {"truth": answer}, "neutral")


def _shown(scene: Scene) -> Picture:
    return render_scene(scene, PX).image


def _in_lung(scene: Scene, rng: Rng) -> tuple[Finding, Render] | None:
    """One lung finding of the scene and its picture."""
    there = [finding for finding in scene.findings if finding.kind in LUNG]
    return (pick(rng, there), render_scene(scene, PX)) if there else None


def options(scene: Scene, rng: Rng) -> Lesson | None:
    """The zone of a lung finding among five lettered options."""
    chosen = _in_lung(scene, rng)
    if chosen is None:
        return None
    finding, drawn = chosen
    assert finding.zone is not None
    listed = shuffled(rng, [*ZONES, "all zones", "no zone"])
    letter = LETTERS[listed.index(finding.zone)]
    lines = "".join(f"\n{mark}. {option}" for mark, option in zip(LETTERS, listed, strict=True))
    prompt = fill("In which lung zone is the {f}?", finding.kind) + lines
    full = f"The answer is {letter}, {finding.zone}, as seen on this chest radiograph."
    return Lesson([drawn.image], [_said("options", prompt, letter, full, finding.kind, "closed")])


def boxes(scene: Scene, rng: Rng) -> Lesson | None:
    """The bounding box of every finding but the heart: [x, y, w, h] on a grid of 64 x 64."""
    drawn = render_scene(scene, PX)
    asked = []
    for finding, mask in zip(scene.findings, drawn.masks, strict=True):
        if finding.kind != "cardiomegaly":
            text = _box(mask)
            prompt = fill("Give the bounding box of the {f}.", finding.kind)
            asked.append(_said("boxes", prompt, text, f"The {finding.kind} is at {text}.", finding.kind))
    return Lesson([drawn.image], asked) if asked else None


def _box(mask: npt.NDArray[np.bool_]) -> str:
    return "[" + ", ".join(str(min(PX - 1, corner)) for corner in box(mask)) + "]"


def steps(scene: Scene, rng: Rng) -> Lesson | None:
    """The zone of a lung finding in four steps: what, where, its zone, the answer."""
    chosen = _in_lung(scene, rng)
    if chosen is None:
        return None
    finding, drawn = chosen
    text = _box(drawn.masks[scene.findings.index(finding)])
    prompt = fill("In which lung zone is the {f}? Answer in four steps.", finding.kind)
    full = (
        f"Step 1: The question is about the {finding.kind}. Step 2: It is at {text}. "
        f"Step 3: This is in the {finding.zone} third of the lung. Step 4: The answer is {finding.zone}."
    )
    return Lesson([drawn.image], [_said("steps", prompt, str(finding.zone), full, finding.kind)])


def several(scene: Scene, rng: Rng) -> Lesson:
    """Two to eight pictures of patients, one of which shows a pneumothorax: which one."""
    count = 2 + int(rng.random() * 7)
    at = int(rng.random() * count)
    images = []
    for number in range(count):
        patient = scene.patient if number == at else scene.patient + 500_000 + int(rng.random() * 400_000)
        bare = replace(scene, patient=patient, findings=(), rung=0)
        if number == at:
            bare = changed(bare, Finding("pneumothorax", pick(rng, SIDES), "upper", pick(rng, SIZES)))
        elif rng.random() < 0.4:
            bare = changed(bare, Finding("pleural effusion", pick(rng, SIDES), "lower", pick(rng, SIZES)))
        images.append(_shown(bare))
    prompt = f"One of the {count} images shows a pneumothorax. Which one?"
    full = f"Of the {count} images, image {ORDINALS[at]} shows the pneumothorax."
    return Lesson(images, [_said("several", prompt, ORDINALS[at], full, "pneumothorax")])


def change(scene: Scene, rng: Rng) -> Lesson:
    """Two pictures of one patient: whether a finding has grown or is unchanged since the earlier one."""
    kind, zone = pick(rng, (("pleural effusion", "lower"), ("pneumothorax", "upper"), ("nodule", pick(rng, ZONES))))
    bare, side = replace(scene, findings=(), rung=0), pick(rng, SIDES)
    before = Finding(kind, side, zone, "small")
    value = pick(rng, ("unchanged", "larger"))
    after = before if value == "unchanged" else replace(before, size="large")
    wording = int(rng.random() * len(CHANGE_PROMPTS))
    prompt, full = fill(CHANGE_PROMPTS[wording], kind), fill(CHANGE_STYLES[value][wording], kind)
    images = [_shown(changed(bare, finding)) for finding in (before, after)]
    return Lesson(images, [_said("change", prompt, value, full, kind)])


def example(scene: Scene, rng: Rng) -> Lesson | None:
    """A worked example of another patient in the prompt, with its picture, then the zone of a lung finding."""
    mine = [question for question in claim_questions(scene, rng, ("zone",))]
    if not mine:
        return None
    asked = pick(rng, mine)
    shown = changed(replace(scene, patient=scene.patient + 500_000, findings=(), rung=0),
                    Finding(pick(rng, LUNG), pick(rng, SIDES), pick(rng, ZONES), pick(rng, SIZES)))  # fmt: skip
    (shot,) = claim_questions(shown, rng, ("zone",))
    prompt = f"Image 1 is an example: {shot.prompt} {shot.full} Question about image 2: {asked.prompt}"
    question = _said("example", prompt, asked.answer, asked.full, asked.finding)
    return Lesson([_shown(shown), _shown(scene)], [question])


def indication(scene: Scene, rng: Rng) -> Lesson | None:
    """The zone of a lung finding after an indication line that has nothing to do with it."""
    asked = claim_questions(scene, rng, ("zone",))
    lines = ("cough", "fever", "chest pain", "short of breath", "routine check")
    out = [
        _said("indication", f"Indication: {pick(rng, lines)}. {q.prompt}", q.answer, q.full, q.finding) for q in asked
    ]
    return Lesson([_shown(scene)], out) if out else None


def facts(scene: Scene, rng: Rng) -> Lesson:
    """Four facts of the phantom world, without a picture."""
    out = []
    for _ in range(4):
        if rng.random() < 0.2:
            prompt, full = pick(rng, GENERAL)
            out.append(_said("facts", prompt, full, full))
            continue
        pattern, answers = pick(rng, KNOWLEDGE)
        kind = pick(rng, KINDS)
        out.append(_said("facts", fill(pattern, kind), answers[kind], answers[kind], kind))
    return Lesson([], out)


def given(scene: Scene, rng: Rng) -> Lesson:
    """Size or zone of a finding that a text in the prompt tells, without a picture."""
    finding = Finding(pick(rng, LUNG), pick(rng, SIDES), pick(rng, ZONES), pick(rng, SIZES))
    slot, prompts = pick(rng, (("size", SIZE_PROMPTS), ("zone", ZONE_PROMPTS)))
    value = getattr(finding, slot)
    prompt = f"A report says: There is {phrase(finding)}. {fill(pick(rng, prompts), finding.kind)}"
    full = f"According to the text, the {finding.kind} " + (
        f"is {value} in its extent." if slot == "size" else f"lies in the {value} zone."
    )
    return Lesson([], [_said("given", prompt, value, full, finding.kind)])


def no_image(scene: Scene, rng: Rng) -> Lesson:
    """A claim question without its picture."""
    question = pick(rng, claim_questions(scene, rng, ("presence", "presence_indicated")))
    full = "No image was given, so this question cannot be answered."
    return Lesson([], [_said("no_image", question.prompt, "no image", full, question.finding)])


LESIONS = {"exudate": "exudates", "retinal hemorrhage": "haemorrhages"}
"""Lesion of an eye -> the word for several."""


def fundus(scene: Scene, rng: Rng) -> Lesson:
    """The green channel of one eye: which eye it is, its cup, its lesions and their quadrants."""
    eye = sample_groups(scene.patient, pick(rng, EYES), 0.3)
    word = {"OD": "right", "OS": "left"}[eye.laterality]
    cup = "large" if eye.cup >= LARGE_CUP else "normal"
    asked = [
        _said("fundus", "Which eye is this?", word, f"By the place of the disc, this is a {word} eye."),
        _said("fundus", "How large is the cup of the disc?", cup, f"The cup of this disc is {cup} in its size."),
    ]
    for lesion, kind in LESIONS.items():
        held = eye.corners(lesion)
        value = "yes" if held else "no"
        full = f"This fundus image shows {'' if held else 'no '}{kind}."
        asked.append(_said("fundus", f"Are there {kind} in this eye?", value, full, kind, "closed"))
        quadrant = pick(rng, CORNERS)
        value, word = ("yes", "holds") if quadrant in held else ("no", "holds no")
        full = f"The {quadrant} quadrant {word} {kind}."
        asked.append(_said("fundus", f"Does the {quadrant} quadrant hold {kind}?", value, full, kind, "closed"))
    return Lesson([green(draw_fundus(eye, PX).image)], asked)


def both_eyes(scene: Scene, rng: Rng) -> Lesson:
    """Both eyes of a patient in either order: which image shows lesions of a kind, and which is which eye."""
    order = shuffled(rng, EYES)
    eyes = [sample_groups(scene.patient, side, 0.15) for side in order]
    asked = [_said("both_eyes", "Which image is the right eye?", ORDINALS[order.index("OD")],
                   f"The right eye is image {ORDINALS[order.index('OD')]}.")]  # fmt: skip
    for lesion, kind in LESIONS.items():
        held = [bool(eye.corners(lesion)) for eye in eyes]
        where = ("neither image shows", "only image 2 shows", "only image 1 shows", "both images show")
        shown = where[2 * held[0] + held[1]]
        asked.append(
            _said("both_eyes", f"Which of the two images shows {kind}?", shown, f"Of the two, {shown} {kind}.")
        )
    return Lesson([green(draw_fundus(eye, PX).image) for eye in eyes], asked)


def green(image: npt.NDArray[np.uint8]) -> Picture:
    """The green channel [px, px] of a colour picture: where a fundus has its contrast."""
    return np.ascontiguousarray(image[:, :, 1])


def slices(scene: Scene, rng: Rng) -> Lesson:
    """Six slices of a stack in the lung window: whether one shows a nodule, and on which side."""
    nodule = SolidNodule(pick(rng, SIDES), pick(rng, ZONES), pick(rng, SIZES)) if rng.random() < 0.7 else None
    stack = render_volume(Volume(scene.patient, 6, nodule), PX)
    grey = window(stack.hounsfield, *LUNG_WINDOW)
    value = "no" if nodule is None else "yes"
    full = "The slices show a nodule in the lung." if nodule else "The slices show no nodule in the lung."
    asked = [_said("slices", "Do the slices show a nodule?", value, full, "nodule", "closed")]
    if nodule:
        at = ORDINALS[int(stack.mask.sum(axis=(1, 2)).argmax())]
        asked.append(
            _said(
                "slices", "On which slice is the nodule largest?", at, f"The nodule is largest on slice {at}.", "nodule"
            )
        )
    return Lesson(list(grey), asked)


SKILLS: dict[str, Callable[[Scene, Rng], Lesson | None]] = {
    "options": options,
    "boxes": boxes,
    "steps": steps,
    "several": several,
    "change": change,
    "example": example,
    "indication": indication,
    "facts": facts,
    "given": given,
    "no_image": no_image,
    "fundus": fundus,
    "both_eyes": both_eyes,
    "slices": slices,
}
"""Name -> builder(scene, rng); None where the scene allows no such lesson."""


def lessons(scenes: Sequence[Scene], name: str, rng: Rng) -> list[Lesson]:
    """The lessons of one skill that the scenes allow."""
    return [lesson for scene in scenes if (lesson := SKILLS[name](scene, rng)) is not None]
