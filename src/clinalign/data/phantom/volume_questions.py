"""Questions about phantom stacks of slices: several images a question, the lesion over some of them, exact
counterfactuals of every slice.

    images/volume-0000012-03.png  masks/volume-0000012-03.png  counterfactuals/volume-0000012-03.png

Slices run from the apex down, in the lung window. A nodule's mask is given slice by slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clinalign.data.options import DataOptions
from clinalign.data.phantom.cases import box
from clinalign.data.phantom.dataset import PATIENTS, split_patients
from clinalign.data.phantom.volume import LUNG_WINDOW, Volume, render_volume, sample_volume, window, without_nodule
from clinalign.imaging.images import write_png
from clinalign.records import Example, Region
from clinalign.storage import Quarantine

VERSION = "phantom-volume-1"
SLICES = 6
"""Slices of a stack where a recipe says nothing."""
FINDING = "nodule"
QUESTION = "Do the slices show a nodule?"
FULL = {"yes": "The slices show a nodule in the lung.", "no": "The slices show no nodule in the lung."}


def read(options: DataOptions, folder: Path, quarantine: Quarantine) -> Iterator[Example]:
    """Draws the stacks of every split below `folder`: `data.splits` says how many patients, `data.slices` how many
    slices each (6 where it is 1). No row can go wrong; raises `UsageError` for a number of slices that is not drawn."""
    count = options.slices if options.slices > 1 else SLICES
    for split, patients in (options.splits or PATIENTS).items():
        for patient in split_patients(split, int(patients)):
            yield volume_example(folder, sample_volume(patient, count), split, options)


def volume_example(folder: Path, volume: Volume, split: str, options: DataOptions) -> Example:
    """Writes a stack and gives the question whether it shows a nodule."""
    stack = render_volume(volume, options.px)
    without = render_volume(without_nodule(volume), options.px) if volume.nodule is not None else None
    grey = window(stack.hounsfield, *LUNG_WINDOW)
    names = [f"volume-{volume.patient:07d}-{number:02d}.png" for number in range(volume.slices)]
    images, counterfactuals = [f"images/{name}" for name in names], []
    regions = []
    for number, name in enumerate(names):
        write_png(folder / images[number], grey[number])
        mask = stack.mask[number]
        if without is not None and mask.any():
            write_png(folder / f"masks/{name}", mask)
            write_png(folder / f"counterfactuals/{name}", window(without.hounsfield[number], *LUNG_WINDOW))
            regions.append(Region(FINDING, [float(c) for c in box(mask)], f"masks/{name}", number))
        counterfactuals.append(f"counterfactuals/{name}" if mask.any() else images[number])
    answer = "no" if volume.nodule is None else "yes"
    captions = [options.captions.format(number=number) for number in range(1, volume.slices + 1)]
    return Example(
        id=f"volume-{split}-{volume.patient:07d}",
        images=images,
        question=QUESTION,
        answer=answer,
        task="closed",
        regions=regions,
        patient_id=f"phantom-volume-{volume.patient}",
        modality="CT phantom",
        source=VERSION,
        split=split,
        finding=FINDING,
        slot="presence",
        kind="presence_closed",
        full=FULL[answer],
        slots={"presence": answer},
        captions=[options.intro, *captions] if options.captions else [],
        counterfactuals=counterfactuals if regions else [],
        meta={"phantom": VERSION, "touched": list(stack.touched())},
    )
