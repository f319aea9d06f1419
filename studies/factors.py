"""What a factor does to the differences between objectives: `keep` less each other one at every level, paired.

    python -m studies.factors --sweep build/phantom2/study_factors --out studies/results/factors.json

Reads what `clinalign sweep studies/phantom2_factors.yaml` left: systems are an objective, or an objective and a level
("keep wrong 10"). Differences in right answers are paired by question, seeds averaged first, with intervals and a test
by patient (not corrected for how many there are); an answer that cannot be judged is not right.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from clinalign.errors import UsageError
from clinalign.evaluation.statistics import compare
from clinalign.records import Example, Outcome
from clinalign.storage import read_table, write_json

OBJECTIVES = ("keep", "sft", "firempo", "dpo")


def right(sweep: Path, system: str, split: str) -> list[dict[str, float]]:
    """1 or 0 by question, of each seed of a system. `UsageError` where it was trained or asked in two ways."""
    folders = [folder for folder in sorted((sweep / "systems").iterdir()) if folder.name.rsplit("-", 2)[0] == system]
    files = [file for folder in folders for file in sorted(folder.glob(f"{split}-*.outcomes.parquet"))]
    if len({(file.parent.name.rsplit("-", 1)[0], file.name) for file in files}) > 1:
        raise UsageError(f"{sweep}: '{system}' was trained or asked with several settings; sweep into a new folder")
    return [
        {one.example_id: float(one.correct is True) for one in read_table(file, Outcome) if one.condition == "clean"}
        for file in files
    ]


def differences(sweep: Path, splits: tuple[str, ...] = ("test", "elsewhere")) -> dict[str, Any]:
    """By split, level and pair of objectives; `UsageError` where a system was not read."""
    people = {e.id: e.patient_id for e in read_table(sweep / "corpora" / "pairs" / "examples.parquet", Example)}
    names = {folder.name.rsplit("-", 2)[0] for folder in (sweep / "systems").iterdir()}
    levels = sorted(name.removeprefix(OBJECTIVES[0]) for name in names if name.split(" ")[0] == OBJECTIVES[0])
    found: dict[str, Any] = {}
    for split in splits:
        for level in levels:
            read = {name: right(sweep, f"{name}{level}", split) for name in OBJECTIVES}
            if missing := [name for name, seeds in read.items() if not seeds]:
                raise UsageError(f"{sweep}: '{missing[0]}{level}' has no answers to {split}; let the sweep end first")
            ids = sorted(read[OBJECTIVES[0]][0])
            values = {name: np.array([[seed[i] for i in ids] for seed in seeds]) for name, seeds in read.items()}
            patients = [people[i] for i in ids]
            for other in OBJECTIVES[1:]:
                gap = compare(values[OBJECTIVES[0]], values[other], patients, kind="difference")
                key = f"{OBJECTIVES[0]} - {other}"
                found.setdefault(split, {}).setdefault(level.strip() or "as it is", {})[key] = gap.as_dict()
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, required=True, help="folder of the sweep")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    args = parser.parse_args()
    found = differences(args.sweep)
    write_json(args.out, found)
    for split, levels in found.items():
        for level, pairs in levels.items():
            said = [f"{key} {100 * d['estimate']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]"
                    for key, d in pairs.items()]  # fmt: skip
            print(f"{split}, {level}: {'; '.join(said)}")


if __name__ == "__main__":
    main()
