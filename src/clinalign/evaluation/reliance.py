"""Questions asked with the image taken away: does the model use it at all?"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from clinalign.errors import UsageError
from clinalign.evaluation.byquestion import Known, Table, averaged, interval
from clinalign.evaluation.options import EvaluationOptions
from clinalign.evaluation.vqa import patient
from clinalign.imaging.images import read_image
from clinalign.records import Example

RELIANCE = ("blank", "noise", "shuffled", "no_image")
CHANGED_AT_LEAST = 0.05
IGNORES_P = 0.01
ALWAYS = 0.95
BY_CHANCE = 0.6  # a good model may rightly say yes nearly always where nearly all truths are yes


def without_image(example: Example, folder: Path, condition: str, donors: dict[str, Example]) -> list[np.ndarray]:
    """The images to show under `condition`: blank (black), noise (grey), shuffled (another patient's), no_image (none).

    Noise is Gaussian around mid-grey with SD 64, the same in all three channels, drawn from the example's id.
    """
    if condition == "no_image":
        return []
    if condition == "shuffled":
        return [read_image(folder / image) for image in donors[example.id].images]
    shown = [read_image(folder / image) for image in example.images]
    if condition == "blank":
        return [np.zeros_like(image) for image in shown]
    rng = np.random.default_rng(int(stable(example.id)[:16], 16))
    grey = [rng.normal(128, 64, image.shape[:2]).clip(0, 255).astype(np.uint8) for image in shown]
    return [np.repeat(image[..., None], 3, axis=2) for image in grey]


def find_donors(examples: Sequence[Example]) -> dict[str, Example]:
    """For every example with images one of another patient with as many images; the same for any order of `examples`.

    Patients are put in the order of a hash and each takes from the next, so every patient gives once.
    """
    result: dict[str, Example] = {}
    for count in sorted({len(example.images) for example in examples} - {0}):
        group = [example for example in examples if len(example.images) == count]
        first = {patient(example): example for example in sorted(group, key=lambda e: e.id, reverse=True)}
        ring = sorted(first, key=stable)
        if len(ring) < 2:
            raise UsageError(
                f"evaluate.reliance: 'shuffled' needs two patients with {count} image(s), found one; leave it out"
            )
        following = dict(zip(ring, ring[1:] + ring[:1], strict=True))
        result |= {example.id: first[following[patient(example)]] for example in group}
    return result


def stable(text: str) -> str:
    """A hash to order by that does not change between runs."""
    return hashlib.sha256(text.encode()).hexdigest()


def reliance_summary(table: Table, known: Known, condition: str, options: EvaluationOptions) -> dict[str, Any]:
    """Does taking the image away change anything? `accuracy` and `changed` with intervals, the test and its verdict.

    `p` tests "at least 5 % of answers change" with patients as the trials, so that many questions about one image do
    not count as many images; below 0.01 the model is said to ignore the image.
    """
    changed: dict[str, bool] = defaultdict(bool)
    answers = averaged(table[f"changed_{condition}"])
    for name, value in answers.items():
        if known[name].images:
            changed[patient(known[name])] |= value > 0
    p = float(stats.binom.cdf(sum(changed.values()), len(changed), CHANGED_AT_LEAST)) if changed else None
    share = interval(answers, known, options, True)
    return {
        "accuracy": interval(averaged(table.get(f"accuracy_{condition}", {})), known, options, True),
        "changed": share,
        "p": p,
        "ignores_image": p is not None and p < IGNORES_P,
        "verdict": _verdict(p, share),
    }


def _verdict(p: float | None, share: Mapping[str, Any]) -> str:
    """One of "ignores the image", "uses the image" and "cannot tell"."""
    if p is not None and p < IGNORES_P:
        return "ignores the image"
    sure = share["low"] is not None and share["low"] > CHANGED_AT_LEAST
    return "uses the image" if sure else "cannot tell"


def verdicts(metrics: Mapping[str, Any], reliance: Mapping[str, Any]) -> list[str]:
    """Sentences that name a fault which an accuracy alone would hide."""
    found = []
    for condition, shown in reliance.items():
        if shown["ignores_image"]:
            share, name = shown["changed"], condition.replace("_", " ")
            found.append(
                f"ignores the image: {100 * share['estimate']:.1f} % of answers change under {name} "
                f"(at least 5 % is rejected, p = {shown['p']:.2g}, {share['patients']} patients)"
            )
    rate, even = (metrics.get(name, {}).get("estimate") for name in ("yes_rate", "balanced_accuracy"))
    if rate is not None and even is not None and even < BY_CHANCE and not 1 - ALWAYS < rate < ALWAYS:
        word = "yes" if rate > 0.5 else "no"
        shares = f"yes to {100 * rate:.1f} % of the yes/no questions, balanced accuracy {100 * even:.1f} %"
        found.append(f"always says {word}: {shares}")
    return found
