"""Balanced questions of phantom-2 and their folder of pictures.

    images/10000012.png  masks/10000012-nodule.png  counterfactuals/10000012-nodule.png (the patient without the nodule)

Patients of different splits never meet: each split owns a block of a million patient numbers.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinalign.data.phantom.cases import Render, box
from clinalign.data.phantom.claims import CLAIMS, answer, claim_questions, report_question
from clinalign.data.phantom.reports import LUNG
from clinalign.data.phantom.scenes import RUNGS, VERSION, Scene, render_scene, sample_scenes, split_of, without
from clinalign.data.phantom.skills import SKILLS
from clinalign.data.phantom.wording import Question, shuffled
from clinalign.errors import UsageError, nearest
from clinalign.imaging.images import write_png
from clinalign.progress import track
from clinalign.records import Example, Region

if TYPE_CHECKING:
    from clinalign.data.options import DataOptions
    from clinalign.storage import Quarantine

MODALITY = "CXR phantom"
SLACK = 3
"""By how many questions one side of a balance may run ahead of the other."""
NEUTRAL, PRIOR_STUDY = 0.15, 0.01
"""Largest shares of questions that no prior touches, and of comparisons with an image that is not there: these two
have an answer that the text alone tells."""

PATIENTS = {"align": 300, "dev": 100, "test": 150}
"""Patients a split where a recipe names none."""
SKILLED = 100_000
"""The first patient, in the block of `test`, of those that the skills are asked about."""

Key = tuple[str, ...]


def text_key(question: Question) -> Key:
    """What the text alone tells: kind, slot, finding, the value asked for, the side that the indication suspects."""
    slots = question.slots
    context = (str(slots.get("asked", "")), str(slots.get("indication", "")))
    return (question.kind, question.slot, str(question.finding), *context)


def select(
    scenes: Iterable[Scene], *, per_case: int = 4, kinds: Sequence[str] = tuple(CLAIMS), seed: int = 0
) -> Iterator[tuple[Scene, list[Question]]]:
    """At most `per_case` questions a scene, never two about one claim, balanced over all scenes.

    Level up to `SLACK`: conflicting and aligned questions of every prior, and the true and the false value of every
    kind of question about a finding, so that the text alone tells nothing. Priors come as often as each other as far
    as the scenes allow. A question that would tip a balance is left out; a scene without any is skipped.
    """
    seen: Counter[Key] = Counter()
    for scene in scenes:
        rng = random.Random(f"{VERSION}/{seed}/{scene.patient}")
        pool = shuffled(rng, claim_questions(scene, rng, kinds) + claim_questions(scene, rng, kinds))
        drawn: list[Question] = []
        while len(drawn) < per_case:
            pool = [question for question in pool if _level(question, seen)]
            if not pool:
                break
            best = min(pool, key=lambda q: (seen[_group(q)], seen[(*_group(q), q.prior)], seen[_truth(q)]))
            drawn.append(best)
            seen.update(((), _group(best), (*_group(best), best.prior), _truth(best)))
            pool = [q for q in pool if (q.finding, q.slot) != (best.finding, best.slot) and q.prompt != best.prompt]
        if drawn:
            yield scene, drawn


def _group(question: Question) -> Key:
    return ("prior", question.slots["prior"]) if question.slots["prior"] else ("neutral", question.kind)


def _truth(question: Question, value: str = "truth") -> Key:
    return ("truth", question.kind, question.slot, str(question.finding), _sign(question, value))


def _sign(question: Question, value: str) -> str:
    """A value of the claim; of a presupposing prompt only whether it denies."""
    text = str(question.slots[value])
    return text if question.kind != "presupposed" or text == "none" else "accepted"


def _level(question: Question, seen: Counter[Key]) -> bool:
    """Whether one more such question keeps the balances."""
    total, group = seen[()], _group(question)
    if group[0] == "neutral":
        if (
            question.slot == "presence" and question.finding in LUNG
        ):  # a large one: always there, so the text would tell
            return False
        neutral = sum(count for key, count in seen.items() if len(key) == 2 and key[0] == "neutral")
        if neutral >= NEUTRAL * total + SLACK:
            return False
    if question.kind == "compared":
        return seen[group] < PRIOR_STUDY * total + SLACK
    if question.prior != "neutral":
        other = "aligned" if question.prior == "conflicting" else "conflicting"
        if seen[(*group, question.prior)] >= seen[(*group, other)] + SLACK:
            return False
    return seen[_truth(question)] < seen[_truth(question, "counter")] + SLACK


def write_scenes(
    folder: Path, *, split: str, count: int, start: int = 0, draw: int = 0, px: int = 64, per_case: int = 4,
    kinds: Sequence[str] = tuple(CLAIMS), seed: int = 0, rungs: Sequence[int] = tuple(range(len(RUNGS))),
) -> list[Example]:  # fmt: skip
    """Write images, masks and counterfactual images of a split's patients; paths are relative to `folder`.

    `kinds` are claim kinds, "report" and "caption" among them if wanted; `rungs` those that scenes may stand on.
    `Example.answer` is the short ground truth. `meta`: finding, slot, kind, prior (conflicting, aligned, neutral),
    `prior_name`, slots, `full` and `counter` (a true and a false full answer), `counterfactual` (path of the image
    without the finding asked about, or None), `findings`, `rung`, `hospital` and `phantom` (the version). Raises
    UsageError for an unknown split or kind.
    """
    for kind in kinds:
        if kind not in (*CLAIMS, "report", "caption"):
            hint = nearest(kind, CLAIMS)
            raise UsageError(
                f"phantom-2 question kind {kind!r}: use some of {', '.join(CLAIMS)}, report, caption{hint}"
            )
    if not kinds or per_case < 1:
        raise UsageError(f"phantom-2: per_case={per_case} and {len(kinds)} kinds; at least one of each is needed")
    texts = [kind for kind in kinds if kind not in CLAIMS]
    scenes = list(sample_scenes(split, count, start=start, draw=draw, rungs=rungs))
    asked = {
        scene: drawn
        for scene, drawn in select(scenes, per_case=per_case, kinds=[k for k in kinds if k in CLAIMS], seed=seed)
    }
    for scene in scenes if texts else ():
        rng = random.Random(f"{VERSION}/{seed}/{scene.patient}/report")
        asked.setdefault(scene, []).extend(report_question(scene, rng, short=kind == "caption") for kind in texts)
    for name in ("images", "masks", "counterfactuals"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    examples: list[Example] = []
    for scene, questions in track(list(asked.items()), f"phantom-2 {split}"):
        examples += _write_scene(folder, scene, questions, px)
    return examples


def _write_scene(folder: Path, scene: Scene, asked: Sequence[Question], px: int) -> list[Example]:
    name, split, drawn = f"{scene.patient:08d}", split_of(scene.patient), render_scene(scene, px)
    write_png(folder / f"images/{name}.png", drawn.image)
    examples = []
    for number, question in enumerate(asked):
        report = question.task == "report"
        about = [f.kind for f in scene.findings if report or f.kind == question.finding]
        removed = ""
        if about and not report:
            removed = f"counterfactuals/{name}-{_slug(about[0])}.png"
            write_png(folder / removed, render_scene(without(scene, about[0]), px).image)
        examples.append(
            Example(
                id=f"{VERSION}-{split}-{name}-{number}", images=[f"images/{name}.png"], question=question.prompt,
                answer=question.answer, task=question.task, regions=_regions(folder, name, scene, drawn, about),
                patient_id=f"phantom-{scene.patient}", modality=MODALITY, source=VERSION, split=split,
                **_fields(scene, question, removed),
            )
        )  # fmt: skip
    return examples


def _regions(folder: Path, name: str, scene: Scene, drawn: Render, about: Sequence[str]) -> list[Region]:
    regions = []
    for finding, mask in zip(scene.findings, drawn.masks, strict=True):
        if finding.kind in about:
            path = f"masks/{name}-{_slug(finding.kind)}.png"
            write_png(folder / path, mask)
            regions.append(Region(finding.kind, [float(corner) for corner in box(mask)], path))
    return regions


def _fields(scene: Scene, question: Question, removed: str) -> dict[str, Any]:
    claim = question.task != "report"
    return {
        "finding": question.finding or "",
        "slot": question.slot or "",
        "kind": question.kind,
        "prior": question.prior,
        "slots": question.slots,
        "full": question.full,
        "counterfactual": removed,
        "meta": {
            "prior_name": question.slots["prior"] if claim else "",
            "counter": answer(question, question.slots["counter"]) if claim else None,
            "findings": [asdict(finding) for finding in scene.findings],
            "rung": scene.rung,
            "hospital": scene.hospital,
            "phantom": VERSION,
        },
    }


def write_skills(folder: Path, *, count: int, draw: int = 0, seed: int = 0) -> list[Example]:
    """Write the skills (`skills.py`) of `count` patients, one lesson of each skill a patient, as split "skills". No
    prior touches them, and no training of a study: what is lost on them is forgotten."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    examples: list[Example] = []
    for scene in track(list(sample_scenes("test", count, start=SKILLED, draw=draw)), "phantom-2 skills"):
        for name, build in SKILLS.items():
            lesson = build(scene, random.Random(f"{VERSION}/{seed}/{scene.patient}/{name}"))
            if lesson is None:
                continue
            stem = f"{scene.patient:08d}-{name}"
            images = [f"images/{stem}-{number}.png" for number in range(len(lesson.images))]
            for path, image in zip(images, lesson.images, strict=True):
                write_png(folder / path, image)
            examples += [
                Example(
                    id=f"{VERSION}-skills-{stem}-{number}", images=images, question=question.prompt,
                    answer=question.answer, task=question.task, patient_id=f"phantom-{scene.patient}",
                    modality=MODALITY, source=VERSION, split="skills", finding=question.finding or "",
                    kind=question.kind, full=question.full,
                )
                for number, question in enumerate(lesson.questions)
            ]  # fmt: skip
    return examples


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> list[Example]:
    """Draws the phantoms of every split below `folder`; split "skills" is of `write_skills`. Nothing can go wrong with
    a row, so the quarantine stays as it is. Raises `UsageError` for an unknown question kind or split."""
    examples: list[Example] = []
    drawn = {"draw": options.draw, "seed": options.seed}
    for split, count in (options.splits or PATIENTS).items():
        if split == "skills":
            examples += write_skills(folder, count=int(count), **drawn)
            continue
        examples += write_scenes(
            folder, split=split, count=int(count), px=options.px, per_case=options.per_case,
            kinds=options.kinds or tuple(CLAIMS), rungs=options.rungs or tuple(range(len(RUNGS))), **drawn,
        )  # fmt: skip
    return examples


def _slug(kind: str) -> str:
    return kind.replace(" ", "-")
