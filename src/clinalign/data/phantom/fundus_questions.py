"""Questions in the taxonomy of EH-Benchmark on phantom fundus photographs, with what every option states.

Each question is of one eye; a patient has two. `statements` says each option as a sentence that can be checked,
`counterfactual` names the image without the lesions that a question is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from clinalign.data.options import DataOptions
from clinalign.data.phantom import fundus
from clinalign.data.phantom.fundus import Eye, draw_fundus, glaucoma, grade, regions, sample_eye
from clinalign.data.sources.eh import GLAUCOMA, GRADING, LOCALISATION, RECOGNITION, TAXONOMY, lettered_question
from clinalign.imaging.images import write_png
from clinalign.records import Example, Region
from clinalign.storage import Quarantine

PATIENTS = {"test": 60}
FIRST = {"align": 0, "dev": 1_000_000, "test": 2_000_000}
"""First patient number of each split."""
PX = 128

NAMES = {"exudate": "hard exudates", "retinal hemorrhage": "retinal haemorrhages", "microaneurysm": "microaneurysms"}
HALVES = ("Inferior", "Nasal", "Superior", "Temporal")
PLACES = [
    ", ".join(names)
    for n in (2, 3, 4)
    for names in combinations(HALVES, n)
    if {"Inferior", "Superior"} & set(names) and {"Nasal", "Temporal"} & set(names)
]
"""Where lesions can lie that touch at least one quadrant: the nine sets of halves."""
SEEN = {
    "No lesions": "There are no hard exudates, no retinal haemorrhages and no microaneurysms.",
    "Microaneurysms alone": "There are microaneurysms. There are no hard exudates and no retinal haemorrhages.",
    "Hard exudates and retinal haemorrhages": "There are hard exudates. There are retinal haemorrhages.",
    "Drusen": "There are drusen.",
    "Cotton wool spots": "There are cotton wool spots.",
    "Optic disc swelling": "There is optic disc swelling.",
}
GRADES = {
    "No diabetic retinopathy": "The retinopathy grade is 0.",
    "Mild non-proliferative diabetic retinopathy": "The retinopathy grade is 1.",
    "Moderate non-proliferative diabetic retinopathy": "The retinopathy grade is 2.",
    "Severe non-proliferative diabetic retinopathy": "The retinopathy grade is 3.",
    "Proliferative diabetic retinopathy": "The retinopathy grade is 4.",
}
CATEGORIES = {
    "healthy": ("No glaucoma", "The glaucoma category is healthy."),
    "hypertension": ("Ocular hypertension", "The glaucoma category is hypertension."),
    "suspect": ("Glaucoma suspect", "The glaucoma category is suspect."),
    "glaucoma": ("Glaucoma", "The glaucoma category is glaucoma."),
}


class EyeQuestion(NamedTuple):
    """One question before its options are lettered: `statements` says every option as a sentence."""

    subclass: str
    stem: str
    gold: str
    statements: dict[str, str]
    finding: str = ""
    fixed: bool = False
    distractors: int = 4


def eye_questions(eye: Eye) -> Iterator[EyeQuestion]:
    """Every question about one eye."""
    present = {lesion.kind for lesion in eye.lesions}
    for kind in fundus.KINDS:
        if kind in present:
            statements = {place: _placed(kind, place) for place in PLACES}
            stem = f"Where do {NAMES[kind]} occur in this {eye.laterality} fundus photograph?"
            yield EyeQuestion(LOCALISATION, stem, ", ".join(regions(eye, kind)).title(), statements, kind)
    seen = ("No lesions", "Microaneurysms alone", *["Hard exudates and retinal haemorrhages"] * 2)[grade(eye)]
    yield EyeQuestion(RECOGNITION, "What does this fundus photograph show?", seen, SEEN)
    yield EyeQuestion(
        GRADING, "What is the diabetic retinopathy grade of the image?", list(GRADES)[grade(eye)], GRADES, "", True
    )
    stem = (
        f"{eye.laterality}, intraocular pressure {eye.pressure} mmHg. Based on this and the optic disc, what is the "
        "most likely category of glaucoma?"
    )
    yield EyeQuestion(GLAUCOMA, stem, CATEGORIES[glaucoma(eye)][0], dict(CATEGORIES.values()), "", True, 3)


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """Draws the eyes of every split below `folder`; `data.splits` says how many patients. No row can go wrong."""
    for split, count in (options.splits or PATIENTS).items():
        yield from write_eyes(folder, range(FIRST[split], FIRST[split] + int(count)), split, options.seed)


def write_eyes(folder: Path, patients: Iterable[int], split: str, seed: int) -> Iterator[Example]:
    """Every question about both eyes of the patients; images, masks and counterfactuals are written below `folder`."""
    for patient in patients:
        for eye in (sample_eye(patient, "OD"), sample_eye(patient, "OS")):
            yield from _write_eye(folder, eye, split, seed)


def _write_eye(folder: Path, eye: Eye, split: str, seed: int) -> Iterator[Example]:
    name = f"{eye.patient:07d}-{eye.laterality}"
    drawn = draw_fundus(eye, PX)
    write_png(folder / f"images/{name}.png", drawn.image)
    for number, asked in enumerate(eye_questions(eye)):
        key = f"{seed}/{name}/{number}"
        made = lettered_question(asked.stem, asked.gold, list(asked.statements), key, distractors=asked.distractors)
        found: list[Region] = []
        without = ""
        if asked.finding:
            without = f"counterfactuals/{name}-{_slug(asked.finding)}.png"
            found = [_region(folder, name, asked.finding, eye, drawn)]
            rest = tuple(lesion for lesion in eye.lesions if lesion.kind != asked.finding)
            write_png(folder / without, draw_fundus(replace(eye, lesions=rest), PX).image)
        yield Example(
            id=f"fundus-{split}-{name}-{number}",
            images=[f"images/{name}.png"],
            question=made["question"],
            answer=made["answer"],
            task="closed",
            regions=found,
            patient_id=f"fundus-{eye.patient}",
            modality="fundus phantom",
            source=fundus.VERSION,
            split=split,
            finding=asked.finding,
            kind=asked.subclass,
            slots={"taxonomy": TAXONOMY[asked.subclass]},
            counterfactual=without,
            options=made["options"],
            statements=[asked.statements[text] for text in made["options"]],
            fixed_order=list(asked.statements) if asked.fixed else [],
            laterality=eye.laterality,
            meta=made["meta"] | {"phantom": fundus.VERSION},
        )


def _region(folder: Path, name: str, kind: str, eye: Eye, drawn: fundus.Fundus) -> Region:
    masks = [mask for lesion, mask in drawn.lesions.items() if lesion.kind == kind]
    path = f"masks/{name}-{_slug(kind)}.png"
    whole = masks[0].copy()
    for mask in masks[1:]:
        whole |= mask
    write_png(folder / path, whole)
    return Region(kind, None, path)


def _placed(kind: str, place: str) -> str:
    names = place.lower().split(", ")
    return f"There are {NAMES[kind]} only in the {', '.join(names[:-1])} and {names[-1]} regions."


def _slug(kind: str) -> str:
    return kind.replace(" ", "-")
