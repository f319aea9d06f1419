"""Image ablation: questions asked with the image taken away, to see whether the model uses it at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clinalign.errors import UsageError
from clinalign.evaluation.metrics import patient
from clinalign.measuring.asking import own_images, stable
from clinalign.records import Example


def without_image(example: Example, folder: Path, condition: str, donors: dict[str, Example]) -> list[np.ndarray]:
    """The images to show under `condition`: blank (black), noise (grey), shuffled (another patient's), no_image (none).

    Noise is Gaussian around mid-grey with SD 64, the same in all three channels, drawn from the example's id.
    """
    if condition == "no_image":
        return []
    if condition == "shuffled":
        return own_images(donors[example.id], folder)
    shown = own_images(example, folder)
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
                f"evaluate.ablations: 'shuffled' needs two patients with {count} image(s), found one; leave it out"
            )
        following = dict(zip(ring, ring[1:] + ring[:1], strict=True))
        result |= {example.id: first[following[patient(example)]] for example in group}
    return result
