"""Sentences about an eye whose truth is known: supported ones, and claims injected that nothing supports.

Shares no code with the checker: its words, templates and numbers are its own, and it drew the truth itself.

    python benchmarks/eh_injected.py --out injected.json        # shares caught and falsely marked, by kind; the misses
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A file of this folder shares its name with a module of the standard library, which it must not shadow.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]

from clinalign.agent.tools import Fact  # noqa: E402

KINDS = {
    "exudate": ("hard exudates", "exudates", "lipid exudates", "yellow exudates"),
    "retinal hemorrhage": (
        "retinal haemorrhages",
        "retinal hemorrhages",
        "blot haemorrhages",
        "intraretinal hemorrhages",
    ),
    "microaneurysm": ("microaneurysms", "retinal microaneurysms"),
}
STRANGERS = (
    "drusen", "cotton wool spots", "macular oedema", "neovascularization", "optic disc swelling",
    "a retinal detachment",
    "an epiretinal membrane", "venous beading", "a macular hole", "vitreous haemorrhage", "a choroidal naevus",
    "geographic atrophy", "optic atrophy", "laser scars", "a retinal tear",
)  # fmt: skip
PLACES = {
    "superior nasal": ("superior nasal quadrant", "superonasal quadrant", "upper nasal quadrant"),
    "superior temporal": ("superior temporal quadrant", "superotemporal quadrant", "upper temporal quadrant"),
    "inferior nasal": ("inferior nasal quadrant", "inferonasal quadrant", "lower nasal quadrant"),
    "inferior temporal": ("inferior temporal quadrant", "inferotemporal quadrant", "lower temporal quadrant"),
}
WORDS = "zero one two three four five six seven eight nine ten".split()
EYES = {"OD": "right eye", "OS": "left eye"}
GRADES = ("no", "mild", "moderate", "severe")
CATEGORIES = ("healthy", "hypertension", "suspect", "glaucoma")


@dataclass(frozen=True, slots=True)
class Injected:
    """A sentence, the facts at hand, whether they carry it, and what kind of sentence it is."""

    text: str
    facts: tuple[tuple[str, Fact], ...]
    supported: bool
    kind: str


@dataclass(slots=True)
class Truth:
    """What was drawn of one eye."""

    eye: str
    lesions: dict[str, list[str]]
    counts: dict[str, int]
    ratio: float
    grade: int
    category: str
    facts: tuple[tuple[str, Fact], ...] = ()


def draw(rng: random.Random) -> Truth:
    """An eye with at least one kind of lesion there and one not."""
    names = list(KINDS)
    rng.shuffle(names)
    there = names[: rng.choice((1, 2))]
    lesions = {name: rng.sample(list(PLACES), rng.randint(1, 2)) if name in there else [] for name in KINDS}
    counts = {name: rng.randint(len(places), 7) for name, places in lesions.items() if places}
    truth = Truth(
        rng.choice(("OD", "OS")), lesions, counts, rng.randint(20, 85) / 100, rng.randint(1, 3), rng.choice(CATEGORIES)
    )
    eye: Any = truth.eye
    rows = []
    for name, places in lesions.items():
        if places:
            corners: Any = tuple(places)
            rows.append(("q/4", Fact(finding=name, laterality=eye, corners=corners, count=counts[name])))
        else:
            rows.append(("q/4", Fact(finding=name, status="absent", laterality=eye)))
    rows.append(("q/5", Fact(finding="cup-to-disc ratio", value=truth.ratio, laterality=eye)))
    rows.append(("q/6", Fact(finding="retinopathy grade", value=float(truth.grade), laterality=eye)))
    severity: Any = GRADES[truth.grade]
    rows.append(("q/6", Fact(finding="nonproliferative diabetic retinopathy", severity=severity, laterality=eye)))
    rows.append(("q/7", Fact(finding="glaucoma category", value=truth.category, laterality=eye)))
    truth.facts = tuple(rows)
    return truth


def supported(rng: random.Random, truth: Truth) -> tuple[str, str]:
    """A true sentence and its kind."""
    present = rng.choice([name for name in KINDS if truth.lesions[name]])
    absent = rng.choice([name for name in KINDS if not truth.lesions[name]])
    some, none, eye = rng.choice(KINDS[present]), rng.choice(KINDS[absent]), EYES[truth.eye]
    place = rng.choice(PLACES[rng.choice(truth.lesions[present])])
    both = " and ".join(rng.choice(PLACES[p]) for p in truth.lesions[present])
    count = truth.counts[present]
    numeral = rng.choice((str(count), WORDS[count])) if count > 1 else "2"
    options = [
        ("present", f"There are {some}."),
        ("present", f"The image shows {some}."),
        ("present", f"{some.capitalize()} are present in the {eye}."),
        ("absent", f"No {none} are seen."),
        ("absent", f"There are no {none} in the {eye}."),
        ("absent", f"The {eye} is free of {none}."),
        ("place", f"{some.capitalize()} are located in the {place}."),
        ("place", f"There are {some} in the {place} of the {eye}."),
        ("place", f"In the {place} there are {some}."),
        ("place", f"{some.capitalize()} lie in the {both}."),
        ("two", f"{some.capitalize()} are visible in the {place}, but no {none}."),
        ("two", f"There are {some}, and there are no {none}."),
        ("ratio", f"The cup-to-disc ratio is {truth.ratio:.2f}."),
        ("ratio", f"The vertical cup-to-disc ratio of the {eye} measures {truth.ratio:.2f}."),
        ("ratio", f"The CDR is {truth.ratio:.2f}."),
        ("ratio", f"The cup to disc ratio is above {truth.ratio - 0.1:.2f}."),
        ("grade", f"The retinopathy grade is {truth.grade}."),
        ("grade", f"There is {GRADES[truth.grade]} nonproliferative diabetic retinopathy."),
        ("grade", f"The {eye} shows diabetic retinopathy."),
        ("category", f"The glaucoma category is {truth.category}."),
    ]
    options += [
        ("free", f"Examination of the {eye} reveals {some} in the {place}."),
        ("free", f"Fundoscopy shows {some} in the {place}."),
        ("free", f"There is evidence of {some}."),
        ("free", f"{some.capitalize()} can be identified in the {place} of this {eye}."),
        ("free", f"I see {some} but not {none}."),
        ("free", f"The {place} contains {some}."),
        ("free", f"The {eye} has {some} and a cup-to-disc ratio of {truth.ratio:.2f}."),
        ("free", f"{none.capitalize()} are absent."),
        ("free", f"Neither {none} nor other {none} are present."),
        ("free", f"The vertical cup-to-disc ratio was measured at {truth.ratio:.2f}."),
        ("free", f"The diabetic retinopathy is {GRADES[truth.grade]}."),
    ]
    if len(truth.lesions[present]) == 1:
        options += [
            ("only", f"{some.capitalize()} are confined to the {place}."),
            ("only", f"{some.capitalize()} lie only in the {place}."),
        ]
    if count > 1:
        options += [("count", f"There are {numeral} {some}."), ("count", f"The {eye} shows {numeral} {some}.")]
    return rng.choice(options)


def unsupported(rng: random.Random, truth: Truth) -> tuple[str, str]:
    """A sentence that the facts do not carry, and its kind."""
    present = rng.choice([name for name in KINDS if truth.lesions[name]])
    absent = rng.choice([name for name in KINDS if not truth.lesions[name]])
    some, none, eye = rng.choice(KINDS[present]), rng.choice(KINDS[absent]), EYES[truth.eye]
    other_eye = EYES["OS" if truth.eye == "OD" else "OD"]
    place = rng.choice(PLACES[rng.choice(truth.lesions[present])])
    wrong = rng.choice(PLACES[rng.choice([p for p in PLACES if p not in truth.lesions[present]])])
    count = truth.counts[present]
    number = rng.choice([n for n in range(2, 10) if n != count])
    numeral = rng.choice((str(number), WORDS[number]))
    ratio = rng.choice([r / 100 for r in range(15, 96) if abs(r / 100 - truth.ratio) > 0.05])
    stranger = rng.choice(STRANGERS)
    grade = rng.choice([g for g in (0, 1, 2, 3, 4) if g != truth.grade])
    severity = rng.choice([g for g in (1, 2, 3) if g != truth.grade])
    category = rng.choice([c for c in CATEGORIES if c != truth.category])
    return rng.choice([
        ("false presence", f"There are {none}."),
        ("false presence", f"{none.capitalize()} are seen in the {rng.choice(PLACES[rng.choice(list(PLACES))])}."),
        ("false absence", f"There are no {some}."),
        ("false absence", f"The {eye} is without {some}."),
        ("never looked for", f"The image shows {stranger}."),
        ("never looked for", f"There are {some} and {stranger}."),
        ("never looked for", f"{stranger.capitalize()} can be seen in the {place}."),
        ("wrong place", f"{some.capitalize()} lie in the {wrong}."),
        ("wrong place", f"In the {wrong} there are {some}."),
        ("wrong place", f"{some.capitalize()} are present in the {place} and the {wrong}."),
        ("wrong extent", f"{some.capitalize()} are found in all four quadrants."),
        ("wrong eye", f"The {other_eye} shows {some}."),
        ("wrong eye", f"There are {some} in the {place} of the {other_eye}."),
        ("wrong count", f"There are {numeral} {some}."),
        ("wrong count", f"The {eye} shows {numeral} {some} in the {place}."),
        ("wrong ratio", f"The cup-to-disc ratio is {ratio:.2f}."),
        ("wrong ratio", f"The vertical cup-to-disc ratio of the {eye} measures {ratio:.2f}."),
        ("wrong ratio", f"The cup to disc ratio is above {truth.ratio + 0.06:.2f}."),
        ("wrong grade", f"The retinopathy grade is {grade}."),
        ("wrong grade", f"There is {GRADES[severity]} nonproliferative diabetic retinopathy."),
        ("wrong category", f"The glaucoma category is {category}."),
        ("change", f"The {some} have increased since the last visit."),
        ("change", f"There are new {some} in the {place}."),
        ("cause", f"The {some} are caused by long-standing diabetes."),
        ("treatment", f"There are {some}, which should be treated with laser."),
        ("treatment", "The patient needs an injection within two weeks."),
        ("history", "The patient has had blurred vision for three months."),
        ("half true", f"There are {some} in the {place}, and {none} are seen as well."),
        ("half true", f"No {none} are seen, and there are no {some} either."),
        ("half true", f"The cup-to-disc ratio is {truth.ratio:.2f}, and there are {none}."),
        ("size", f"There are large {some} in the {place}."),
        ("macula", f"{some.capitalize()} threaten the macula."),
        ("free", f"The {place} is spared by the {some}."),
        ("free", f"The {place} is clear of {some}."),
        ("free", f"There are {some} everywhere except in the {place}."),
        ("free", f"{some.capitalize()} outnumber the {none}."),
        ("free", f"Examination of the {other_eye} reveals {some}."),
        ("free", f"Fundoscopy shows {none} in the {place}."),
        ("free", f"The {eye} has {some} and a cup-to-disc ratio of {ratio:.2f}."),
        ("free", f"The disc margin is blurred and there are {some}."),
        ("free", f"Fundoscopy shows {some}, most of them in the {place}."),
        ("free", f"The {some} measure 2 mm across."),
        ("free", f"Because of the {some}, visual acuity is reduced."),
        ("free", f"The vertical cup-to-disc ratio was measured at {ratio:.2f}."),
        ("free", f"The intraocular pressure is {rng.randint(10, 35)} mmHg."),
        ("free", f"The diabetic retinopathy is {GRADES[severity]}."),
        ("free", "The macula and the vessels look normal."),
        ("free", f"There is glaucoma with {some}."),
        ("nothing said", "This is a typical picture."),
    ])  # fmt: skip


def injected(count: int, seed: int) -> list[Injected]:
    """`count` supported and `count` unsupported sentences."""
    rng = random.Random(f"planted/{seed}")
    out = []
    for make, carried in ((supported, True), (unsupported, False)):
        for _ in range(count):
            truth = draw(rng)
            kind, text = make(rng, truth)
            out.append(Injected(text, truth.facts, carried, kind))
    return out


def measure(count: int = 400, seed: int = 0) -> dict[str, Any]:
    """Shares of injected claims caught and of supported sentences marked, by kind, and what was missed."""
    from clinalign.agent.check import check_text

    items = injected(count, seed)
    marked = [any(s.status != "supported" for s in check_text(item.text, item.facts)) for item in items]
    missed = [f"{item.kind}: {item.text}" for item, mark in zip(items, marked) if not item.supported and not mark]
    false = [f"{item.kind}: {item.text}" for item, mark in zip(items, marked) if item.supported and mark]
    kinds = Counter(item.kind for item in items if not item.supported)
    return {
        "injected": count,
        "unsupported_caught": 1 - len(missed) / count,
        "false_unsupported": len(false) / count,
        "by_kind": {kind: [n - sum(m.startswith(f"{kind}:") for m in missed), n] for kind, n in sorted(kinds.items())},
        "missed": missed,
        "falsely_marked": false,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = measure(given.count, given.seed)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"caught {found['unsupported_caught']:.1%}, falsely marked {found['false_unsupported']:.1%}")
