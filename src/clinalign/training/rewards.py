"""What a report is rewarded for: plain functions of its text and of the example that it answers, each from 0 to 1.

A reward that does not apply to an example (no side is known, say) is None for every report of it, never for some of
them: within a group nothing is gained by leaving out what is scored. The rewards of findings are of reports; a question
("which side?") has no findings to be precise about, and is rewarded for being answered rightly. Readings and sources:
docs/valor.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from clinalign.evaluation.reports import named
from clinalign.evaluation.text import rouge_l, words
from clinalign.language.graph import related
from clinalign.language.judge import judge
from clinalign.language.parse import ABSENT, PRESENT, UNCERTAIN
from clinalign.language.reports import Fact, facts
from clinalign.records import Example

Reward = Callable[[str, Example], float | None]
Embed = Callable[[Sequence[str]], Any]
"""Texts into rows [n, D] of unit length."""

TOLERANCE = 0.2
"""By how much of the reference's words a report may be longer or shorter without losing anything."""


def precision(text: str, example: Example) -> float | None:
    """Share of the stated findings that the reference has. Stating none is 1 where the reference has none, else 0."""
    own, there, maybe = _findings(text, example)
    if not own:
        return float(not there)
    return sum(any(related(f, g) for g in maybe) for f in own) / len(own)


def recall(text: str, example: Example) -> float | None:
    """Share of the reference's findings that are stated; None where it has none."""
    own, there, _ = _findings(text, example)
    return sum(any(related(f, g) for g in own) for f in there) / len(there) if there else None


def _findings(text: str, example: Example) -> tuple[set[str], set[str], set[str]]:
    """Findings stated by a report; those of the reference; those with what it leaves open."""
    reference = facts(example.answer, example.slots)
    return named(facts(text), (PRESENT,)), named(reference, (PRESENT,)), named(reference, (PRESENT, UNCERTAIN))


def denials(text: str, example: Example) -> float | None:
    """Denials against the reference: F1 of the findings it denies; None where it denies none.

    A denied finding counts as right where the reference denies it, as wrong where the reference has it. A finding both
    stated and denied is not denied.
    """
    reference, own = facts(example.answer, example.slots), facts(text)
    there, away = named(reference, (PRESENT,)), named(reference, (ABSENT,)) - named(reference, (PRESENT,))
    if not away:
        return None
    denied = named(own, (ABSENT,)) - named(own, (PRESENT,))
    right, wrong = len(denied & away), len(denied & there)
    return 2 * right / (right + wrong + len(away)) if right else 0.0


def place(text: str, example: Example, slot: str) -> float | None:
    """Share of the reference's findings with a side (or zone) that are stated there; None where none has one.

    A finding that is left out, or stated at two places, is not at the right one. The reference's words count where they
    state findings at all: what `slots` know beyond them ("an effusion", of which they know the zone) nobody says.
    """
    wanted = [f for f in _present(facts(example.answer) or facts("", example.slots)) if f.get(slot)]
    if not wanted:
        return None
    own = _present(facts(text))
    right = 0
    for fact in wanted:
        said = {f.get(slot) for f in own if related(f.finding, fact.finding)}
        right += ({"bilateral"} if said == {"left", "right"} else said) == {fact.get(slot)}
    return right / len(wanted)


def _present(said: Sequence[Fact]) -> list[Fact]:
    return [f for f in said if f.status == PRESENT]


def length(text: str, example: Example) -> float | None:
    """1 within a fifth of the reference's words, falling to 0 at none of them or at twice as many; 0 for a text that
    says a sentence twice. None for a question whose answer is not known as a sentence."""
    asked = example.task == "report" or example.full
    wanted, said = len(words(reference(example))) if asked else 0, sentences(text)
    if not wanted or len(set(said)) < len(said):
        return 0.0 if wanted else None
    excess = abs(len(words(text)) / wanted - 1) - TOLERANCE
    return 1 - min(1.0, max(0.0, excess) / (1 - TOLERANCE))


def overlap(text: str, example: Example) -> float | None:
    """ROUGE-L with the reference."""
    return rouge_l(text, reference(example))


def correct(text: str, example: Example) -> float | None:
    """1 where a closed or open question is answered rightly, 0 where wrongly or not at all; None for a report."""
    if example.task == "report":
        return None
    found = judge(example.question, text, example.answer, task=example.task, slots=example.slots)
    return float(found.correct is True)


def reference(example: Example) -> str:
    """The true answer, as a sentence where it is known as one."""
    return example.full or example.answer


def sentence_set(text: str, example: Example, embed: Embed) -> float | None:
    """How alike two sets of sentences are: the mean best cosine of each sentence, both ways, from 0 to 1.

    Our reading of SDR (arXiv 2606.00440, of which only the abstract is known): a set distance between sentences
    embedded by a frozen encoder. Sentences said twice count once, their order not at all.
    """
    own, truth = (sorted(set(sentences(one))) for one in (text, reference(example)))
    if not own or not truth:
        return 0.0 if truth else None
    rows = embed([*own, *truth])
    cosines = rows[: len(own)] @ rows[len(own) :].T
    both = float(cosines.max(1).values.mean() + cosines.max(0).values.mean()) / 2
    return min(1.0, max(0.0, both))


def sentences(text: str) -> list[str]:
    """The sentences of a text, split at full stops that a space follows."""
    return [part.strip().rstrip(".") for part in text.replace("\n", " ").split(". ") if part.strip(" .")]


def _of_reports(reward: Reward) -> Reward:
    return lambda text, example: reward(text, example) if example.task == "report" else None


REWARDS: dict[str, Reward] = {
    "precision": _of_reports(precision),
    "recall": _of_reports(recall),
    "denials": _of_reports(denials),
    "side": _of_reports(partial(place, slot="side")),
    "zone": _of_reports(partial(place, slot="zone")),
    "length": length,
    "overlap": overlap,
    "correct": correct,
}
"""Rewards that need nothing but the two texts."""
OF_EXPERT = ("sentence_set", "similarity")
"""Rewards that need the expert: its text encoder, or both encoders."""


def scored(weights: Mapping[str, float], text: str, example: Example) -> float:
    """The weighted sum of rewards that need the texts alone, as the trainer forms it: what does not apply is 0."""
    return sum(weight * (REWARDS[name](text, example) or 0.0) for name, weight in weights.items())
