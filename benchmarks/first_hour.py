"""The first hour in numbers: what is refused early, what a changed cell costs, and whether the docs' commands run.

    python benchmarks/first_hour.py --out first_hour.json

The `mistakes` of tests/mistakes.py are made one after the other and `clinalign run` is called: `refused_early` before
any stage, in one line, exit code 2; `refused_late` after a stage had begun, or not at all. `rows_reanswered_share` is
the share of rows that are answered again when one answer cell of a table changes. `impossible_intervals` counts
intervals outside a metric's range over random outcomes. `docs_commands_run` counts lines of the docs run as printed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from paths import ROOT, environment, importable

RUNNABLE = ("clinalign options align", "clinalign check examples/own_data.yaml")
"""Commands of the docs that need nothing but a checkout, by how they begin."""
SHARES = ("accuracy", "accuracy_closed", "accuracy_open", "yes_rate", "balanced_accuracy", "unparsable", "truncated")


def mistakes() -> dict[str, int]:
    """Every mistake made, and how `run` met it."""
    import pytest
    from mistakes import MISTAKES, working

    from clinalign.cli import main

    counts = {"mistakes": len(MISTAKES), "refused_early": 0, "refused_late": 0, "tracebacks": 0}
    for mistake in MISTAKES:
        with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
            here, out, said = Path(name), Path(name) / "out", io.StringIO()
            patch.setenv("CLINALIGN_CACHE", str(here / "cache"))
            recipe = working(here)
            mistake.change(here, patch)
            overrides = [text.replace("{here}", name) for text in mistake.overrides]
            patch.setattr(sys, "argv", ["clinalign", "run", str(recipe), *overrides, "--out", str(out)])
            code: Any = 0
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                try:
                    main()
                except SystemExit as end:
                    code = end.code
            begun = [path.name for path in out.glob("*") if path.name != ".lock"]
            lines = [line for line in said.getvalue().splitlines() if line.startswith("clinalign: ")]
            counts["tracebacks"] += "Traceback" in said.getvalue()
            early = code == 2 and not begun and len(lines) == 1
            counts["refused_early" if early else "refused_late"] += 1
    return counts


def rows_reanswered_share(rows: int) -> float:
    """One answer cell of a table changed after its questions were answered, and the stages run again."""
    import numpy as np
    from PIL import Image

    from clinalign.folder import Run
    from clinalign.models.vlm import VLM
    from clinalign.recipe import load_recipe
    from clinalign.run import execute

    asked, generate = 0, VLM.generate

    def counted(self: Any, prompts: Any, **named: Any) -> Any:
        nonlocal asked
        asked += len(prompts)
        return generate(self, prompts, **named)

    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        os.environ["CLINALIGN_CACHE"] = str(here / "cache")
        table = [["image", "question", "answer", "patient_id", "split"]]
        for number in range(rows):
            pixels = np.random.default_rng(number).integers(0, 256, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(here / f"{number}.png")
            table.append([f"{number}.png", "Is there a nodule?", "yes", f"p{number}", "align"])
        for answer in ("yes", "no"):
            table[1][2] = answer
            with (here / "q.csv").open("w", newline="") as file:
                csv.writer(file).writerows(table)
            recipe = load_recipe("phantom", [f"data={{source: table, path: {here}/q.csv}}", "answer.max_new_tokens=16"])
            VLM.generate, asked = counted, 0  # type: ignore[method-assign]
            try:
                for stage in ("ingest", "answer"):
                    execute(Run(recipe, here / "out", resume=True), only=stage)
            finally:
                VLM.generate = generate  # type: ignore[method-assign]
    return asked / rows


def impossible_intervals(draws: int) -> int:
    """Intervals outside their metric's range over random outcomes of a few patients."""
    from clinalign.evaluation import summarise
    from clinalign.measuring.options import EvaluationOptions
    from clinalign.records import Example, Outcome

    found = 0
    for seed in range(draws):
        draw = random.Random(seed)
        count, share = draw.randint(2, 30), draw.choice([0.0, 0.02, 0.5, 0.98, 1.0])
        examples = [
            Example(f"e{n}", [], "Is there a nodule?", draw.choice(["yes", "no"]), "closed", patient_id=f"p{n % 9}")
            for n in range(count)
        ]
        outcomes = [
            Outcome(e.id, "closed", "t", system, "greedy", 0, "clean", "yes.", draw.random() < share, "rules", length=1)
            for system in ("base", "firempo")
            for e in examples
        ]
        summary = summarise(outcomes, examples, EvaluationOptions(resamples=200, permutations=200))
        for system in summary["systems"].values():
            for name in SHARES:
                value = system["metrics"].get(name) or {}
                found += any(value.get(end) is not None and not 0 <= value[end] <= 1 for end in ("low", "high"))
        for one in summary["comparisons"]:
            if one["metric"] in SHARES:
                found += any(one.get(end) is not None and not -1 <= one[end] <= 1 for end in ("low", "high"))
    return found


def docs_commands_run() -> int:
    """Runs the docs' own lines in a copy of what they name, those of the first hour on tables with people's faults;
    raises where one fails."""
    import test_first_hour

    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    lines = re.findall(r"^(?: {4}|)(clinalign [a-z]+[^\n]*)$", text, re.MULTILINE)
    chosen = dict.fromkeys(line.partition("  #")[0].strip() for line in lines if line.startswith(RUNNABLE))
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(ROOT / "examples", Path(name) / "examples")
        settings = environment("src") | {"CLINALIGN_CACHE": f"{name}/cache"}
        script = re.search(
            r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL | re.MULTILINE
        )
        assert script is not None
        commands = [[sys.executable, "-m", "clinalign.cli", *shlex.split(line)[1:]] for line in chosen]
        for command in [*commands, [sys.executable, "-c", script[1]]]:
            ended = subprocess.run(command, cwd=name, env=settings, capture_output=True, text=True)
            if ended.returncode:
                raise SystemExit(f"{shlex.join(command)}\n{ended.stderr[-3000:]}")
        test_first_hour.test_the_first_hour_runs_as_printed(Path(name) / "way")
    return len(commands) + 1 + len(test_first_hour.commands())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=200, help="rows of the table of which one cell is changed")
    parser.add_argument("--draws", type=int, default=100, help="random evaluations")
    given = parser.parse_args()
    result = mistakes() | {
        "rows_reanswered_share": rows_reanswered_share(given.rows),
        "impossible_intervals": impossible_intervals(given.draws),
        "docs_commands_run": docs_commands_run(),
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    importable("tests", "src")
    main()
