"""Questions asked with the image taken away: does the model use it at all?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clinalign.data.images import read_image
from clinalign.errors import UsageError
from clinalign.evaluation.vqa import patient
from clinalign.records import Example


def without_image(example: Example, folder: Path, condition: str, donors: dict[str, Example]) -> list[np.ndarray]:
    """The images to show under `condition`: blank (black), shuffled (another patient's) or no_image (none)."""
    if condition == "no_image":
        return []
    if condition == "blank":
        return [np.zeros_like(read_image(folder / image)) for image in example.images]
    return [read_image(folder / image) for image in donors[example.id].images]


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
