"""The phantom text in one place: questions, answers, reports, formats and the language prior.

    rng = random.Random(0)
    for question in questions(case, rng, kinds=("presence", "side", "report")):
        biased = contaminate(question, rng)

Every text is ASCII. `rng` is anything with `random() -> float` in [0, 1).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from clinalign.data.phantom.cases import KINDS, Case, sample_case
from clinalign.data.phantom.formats import FORMATS
from clinalign.data.phantom.language_prior import DENIED_FINDINGS, LANGUAGE_PRIOR, contaminate, contaminate_findings
from clinalign.data.phantom.questions import CLAIM_KINDS, CLAIMS, which
from clinalign.data.phantom.reports import caption, caption_question, report, report_question
from clinalign.data.phantom.two_images import PAIR_FORMATS, follow_up
from clinalign.data.phantom.wording import Question, Rng, pick

__all__ = [
    "BUILDERS", "CLAIM_KINDS", "DENIED_FINDINGS", "IMAGES", "KINDS_OF_QUESTION", "LANGUAGE_PRIOR", "PAIR_KINDS",
    "Question", "caption", "contaminate", "contaminate_findings", "draw", "pair_questions", "pair_stream", "questions",
    "report", "stream",
]  # fmt: skip

BUILDERS = {**CLAIMS, "which": which, "report": report_question, "caption": caption_question, **FORMATS}
"""Kinds of no or one image: name -> builder(case, rng) -> list of questions."""

KINDS_OF_QUESTION = tuple(BUILDERS)
PAIR_KINDS = tuple(PAIR_FORMATS)
IMAGES = {
    **{kind: 0 if kind in ("knowledge", "given", "no_image") else 1 for kind in BUILDERS},
    **dict.fromkeys(PAIR_FORMATS, 2),
}
"""Number of images that a kind of question takes; they stand before the prompt."""


def questions(case: Case, rng: Rng, kinds: Sequence[str] = CLAIM_KINDS) -> list[Question]:
    """Every question of the given kinds that the case allows, one wording each."""
    return [question for kind in kinds for question in BUILDERS[kind](case, rng)]


def pair_questions(first: Case, second: Case, rng: Rng, kinds: Sequence[str] = PAIR_KINDS) -> list[Question]:
    """Every question of the given kinds about two images."""
    return [question for kind in kinds for question in PAIR_FORMATS[kind](first, second, rng)]


def draw(case: Case, rng: Rng, kinds: Sequence[str], count: int) -> list[Question]:
    """At most `count` questions with different prompts: kind uniform, then the short answer uniform, then one of those.

    Drawing the answer before the question keeps yes/no and the values even although absent findings are more common.
    """
    groups: dict[str, dict[str, list[Question]]] = {}
    for kind in kinds:
        for question in BUILDERS[kind](case, rng):
            groups.setdefault(kind, {}).setdefault(question.answer, []).append(question)
    out: list[Question] = []
    while groups and len(out) < count:
        kind = pick(rng, list(groups))
        answer = pick(rng, list(groups[kind]))
        group = groups[kind][answer]
        out.append(group.pop(int(rng.random() * len(group))))
        if not group:
            del groups[kind][answer]
        if not groups[kind]:
            del groups[kind]
    return out


def stream(
    patients: Iterable[int],
    *,
    kinds: Sequence[str] = CLAIM_KINDS,
    contaminated: bool = False,
    per_case: int = 4,
    seed: int = 0,
    findings: Sequence[str] = KINDS,
    prevalence: float | Mapping[str, float] = 0.33,
) -> Iterator[tuple[Case, list[Question]]]:
    """Cases with up to `per_case` questions each, without writing images; cases that allow no question are left out.

    A case's questions depend on (seed, patient) alone. With `contaminated` their `full` follows the prior.
    """
    for patient in patients:
        rng = random.Random(f"{seed}/{patient}/text")
        case = sample_case(patient, kinds=findings, prevalence=prevalence)
        drawn = draw(case, rng, kinds, per_case)
        if contaminated:
            drawn = [contaminate(question, rng) for question in drawn]
        if drawn:
            yield case, drawn


def pair_stream(
    patients: Iterable[int],
    *,
    kinds: Sequence[str] = PAIR_KINDS,
    contaminated: bool = False,
    seed: int = 0,
    prevalence: float | Mapping[str, float] = 0.33,
) -> Iterator[tuple[tuple[Case, Case], Question]]:
    """One question about two images per neighbouring pair of patients (for "resolved": one patient, twice)."""
    for left, right in pairwise(patients):
        rng = random.Random(f"{seed}/{left}/pair")
        first, second = (sample_case(p, prevalence=prevalence) for p in (left, right))
        kind = pick(rng, kinds)
        pair = follow_up(first, rng) if kind == "resolved" else (first, second)
        if pair is None:
            continue
        answers: dict[str, list[Question]] = {}
        for question in PAIR_FORMATS[kind](*pair, rng):
            answers.setdefault(question.answer, []).append(question)
        question = pick(rng, answers[pick(rng, list(answers))])
        yield pair, contaminate(question, rng) if contaminated else question
