"""What a small run cannot show, said at its end and on its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clinalign.pages.headline import compared, shown_name
from clinalign.pages.provenance import read_json, training_logs
from clinalign.progress import say
from clinalign.storage import read_state

FEWEST_PATIENTS = 30
"""Below this many test patients an interval is a rough guess."""
FEWEST_STEPS = 20
WIDEST = 0.20
"""Width of an interval of a difference in accuracy from which hardly any difference could be seen."""
STILL = 0.02
"""Share by which the loss has to fall for anything to have been learned."""
WINDOW = 5


def caveats(folder: Path, systems: Sequence[str]) -> list[str]:
    """One sentence for each reason not to read much into a finished run's numbers; none for a run that is large enough.
    `systems` are those that were trained, the method of interest first."""
    summary = read_json(folder / "evaluation" / "summary.json")
    return [*_training(training_logs(folder, systems)), *(_tested(summary) if summary else [])]


def print_caveats(folder: Path) -> None:
    """What a finished run cannot show, one line each on the terminal."""
    recipe = read_state(folder / "run.json")["recipe"]
    for text in caveats(folder, [recipe["align"]["method"], *recipe["compare"]]):
        say(f"note: {text}")


def _training(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    found = []
    for label, rows in logs.items():
        if not rows:
            continue
        name, steps = shown_name(label), len(rows)
        if steps < FEWEST_STEPS:
            found.append(f"{name} was trained for {steps} steps: too short to say anything about the method")
            continue
        losses = [row["loss"] for row in rows if row.get("loss") is not None]
        first, last = _mean(losses[:WINDOW]), _mean(losses[-WINDOW:])
        if first - last < STILL * abs(first):
            text = f"{name}: the loss went from {first:.3f} to {last:.3f} in {steps} steps: hardly anything was learned"
            found.append(f"{text}; raise align.lr, align.epochs or the number of pairs")
    return found


def _tested(summary: Mapping[str, Any]) -> list[str]:
    found = []
    if summary["patients"] < FEWEST_PATIENTS:
        found.append(f"{summary['patients']} test patients: too few to mean anything beyond this set")
    widths = [c["high"] - c["low"] for c in compared(summary) if c.get("high") is not None]
    if widths and min(widths) > WIDEST:
        points = 100 * min(widths) / 2
        found.append(f"differences in accuracy are known to no better than {points:.0f} points either way")
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
