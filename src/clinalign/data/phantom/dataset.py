"""Phantom cases and questions as a folder of PNGs and a list of `Example`s.

    images/0000012.png  masks/0000012-nodule.png  counterfactuals/0000012-nodule.png (the nodule gone)

Patients of different splits never meet: each split owns a block of a million patient numbers.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clinalign.data.options import DataOptions
from clinalign.data.phantom.cases import SIDES, SIZES, VERSION, ZONES, Case, box, counterfactual, render, sample_case
from clinalign.data.phantom.text import CLAIM_KINDS, IMAGES, KINDS_OF_QUESTION, Question, questions
from clinalign.data.phantom.wording import Rng, shuffled
from clinalign.errors import UsageError, nearest
from clinalign.imaging.images import write_png
from clinalign.progress import track
from clinalign.records import Example, Region
from clinalign.storage import Quarantine

SPLITS = {"align": 0, "dev": 1_000_000, "test": 2_000_000, "embedded": 3_000_000}
"""First patient number of each split."""
BLOCK = 1_000_000
MODALITY = "CXR phantom"
SLACK = 4
"""By how many questions a kind or value may run ahead of the rarest one of its group."""

PATIENTS = {"align": 900, "dev": 100, "test": 200}
"""Patients of each split where a recipe says nothing."""

_TRUTHS = {"presence": ("yes", "no"), "side": SIDES, "size": SIZES, "zone": ZONES}


def split_patients(split: str, count: int, start: int = 0) -> range:
    """`count` patient numbers of a split, from its `start`-th on."""
    if split not in SPLITS:
        raise UsageError(f"phantom split {split!r}: use one of {', '.join(SPLITS)}{nearest(split, SPLITS)}")
    if start < 0 or count < 0 or start + count > BLOCK:
        raise UsageError(f"phantom split {split!r}: patients {start} to {start + count} do not fit in {BLOCK}")
    return range(SPLITS[split] + start, SPLITS[split] + start + count)


def select(
    patients: range, *, per_case: int, kinds: Sequence[str] = CLAIM_KINDS, seed: int = 0
) -> Iterator[tuple[Case, list[Question]]]:
    """Balanced questions without images: at most `per_case` per patient, never two about one claim.

    Among the claim kinds, the kinds run level, within a kind the values (yes/no, left/right, ...), within a value the
    short answers, up to `SLACK`; findings are evened out as far as cases allow. A question that would tip the balance
    is left out, so a case may have fewer than `per_case`, or none and then it is skipped.
    """
    seen: Counter[tuple[str, ...]] = Counter()
    cap = -(-per_case // len(kinds))
    for patient in patients:
        rng = random.Random(f"{VERSION}/{seed}/{patient}")
        case = sample_case(patient)
        drawn = _draw_balanced(case, rng, kinds, per_case, cap, seen)
        if drawn:
            yield case, drawn


def write_phantoms(
    folder: Path,
    *,
    split: str,
    patients: range,
    px: int = 64,
    per_case: int = 4,
    kinds: Sequence[str] = CLAIM_KINDS,
    seed: int = 0,
) -> list[Example]:
    """Write images, masks and counterfactuals under `folder` and return the examples; paths are relative to `folder`.

    `Example.answer` is the short ground truth, `full` a clean full answer, `counterfactual` the image without the
    queried finding; `regions` holds that finding, or for a report or caption every finding. `meta` has `findings` (of
    the case) and `phantom` (the version).
    Raises UsageError for an unknown split or kind and for patients outside the split's block.
    """
    allowed = split_patients(split, BLOCK)
    if patients and not (allowed[0] <= min(patients) and max(patients) <= allowed[-1]):
        block = f"{allowed[0]} to {allowed[-1]}"
        raise UsageError(f"phantom split {split!r}: patients {patients} are outside {block}; use split_patients()")
    for kind in kinds:
        if kind not in KINDS_OF_QUESTION:
            hint = nearest(kind, KINDS_OF_QUESTION)
            raise UsageError(f"phantom question kind {kind!r}: use some of {', '.join(KINDS_OF_QUESTION)}{hint}")
    if not kinds or per_case < 1:
        raise UsageError(f"phantoms: per_case={per_case} and {len(kinds)} kinds; at least one of each is needed")
    for name in ("images", "masks", "counterfactuals"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    examples: list[Example] = []
    chosen = list(select(patients, per_case=per_case, kinds=kinds, seed=seed))
    for case, asked in track(chosen, f"phantoms {split}"):
        examples += _write_case(folder, split, case, asked, px)
    return examples


def _draw_balanced(
    case: Case, rng: Rng, kinds: Sequence[str], per_case: int, cap: int, seen: Counter[tuple[str, ...]]
) -> list[Question]:
    pool = shuffled(rng, questions(case, rng, kinds) + questions(case, rng, kinds))
    out: list[Question] = []
    while pool and len(out) < per_case:
        pool = [q for q in pool if _level(q, kinds, seen)]
        if not pool:
            break
        best = min(pool, key=lambda q: [seen[key] for key in _keys(q)])
        out.append(best)
        seen.update(_keys(best))
        full = sum(q.kind == best.kind for q in out) >= cap
        pool = [q for q in pool if not (q.kind == best.kind and (full or _same_claim(q, best)))]
    return out


def _same_claim(a: Question, b: Question) -> bool:
    return a.prompt == b.prompt or (a.finding, a.slot) == (b.finding, b.slot)


def _keys(question: Question) -> list[tuple[str, ...]]:
    """Counters from coarse to fine: kind, value, value and answer, value and finding."""
    truth = str(question.slots.get(question.slot)) if question.slot in _TRUTHS else question.answer
    kind, answer = question.kind, question.answer
    return [(kind,), (kind, truth), (kind, truth, "answer", answer), (kind, truth, "finding", str(question.finding))]


def _level(question: Question, kinds: Sequence[str], seen: Counter[tuple[str, ...]]) -> bool:
    """Whether one more such question keeps the claim kinds, their values and the closed answers level."""
    if question.kind not in CLAIM_KINDS:
        return True
    by_kind, by_truth, by_answer, _ = _keys(question)
    groups: list[tuple[tuple[str, ...], list[tuple[str, ...]]]] = [
        (by_kind, [(k,) for k in kinds if k in CLAIM_KINDS]),
        (by_truth, [(question.kind, truth) for truth in _TRUTHS[question.slot]]),
    ]
    if question.kind.endswith("_closed"):
        groups.append((by_answer, [(*by_answer[:3], answer) for answer in ("yes", "no")]))
    return all(seen[key] < min(seen[other] for other in others) + SLACK for key, others in groups)


def _write_case(folder: Path, split: str, case: Case, asked: Sequence[Question], px: int) -> list[Example]:
    name = f"{case.patient:07d}"
    image = f"images/{name}.png"
    pictured = [question for question in asked if IMAGES[question.kind]]
    drawn = render(case, px)
    if pictured:
        write_png(folder / image, drawn.image)
    index = {f.kind: i for i, f in enumerate(case.findings)}
    about = [_about(question, index) for question in asked]
    marked = dict.fromkeys(kind for kinds in about for kind in kinds)
    regions = {kind: _region(folder, name, kind, drawn.masks[index[kind]]) for kind in marked}
    without = {}
    for kind in dict.fromkeys(q.finding for q in pictured if q.finding):
        if kind in index:
            without[kind] = f"counterfactuals/{name}-{_slug(kind)}.png"
            write_png(folder / without[kind], render(counterfactual(case, index[kind]), px).image)
    listed = [{slot: getattr(f, slot) for slot in ("kind", "side", "zone", "size")} for f in case.findings]
    return [
        Example(
            id=f"phantom-{split}-{name}-{number}",
            images=[image] if question in pictured else [],
            question=question.prompt,
            answer=question.answer,
            task=question.task,
            regions=[regions[kind] for kind in about[number]],
            patient_id=f"phantom-{case.patient}",
            modality=MODALITY,
            source=VERSION,
            split=split,
            finding=question.finding or "",
            slot=question.slot,
            kind=question.kind,
            prior=question.prior,
            full=question.full,
            slots=question.slots,
            counterfactual=without.get(question.finding or "", "") if question in pictured else "",
            meta={"findings": listed, "phantom": VERSION},
        )
        for number, question in enumerate(asked)
    ]


def _about(question: Question, index: Mapping[str, int]) -> list[str]:
    """The present findings whose regions belong to a question."""
    if not IMAGES[question.kind]:
        return []
    if question.task == "report":
        return list(index)
    return [question.finding] if question.finding and question.finding in index else []


def _region(folder: Path, name: str, kind: str, mask: npt.NDArray[np.bool_]) -> Region:
    path = f"masks/{name}-{_slug(kind)}.png"
    write_png(folder / path, mask)
    return Region(kind, [float(c) for c in box(mask)], path)


def _slug(kind: str) -> str:
    return kind.replace(" ", "-")


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> list[Example]:
    """Draws the phantoms of every split below `folder`. Nothing can go wrong with a row, so the quarantine stays as
    it is. Raises `UsageError` for an unknown question kind or split."""
    examples = []
    for split, count in (options.splits or PATIENTS).items():
        examples += write_phantoms(
            folder,
            split=split,
            patients=split_patients(split, int(count)),
            px=options.px,
            per_case=options.per_case,
            kinds=options.kinds or CLAIM_KINDS,
            seed=options.seed,
        )
    return examples
