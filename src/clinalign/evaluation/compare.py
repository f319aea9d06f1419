"""Several runs in one table, systems by suites: every interval by patient, the best marked only where tests support it.

Runs are comparable when they asked the same questions and judged them alike; otherwise they are refused by name. The
same system trained with several seeds is one system: its questions are averaged over the seeds before anything is
tested, and the spread between seeds is given apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from clinalign.errors import UsageError
from clinalign.evaluation import statistics as S
from clinalign.evaluation.metrics import VQA_TASKS, patient, shown
from clinalign.evaluation.options import SummaryOptions
from clinalign.evaluation.scores import ById, Table, collect, compared, rounded, seeds
from clinalign.evaluation.suites import own_outcomes
from clinalign.evaluation.summary import main_system, part, suite_metrics
from clinalign.records import Example, Outcome
from clinalign.storage import read_state, read_table

SEEDS = ("seed", "seed_model", "seed_data")
APART = ("name", "seed", "strict", "device", "align", "compare", "evaluate")
"""Keys of a recipe that do not make a trained system another one, or are looked at by themselves."""

BASE = "base"


@dataclass(frozen=True)
class Loaded:
    """One run as far as its comparison needs it; `name` is how it is called in the table."""

    name: str
    recipe: Mapping[str, Any]
    examples: Mapping[str, Example]
    outcomes: Sequence[Outcome]


def compare_runs(folders: Sequence[Path], options: SummaryOptions | None = None) -> dict[str, Any]:
    """The table of one or more run folders; see docs/evaluation.md for its fields.

    Raises `UsageError` for a folder without an evaluation, and for runs on different questions or judges.
    """
    options = options or SummaryOptions.model_validate({})
    runs = [_load(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    for other in runs[1:]:
        _refuse_unlike(runs[0], other)
    known = runs[0].examples
    systems, outcomes = _systems(runs)
    asked = {o.example_id for o in outcomes}
    base = {o.example_id: o for o in outcomes if o.system == BASE}
    tables = {label: collect(outcomes, (), known, label, base, options) for label in systems}
    suites = {suite: _suite(suite, outcomes, tables, known, options) for suite in sorted({o.suite for o in outcomes})}
    _mark(suites, options)
    return rounded(
        {
            "runs": [run.name for run in runs],
            "n": len(asked),
            "patients": len({patient(known[name]) for name in asked}),
            "level": options.level,
            "methods": {
                "interval": "over patients: Korn-Graubard (shares), Bonett-Price (differences of shares)",
                "test": "two-sided sign flip by patient; exact McNemar at one question a patient",
                "correction": "Holm over all pairs of systems and all suites of this table",
                "best": "highest estimate, and different from every other system after correction",
            },
            "systems": systems,
            "suites": suites,
        }
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or the paths as given where those are not unique."""
    short = [folder.resolve().name for folder in folders]
    if len(set(map(str, folders))) < len(folders):
        raise UsageError("compare: a run is named twice; give each run folder once")
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _load(folder: Path, name: str) -> Loaded:
    if not (folder / "run.json").is_file():
        raise UsageError(f"{folder}: not a run folder (no run.json); give the folder that a run wrote")
    if not (folder / "outcomes.parquet").is_file():
        raise UsageError(f"{folder}: this run has no outcomes yet; finish it with `clinalign evaluate`")
    recipe = read_state(folder / "run.json").get("recipe")
    if recipe is None:
        raise UsageError(f"{folder / 'run.json'}: holds no recipe; run the folder again with --resume")
    examples = {e.id: e for e in read_table(folder / "examples.parquet", Example)}
    outcomes = [o for o in own_outcomes(read_table(folder / "outcomes.parquet", Outcome)) if o.condition == "clean"]
    strange = next((o.example_id for o in outcomes if o.example_id not in examples), None)
    if strange is not None or not outcomes:
        which = f"an outcome of '{strange}', which is no example" if outcomes else "no answer to a question as it is"
        raise UsageError(f"{folder / 'outcomes.parquet'}: {which}; evaluate the run again")
    return Loaded(name, recipe, {o.example_id: examples[o.example_id] for o in outcomes}, outcomes)


def _refuse_unlike(first: Loaded, other: Loaded) -> None:
    def as_asked(example: Example) -> tuple[str, str, str]:
        return example.question, example.answer, patient(example)

    for a, b in ((first, other), (other, first)):
        missing = sorted(a.examples.keys() - b.examples.keys())
        if missing:
            which = f"{len(missing)} only in '{a.name}', the first '{missing[0]}'"
            raise UsageError(
                f"compare: '{a.name}' and '{b.name}' were asked different questions ({which}); evaluate both on the "
                "same data, split and limit"
            )
    changed = [name for name, example in first.examples.items() if as_asked(example) != as_asked(other.examples[name])]
    if changed:
        raise UsageError(
            f"compare: '{first.name}' and '{other.name}' differ in the question, truth or patient of {len(changed)} "
            f"examples, the first '{changed[0]}'; evaluate both on the same data"
        )
    judges = [run.recipe["evaluate"].get("judge", "rules") for run in (first, other)]
    if judges[0] != judges[1]:
        raise UsageError(
            f"compare: '{first.name}' was judged by {judges[0]} and '{other.name}' by {judges[1]}; judge both alike"
        )


def _identity(run: Loaded, system: str) -> str:
    """Everything that makes a system what it is, besides seeds, as text."""
    recipe = run.recipe
    label, _ = _asked_by(run, system)
    parts = [recipe["model"], recipe.get("dtype"), _decoder(run, system), recipe["evaluate"].get("max_new_tokens")]
    if label != BASE:
        trained = recipe["align"] | recipe["compare"].get(label, {})
        parts += [{k: v for k, v in trained.items() if k not in SEEDS}]
        parts += [{k: v for k, v in recipe.items() if k not in APART}]
    return json.dumps([system, *parts], sort_keys=True)


def _asked_by(run: Loaded, system: str) -> tuple[str, str]:
    """A system's label and its further decoder: one that is asked by such is named `SYSTEM (DECODER)`."""
    if system in (BASE, main_system(run.recipe), *run.recipe["compare"]):
        return system, ""
    label, _, ending = system.rpartition(" (")
    return (label, ending.removesuffix(")")) if label else (system, "")


def _decoder(run: Loaded, system: str) -> dict[str, Any]:
    """Name and options of a system's decoder."""
    evaluate, (_, ending) = run.recipe["evaluate"], _asked_by(run, system)
    if not ending:
        return dict(evaluate["decoder"])
    name, _, number = ending.partition(" ")
    same = [one for one in evaluate.get("decoders", []) if one["name"] == name]
    return dict(same[int(number or 1) - 1])


def _systems(runs: Sequence[Loaded]) -> tuple[dict[str, dict[str, Any]], list[Outcome]]:
    """Systems by label, and all outcomes under these labels, each system and seed once."""
    groups: dict[str, dict[int, tuple[Loaded, list[Outcome]]]] = {}
    names: dict[str, str] = {}
    for run in runs:
        for system, seed in dict.fromkeys((o.system, o.seed) for o in run.outcomes):
            own = [o for o in run.outcomes if (o.system, o.seed) == (system, seed)]
            key = _identity(run, system)
            there = groups.get(key, {}).get(seed)
            if there is not None and not _same_answers(there[1], own):
                key += run.name  # the same settings and seed with other answers is another system
            groups.setdefault(key, {}).setdefault(seed, (run, own))
            names[key] = system
    systems: dict[str, dict[str, Any]] = {}
    outcomes: list[Outcome] = []
    for key, by_seed in groups.items():
        first = next(iter(by_seed.values()))[0]
        shared = sum(name == names[key] for name in names.values()) > 1
        label = f"{first.name}/{names[key]}" if shared else names[key]
        systems[label] = {
            "name": names[key],
            "model": first.recipe["model"],
            "decoder": _decoder(first, names[key])["name"],
            "runs": [run.name for run, _ in by_seed.values()],
            "seeds": sorted(by_seed),
        }
        outcomes += [replace(o, system=label) for _, own in by_seed.values() for o in own]
    return systems, outcomes


def _same_answers(a: Sequence[Outcome], b: Sequence[Outcome]) -> bool:
    return {o.example_id: o.text for o in a} == {o.example_id: o.text for o in b}


def _suite(
    suite: str, outcomes: Sequence[Outcome], tables: Mapping[str, Table], known: ById, options: SummaryOptions
) -> dict[str, Any]:
    members = {o.example_id for o in outcomes if o.suite == suite}
    metric = "accuracy" if any(known[name].task in VQA_TASKS for name in members) else "accuracy_report"
    scores = {label: part(table, metric, members) for label, table in tables.items()}
    cells = {label: _cell(tables[label], members, known, options) for label in tables}
    tests = []
    for a, b in combinations(tables, 2):
        if result := compared(scores[a], scores[b], known, options, "share"):
            tests.append({"a": a, "b": b, **result})
    patients = len({patient(known[name]) for name in members})
    return {"n": len(members), "patients": patients, "metric": metric, "cells": cells, "tests": tests}


def _cell(table: Table, members: set[str], known: ById, options: SummaryOptions) -> dict[str, Any]:
    by_seed = {s: {n: v for n, v in row.items() if n in members} for s, row in table.get("accuracy", {}).items()}
    return {"metrics": suite_metrics(table, members, known, options), "seeds": seeds(by_seed)}


def _mark(suites: Mapping[str, dict[str, Any]], options: SummaryOptions) -> None:
    """Adds `p_holm` to every test, and to each cell `best` and `behind`: whether the suite's highest beats it."""
    adjusted = S.holm({(s, t["a"], t["b"]): t["p"] for s, suite in suites.items() for t in suite["tests"]})
    for name, suite in suites.items():
        found = {}
        for test in suite["tests"]:
            test["p_holm"] = adjusted[name, test["a"], test["b"]]
            found[frozenset((test["a"], test["b"]))] = test["p_holm"]
        estimates = {
            label: cell["metrics"].get(suite["metric"], {}).get("estimate") for label, cell in suite["cells"].items()
        }
        scored = {label: value for label, value in estimates.items() if value is not None}
        top = max(scored, key=lambda label: scored[label]) if scored else None
        for label, cell in suite["cells"].items():
            p = found.get(frozenset((label, top)))
            cell["behind"] = label in scored and label != top and p is not None and p < 1 - options.level
        others = [label for label in scored if label != top]
        for label, cell in suite["cells"].items():
            cell["best"] = label == top and bool(others) and all(suite["cells"][o]["behind"] for o in others)


def as_text(result: Mapping[str, Any]) -> str:
    """A table for each suite with what has to be read beside an accuracy, and a line on what the tests say."""
    runs = ", ".join(result["runs"])
    blocks = [f"{runs}: {result['n']} questions, {result['patients']} patients; per cent, 95 % intervals by patient"]
    if result["level"] != 0.95:
        blocks[0] = blocks[0].replace("95", f"{100 * result['level']:g}")
    for name, suite in result["suites"].items():
        title = f"{name or 'unnamed'} ({suite['n']} questions, {suite['patients']} patients)"
        header = [title, "accuracy", *(metric.label for metric in shown("compare"))]
        rows = [_row(label, cell, suite["metric"], result) for label, cell in suite["cells"].items()]
        blocks.append("\n".join([*_aligned([header, *rows]), *_said(suite)]))
    return "\n\n".join(blocks)


def _row(label: str, cell: Mapping[str, Any], metric: str, result: Mapping[str, Any]) -> list[str]:
    number = len(result["systems"][label]["seeds"])
    name = f"{label} ({number} seeds)" if number > 1 else label
    metrics = cell["metrics"]
    score = _interval(metrics.get(metric)) + (" *" if cell["best"] else "")
    return [name, score, *(_plain(metrics.get(m.name), m.unit) for m in shown("compare"))]


def _interval(found: Mapping[str, Any] | None) -> str:
    if not found or found["estimate"] is None:
        return "-"
    text = f"{100 * found['estimate']:.1f}"
    return text if found["low"] is None else f"{text} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def _plain(found: Mapping[str, Any] | None, unit: str) -> str:
    if not found or found["estimate"] is None:
        return "-"
    return f"{100 * found['estimate'] if unit == '%' else found['estimate']:.1f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    out = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), row[1].ljust(widths[1])]
        out.append("  ".join([*cells, *(c.rjust(w) for c, w in zip(row[2:], widths[2:], strict=True))]).rstrip())
    return out


def _said(suite: Mapping[str, Any]) -> list[str]:
    """What the tests say: who is best, or whom the highest system cannot be told from."""
    cells, metric = suite["cells"], suite["metric"]
    best = next((label for label, cell in cells.items() if cell["best"]), None)
    if best is not None:
        return [f"* {best} is better than every other system after Holm's correction"]
    scores = {label: cell["metrics"].get(metric, {}).get("estimate") for label, cell in cells.items()}
    scored = [label for label in scores if scores[label] is not None]
    if len(scored) < 2:
        return []
    top = max(scored, key=lambda label: scores[label] or 0.0)
    lines = ["no system is marked best; after Holm's correction the highest cannot be told from"]
    for test in suite["tests"]:
        pair = {test["a"], test["b"]}
        if top in pair and not cells[(pair - {top}).pop()]["behind"]:
            lines.append(f"  {_difference(test, top)}")
    return lines


def _difference(test: Mapping[str, Any], top: str) -> str:
    sign = 1 if test["a"] == top else -1
    other = test["b"] if test["a"] == top else test["a"]
    ends = sorted(100 * sign * test[key] for key in ("low", "high") if test[key] is not None)
    within = f" [{ends[0]:+.1f}, {ends[1]:+.1f}]" if ends else ""
    least = test["minimum_detectable"]
    reach = f"; this set would show {100 * least:.1f}" if least is not None else ""
    p = "-" if test["p_holm"] is None else f"{test['p_holm']:.2g}"
    return f"{other}: {top} is higher by {100 * sign * test['estimate']:.1f}{within}, p {p}{reach}"
