"""Phantoms as a data source: which splits, how many patients, which questions."""

from __future__ import annotations

from pathlib import Path

from clinalign.data.options import DataOptions
from clinalign.data.phantom.dataset import CLAIM_KINDS, split_patients, write_phantoms
from clinalign.records import Example
from clinalign.storage import Quarantine

PATIENTS = {"align": 900, "dev": 100, "test": 200}


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
