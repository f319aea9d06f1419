"""Phantom counterparts of the published suites: the same questions of images whose truth is known exactly.

    hallucinogen  attacks on a finding that is there and on one that is not, the same prompts for both
    s_chain       chains of four steps: boxes, description, grades, class
    causal        whether a finding is there, with its mask; a donor of the same label is another patient's image
    modality      whether a finding is there, with a text that makes it likelier and never names it
    stages        which side of the patient a finding is on, with the recognition and the knowledge it takes apart
    uncertainty   whether a finding is there; the first patients are split dev, for calibration
    eh            drawn eyes, four or five options each (`fundus_questions.py`)

Every builder is a pure function of (split, patients, px, seed) and balanced by label, but eyes are as they are drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from clinalign.data.phantom.cases import KINDS, VERSION, Case, Finding, box, render, sample_case
from clinalign.data.phantom.dataset import MODALITY
from clinalign.data.phantom.fundus_questions import write_eyes
from clinalign.data.phantom.hashing import Stream
from clinalign.data.phantom.wording import DENIED_PROMPTS, PRESENCE_PROMPTS, fill
from clinalign.data.sources.hallucinogen import ATTACKS, STYLES, prompts
from clinalign.data.sources.s_chain import box_text, chain_text, question_text
from clinalign.data.sources.text_vision import FRAME
from clinalign.errors import UsageError, nearest
from clinalign.imaging.images import write_png
from clinalign.records import Example, Region

PLACED = tuple(kind for kind in KINDS if kind != "cardiomegaly")
"""Findings that have a place; of cardiomegaly one cannot ask where it is."""
CLASSES = ("No-Disease", "Limited-Disease", "Extensive-Disease")
"""No finding; small ones only; a large one."""
CHAIN_QUESTIONS = (
    "Give the box [x, y, w, h] of every finding as shares of the image, or none.",
    "Name the findings.",
    "Grade COUNT (A none, B one, C more) and SIZE (A none, B small, C large).",
    "No-Disease, Limited-Disease or Extensive-Disease?",
)
CHAIN_TITLES = ("Boxes", "Findings", "Grades", "Class")
"""What the steps of an answer are called; the prompt says more."""
SYMPTOMS = {
    "nodule": "lost weight over some months",
    "consolidation": "has had fever for three days",
    "pleural effusion": "is short of breath when lying flat",
    "pneumothorax": "felt a sudden pain after a long flight",
    "atelectasis": "was operated on two days ago",
}
"""A history that goes with a finding and does not name it."""
TELLING = 0.8
"""How often a history fits its finding, and 1 - this where the finding is absent."""
KNOWLEDGE = "The right half of the image is the left side of the patient."
PATIENTS = {
    "hallucinogen": 24, "s_chain": 560, "causal": 95, "modality": 95, "stages": 190, "uncertainty": 125, "eh": 18,
}  # fmt: skip
"""Patients that give about `QUESTIONS` questions (of uncertainty that many outside dev)."""
QUESTIONS = 160
DEV_SHARE = 4
"""One patient in so many is split dev."""


def write_suite(
    suite: str, folder: Path, *, split: str, patients: Sequence[int], px: int = 64, seed: int = 0
) -> list[Example]:
    """The items of a suite, their images and masks written below `folder`. Raises `UsageError` for an unknown suite."""
    if suite == "eh":
        return list(write_eyes(folder, patients, split, seed))
    if suite not in BUILDERS:
        raise UsageError(f"phantom suite '{suite}': use one of {', '.join(PATIENTS)}{nearest(suite, PATIENTS)}")
    examples: list[Example] = []
    for case, items in BUILDERS[suite](patients, seed):
        drawn = render(case, px)
        name = f"{case.patient:07d}"
        write_png(folder / "images" / f"{suite}-{name}.png", drawn.image)
        masks = dict(zip((f.kind for f in case.findings), drawn.masks, strict=True))
        for number, item in enumerate(items):
            about = item.get("finding", "")
            region = []
            if about in masks:
                path = f"masks/{suite}-{name}-{about.replace(' ', '-')}.png"
                write_png(folder / path, masks[about])
                region = [Region(about, [float(c) for c in box(masks[about])], path)]
            examples.append(
                _example(f"{suite}-{split}-{name}-{number}", f"images/{suite}-{name}.png", case, region, split, item)
            )
    return examples


def patients_for(suite: str, questions: int) -> int:
    """How many patients give about so many questions, at least four; 0: those of `QUESTIONS`."""
    return max(4, -(-PATIENTS[suite] * (questions or QUESTIONS) // QUESTIONS))


def _example(name: str, image: str, case: Case, regions: list[Region], split: str, item: dict[str, Any]) -> Example:
    own = {key: item[key] for key in ("question", "answer", "task")}
    declared: dict[str, Any] = {key: item[key] for key in ("finding", "kind", "full", "slots") if key in item}
    patient = f"phantom-{case.patient}"
    return Example(
        name, [image], **own, regions=regions, patient_id=patient, modality=MODALITY, source=VERSION,
        split=item.get("split", split), **declared,
    )  # fmt: skip


Items = Iterator[tuple[Case, list[dict[str, Any]]]]


def hallucinogen(patients: Sequence[int], seed: int, style: str = "plain") -> Items:
    """A finding that is there and one that is not a case; every attack on both with the same prompt."""
    for case, (there, absent), stream in _pairs(patients, seed, "hallucinogen"):
        items = []
        for attack in ATTACKS.values():
            number = stream.bits()
            for thing, label in ((there, "yes"), (absent, "no")):
                asked = _prompts(thing, attack, style)
                items.append(_closed(asked[number % len(asked)], label, thing, kind=attack))
        yield case, items


def _prompts(thing: str, attack: str, style: str) -> list[str]:
    """The bank's prompts, but the phantoms' own where those ask the same."""
    own = {"identification": PRESENCE_PROMPTS, "localisation": DENIED_PROMPTS["side"]}.get(attack)
    return [fill(p, thing) + STYLES[style] for p in own] if own else prompts(thing, attack, style)


def s_chain(patients: Sequence[int], seed: int) -> Items:
    """One chain a case, the three classes level."""
    seen: Counter[str] = Counter()
    for case in _cases(patients, PLACED):
        label = CLASSES[0 if not case.findings else 2 if any(f.size == "large" for f in case.findings) else 1]
        if seen[label] > min(seen[name] for name in CLASSES):
            continue
        seen[label] += 1
        steps = list(zip(CHAIN_TITLES, _steps(case, label), strict=True))
        yield case, [{
            "question": question_text(CHAIN_QUESTIONS), "answer": label, "task": "open", "kind": "s_chain",
            "full": chain_text(steps, label), "slots": {},
        }]  # fmt: skip


def _steps(case: Case, label: str) -> list[str]:
    """The right answers of the four steps; boxes are of the drawing at 64 pixels."""
    corners = [[c / 64 for c in box(mask)] for mask in render(case, 64).masks]
    described = ", ".join(_described(f) for f in case.findings) or "no finding"
    large = any(f.size == "large" for f in case.findings)
    count, size = min(2, len(case.findings)), 0 if not case.findings else 2 if large else 1
    grades = f"COUNT: {'ABC'[count]}; SIZE: {'ABC'[size]}"
    return [box_text(corners) or "none", f"{described[0].upper()}{described[1:]}.", grades, label]


def _described(finding: Finding) -> str:
    return f"{finding.size} {finding.kind} in the {finding.side} {finding.zone} zone"


def presence(patients: Sequence[int], seed: int) -> Items:
    """One finding that is there and one that is not a case, asked for with one prompt."""
    for case, (there, absent), stream in _pairs(patients, seed, "presence"):
        prompt = stream.pick(PRESENCE_PROMPTS)
        items = [_closed(fill(prompt, thing), label, thing) for thing, label in ((there, "yes"), (absent, "no"))]
        yield case, items


def modality(patients: Sequence[int], seed: int) -> Items:
    """As `presence`, with a history that fits in `TELLING` of the cases. The bare question and the text are slots."""
    for case, (there, absent), stream in _pairs(patients, seed, "modality"):
        prompt = stream.pick(PRESENCE_PROMPTS)
        items = []
        for thing, label in ((there, "yes"), (absent, "no")):
            fits = (stream.below(100) < 100 * TELLING) == (label == "yes")
            history = SYMPTOMS[thing] if fits else stream.pick([s for k, s in SYMPTOMS.items() if k != thing])
            context = f"Aged {stream.between(30, 80)}. The patient {history}."
            question = fill(prompt, thing)
            item = _closed(FRAME.format(context=context, question=question), label, thing, kind="label")
            item["slots"] |= {"context": context, "question": question}
            items.append(item)
        yield case, items


def stages(patients: Sequence[int], seed: int) -> Items:
    """Which side of the patient a finding is on: it takes seeing where it is in the image, knowing that the image is
    seen from the front, and putting the two together."""
    halves = {"left": "right", "right": "left"}
    for case in _cases(patients, PLACED):
        if not case.findings:
            continue
        stream = Stream(case.patient, "stages", seed)
        finding = stream.pick(case.findings)
        side, asked = str(finding.side), stream.pick(("left", "right"))
        recognition = f"The {finding.kind} is in the {halves[side]} half of the image."
        yield case, [{
            "question": f"Is the {finding.kind} on the {asked} side of the patient?",
            "answer": "yes" if asked == side else "no", "task": "closed", "kind": "stage_side", "finding": finding.kind,
            "slots": {"side": side, "asked": asked, "recognition": recognition, "knowledge": KNOWLEDGE},
        }]  # fmt: skip


def uncertainty(patients: Sequence[int], seed: int) -> Items:
    """As `presence`; every fourth patient is split dev."""
    for number, (case, items) in enumerate(presence(patients, seed)):
        yield case, [item | ({"split": "dev"} if number % DEV_SHARE == 0 else {}) for item in items]


BUILDERS: dict[str, Callable[[Sequence[int], int], Items]] = {
    "hallucinogen": hallucinogen,
    "s_chain": s_chain,
    "causal": presence,
    "modality": modality,
    "stages": stages,
    "uncertainty": uncertainty,
}
"""Suite -> builder(patient numbers, seed)."""


def _cases(patients: Sequence[int], kinds: Sequence[str]) -> Iterator[Case]:
    return (sample_case(patient, kinds=kinds) for patient in patients)


def _pairs(patients: Sequence[int], seed: int, name: str) -> Iterator[tuple[Case, tuple[str, str], Stream]]:
    """Cases with a finding that is there and one that is not. The two kinds are drawn so that each kind is as often
    there as not: a kind is asked after as absent only as often as it was asked after as present, give or take one."""
    seen: Counter[tuple[str, str]] = Counter()
    for case in _cases(patients, PLACED):
        stream = Stream(case.patient, name, seed)
        there = [f.kind for f in case.findings]
        absent = [kind for kind in PLACED if kind not in there]
        if not there or not absent:
            continue
        yes = min(there, key=lambda kind: (seen[kind, "yes"] - seen[kind, "no"], stream.bits()))
        no = min(absent, key=lambda kind: (seen[kind, "no"] - seen[kind, "yes"], stream.bits()))
        seen[yes, "yes"] += 1
        seen[no, "no"] += 1
        yield case, (yes, no), stream


def _closed(question: str, label: str, thing: str, *, kind: str = "presence") -> dict[str, Any]:
    slots = {"presence": label}
    return {"question": question, "answer": label, "task": "closed", "finding": thing, "kind": kind, "slots": slots}
