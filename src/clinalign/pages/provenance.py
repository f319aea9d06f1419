"""What a run left behind, for the page: its corpus, training curves, quarantine, stages and how to run it again."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from clinalign.errors import UsageError
from clinalign.evaluation.summary import main_system
from clinalign.pages.figures import curves, smoothed
from clinalign.pages.results import compared, shown_name
from clinalign.progress import say
from clinalign.storage import read_state, whole_lines

CHARTS = (
    ("Loss", "loss", False),
    ("Reward accuracy", "rewards/accuracies", False),
    ("Reward margin", "rewards/margins", False),
    ("Chosen reward", "rewards/chosen", False),
    ("Gradient norm", "grad_norm", True),
    ("KL at spans, policy to reference", "kl/reverse", False),
)
TILES = (
    ("pairs", "pairs", "{:.0f}", 1, "Preference pairs"),
    ("already_correct_share", "already right", "{:.0f} %", 100, "Share of pairs whose own answer was right"),
    ("length_diff_mean", "words longer or shorter", "{:.2f}", 1, "Mean difference in length, either way"),
    ("within_two_share", "within two words", "{:.0f} %", 100, "Pairs whose lengths differ by two words or less"),
    ("edit_distance_mean", "word edit distance", "{:.2f}", 1, "Changed words over the longer answer's words"),
    ("span_share", "of tokens in spans", "{:.0f} %", 100, "Share of chosen tokens that are trained"),
    (
        "length_only_accuracy",
        "length-only guess",
        "{:.0f} %",
        100,
        "How often length alone tells the sides; 50 is none",
    ),
)
AUDIT = {"pass": "✓ passes", "warn": "! warnings", "fail": "✗ fails"}
FEWEST_PATIENTS = 30
"""Below this many test patients an interval is a rough guess."""
FEWEST_STEPS = 20
WIDEST = 0.20
"""Width of an interval of a difference in accuracy from which hardly any difference could be seen."""
STILL = 0.02
"""Share by which the loss has to fall for anything to have been learned."""
WINDOW = 5


def corpus(numbers: Mapping[str, Any] | None) -> dict[str, Any]:
    """The corpus numbers that fit a tile, the audit's verdict where there is one, and counts by kind of edit."""
    if not numbers:
        return {"tiles": [], "audit": None, "kinds": []}
    known = dict(numbers) | {"span_share": numbers.get("spans", {}).get("share_of_tokens")}
    tiles = [
        {"label": label, "value": form.format(scale * known[key]), "title": title}
        for key, label, form, scale, title in TILES
        if known.get(key) is not None
    ]
    audit = numbers.get("audit")
    if audit:
        verdict = str(audit.get("verdict", ""))
        audit = {"state": verdict, "label": AUDIT.get(verdict, verdict), "reasons": list(audit.get("reasons", []))}
    kinds = [f"{count} {kind.replace('_', ' ')}" for kind, count in numbers.get("edit_kinds", {}).items()]
    return {"tiles": tiles, "audit": audit, "kinds": kinds}


def training_logs(folder: Path, systems: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The rows of every trained system's `metrics.jsonl`; the method of interest comes first."""
    return {label: json_lines(home / "metrics.jsonl", "step") for label, home in _homes(folder, systems)}


def charts(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Markup]:
    """Training curves, smoothed over nine steps."""
    drawn = [curves(title, curve_series(logs, key), log=log) for title, key, log in CHARTS]
    return [chart for chart in drawn if chart]


def curve_series(
    logs: Mapping[str, Sequence[Mapping[str, Any]]], key: str
) -> list[tuple[str, list[tuple[float, float]]]]:
    """One smoothed curve a system."""
    return [
        (label, smoothed([(row["step"], row[key]) for row in rows if row.get(key) is not None]))
        for label, rows in logs.items()
    ]


def warnings(folder: Path, systems: Sequence[str]) -> list[str]:
    """What training warned about, by system."""
    found = [(label, read_json(home / "train.json") or {}) for label, home in _homes(folder, systems)]
    return [f"{shown_name(label)}: {text}" for label, state in found for text in state.get("warnings", {}).values()]


def quarantine(path: Path) -> list[dict[str, Any]]:
    """Records that were left out, grouped by stage and reason, with the first of each as an example."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in json_lines(path, "stage", "file", "row", "id", "field", "reason", "detail"):
        grouped[row["stage"], row["reason"]].append(row)
    return [
        {"stage": stage, "reason": reason, "count": len(rows), "example": _where(rows[0])}
        for (stage, reason), rows in grouped.items()
    ]


def stages(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name, seconds, rows left out and outputs with their hashes of every stage."""
    return [
        {
            "name": name,
            "seconds": f"{stage['seconds']:.1f}",
            "quarantined": stage["quarantined"],
            "outputs": list(stage["outputs"].items()),
        }
        for name, stage in state["stages"].items()
    ]


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON file's object, or None where there is none. A damaged one is a `UsageError`."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"{path}: damaged; run the recipe again with --resume, which makes it anew")
    return found


def json_lines(path: Path, *fields: str) -> list[dict[str, Any]]:
    """The rows of a JSONL file that are whole and have these fields; none where there is no file."""
    return [row for row in whole_lines(path)[0] if row.keys() >= set(fields)]


def _homes(folder: Path, systems: Sequence[str]) -> list[tuple[str, Path]]:
    """Where each trained system's files live; the method of interest, which comes first, in the run folder itself."""
    return [(label, folder if place == 0 else folder / "compare" / label) for place, label in enumerate(systems)]


def _where(row: Mapping[str, Any]) -> str:
    """Row, id and field of a record; never its file, whose name may be a patient's."""
    place = " ".join(filter(None, [f"row {row['row']}" if row["row"] else "", row["id"]]))
    return f"{place}: {row['field']} {row['detail']}".strip(": ")


def caveats(folder: Path, systems: Sequence[str]) -> list[str]:
    """One sentence for each reason not to read much into a finished run's numbers; none for a run that is large enough.
    `systems` are those that were trained, the method of interest first."""
    summary = read_json(folder / "evaluation" / "summary.json")
    return [*_training(training_logs(folder, systems)), *(_tested(summary) if summary else [])]


def print_caveats(folder: Path) -> None:
    """What a finished run cannot show, one line each on the terminal."""
    recipe = read_state(folder / "run.json")["recipe"]
    for text in caveats(folder, [main_system(recipe), *recipe["compare"]]):
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
        if any("reward" in row for row in rows):
            continue  # a policy's loss is near 0 by its making; its rewards have a section of their own
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
