"""Where the questions of the suites come from: published files, the run's own data, or phantoms drawn for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clinalign.errors import UsageError
from clinalign.evaluation.suites import BELOW
from clinalign.evaluation.suites.table import belongs
from clinalign.folder import Run
from clinalign.measuring.options import Suite
from clinalign.records import Example, Region, files_of
from clinalign.storage import write_table

DEV = "dev"
"""`uncertainty` calibrates on the questions of this split, and reports the others."""


def suite_items(run: Run, own: Sequence[Example]) -> tuple[dict[str, list[Example]], list[Path]]:
    """The questions of every suite that the recipe names, with paths relative to the run folder, and the files written
    for them. `own` are the examples of the run's data.

    Raises `UsageError` for a suite that finds no question in its data.
    """
    from clinalign.measuring.measure import limited

    options = run.recipe.evaluate
    items: dict[str, list[Example]] = {}
    written: list[Path] = []
    for suite in options.suites:
        there = _found(run, suite, own)
        parts = ([e for e in there if (e.split == DEV) is dev] for dev in (False, True))
        found = [example for part in parts for example in limited(part, options.suite_limit)]
        if not found:
            raise UsageError(
                f"evaluate.suites: no question of {suite} in {_where(run, suite)}; name its published files with "
                f"evaluate.suite_data.{suite}, or leave the suite out"
            )
        items[suite] = found
        table = run.out / BELOW / f"{suite}.parquet"
        write_table(table, found, Example)
        drawn = {name for example in found for name in files_of(example) if name.startswith(BELOW)}
        written += [table, *(run.out / name for name in sorted(drawn))]
    return items, written


def _found(run: Run, suite: Suite, own: Sequence[Example]) -> list[Example]:
    options = run.recipe.evaluate
    folder = run.out / BELOW / suite
    if suite in options.suite_data:
        from clinalign.data import read

        examples = read(options.suite_data[suite], folder, run.quarantine)
        examples = [_moved(example, f"{BELOW}{suite}/") for example in examples]
    elif run.recipe.data.source == "phantom":
        return [_moved(example, f"{BELOW}{suite}/") for example in _phantoms(run, suite, folder)]
    else:
        examples = list(own)
    splits = {options.split, DEV} if suite == "uncertainty" else {options.split}
    return [example for example in examples if example.split in splits and belongs(suite, example)]


def _phantoms(run: Run, suite: Suite, folder: Path) -> list[Example]:
    """The phantom counterpart: as many patients as `evaluate.suite_limit` needs, of the split that is evaluated."""
    from clinalign.data.phantom.dataset import split_patients
    from clinalign.data.phantom.suites import patients_for, write_suite

    data, options = run.recipe.data, run.recipe.evaluate
    patients = split_patients(options.split, patients_for(suite, options.suite_limit))
    return write_suite(suite, folder, split=options.split, patients=patients, px=data.px, seed=data.seed)


def _moved(example: Example, below: str) -> Example:
    """An example whose paths were relative to a folder below the run folder."""

    def region(one: Region) -> Region:
        return replace(one, mask=below + one.mask) if one.mask else one

    moved = replace(
        example, images=[below + image for image in example.images], regions=[*map(region, example.regions)]
    )
    return replace(
        moved,
        counterfactual=below + moved.counterfactual if moved.counterfactual else "",
        counterfactuals=[below + name for name in moved.counterfactuals],
    )


def _where(run: Run, suite: Suite) -> str:
    data = run.recipe.evaluate.suite_data.get(suite, run.recipe.data)
    return f"split '{run.recipe.evaluate.split}' of {data.path or data.source}"
