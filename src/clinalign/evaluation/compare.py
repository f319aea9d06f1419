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

from clinalign.decoding.options import as_options
from clinalign.errors import UsageError
from clinalign.evaluation import statistics as S
from clinalign.evaluation import vqa
from clinalign.evaluation.byquestion import Known, Table, averaged, balanced, interval, rounded, seeds
from clinalign.evaluation.collect import collect
from clinalign.evaluation.options import EvaluationOptions
from clinalign.evaluation.summary import SUITE
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


def compare_runs(folders: Sequence[Path], options: EvaluationOptions | None = None) -> dict[str, Any]:
    """The table of one or more run folders; see docs/evaluation.md for its fields.

    Raises `UsageError` for a folder without an evaluation, and for runs on different questions or judges.
    """
    options = options or EvaluationOptions.model_validate({})
    runs = [_load(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    for other in runs[1:]:
        _refuse_unlike(runs[0], other)
    known = runs[0].examples
    systems, outcomes = _systems(runs)
    asked = {o.example_id for o in outcomes}
    base = {o.example_id: o for o in outcomes if o.system == BASE}
    tables = {label: collect(outcomes, known, label, base, options) for label in systems}
    suites = {suite: _suite(suite, outcomes, tables, known, options) for suite in sorted({o.suite for o in outcomes})}
    _mark(suites, options)
    return rounded(
        {
            "runs": [run.name for run in runs],
            "n": len(asked),
            "patients": len({vqa.patient(known[name]) for name in asked}),
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
    outcomes = [o for o in read_table(folder / "outcomes.parquet", Outcome) if o.condition == "clean"]
    strange = next((o.example_id for o in outcomes if o.example_id not in examples), None)
    if strange is not None or not outcomes:
        which = f"an outcome of '{strange}', which is no example" if outcomes else "no answer to a question as it is"
        raise UsageError(f"{folder / 'outcomes.parquet'}: {which}; evaluate the run again")
    return Loaded(name, recipe, {o.example_id: examples[o.example_id] for o in outcomes}, outcomes)


def _refuse_unlike(first: Loaded, other: Loaded) -> None:
    def told(example: Example) -> tuple[str, str, str]:
        return example.question, example.answer, vqa.patient(example)

    for a, b in ((first, other), (other, first)):
        missing = sorted(a.examples.keys() - b.examples.keys())
        if missing:
            which = f"{len(missing)} only in '{a.name}', the first '{missing[0]}'"
            raise UsageError(
                f"compare: '{a.name}' and '{b.name}' were asked different questions ({which}); evaluate both on the "
                "same data, split and limit"
            )
    changed = [name for name, example in first.examples.items() if told(example) != told(other.examples[name])]
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
    evaluate = recipe["evaluate"]
    parts = [recipe["model"], recipe.get("dtype"), _options(evaluate), evaluate.get("max_new_tokens")]
    if system != BASE:
        trained = recipe["align"] | recipe["compare"].get(system, {})
        parts += [{k: v for k, v in trained.items() if k not in SEEDS}]
        parts += [{k: v for k, v in recipe.items() if k not in APART}]
    return json.dumps([system, *parts], sort_keys=True)


def _options(evaluate: Mapping[str, Any]) -> Any:
    """The decoder's options; a recipe may name a decoder or spell it out."""
    given = evaluate.get("decoder", "greedy")
    return as_options(given).model_dump(mode="json") if isinstance(given, str) else given


def _decoder(evaluate: Mapping[str, Any]) -> str:
    return str(_options(evaluate)["name"])


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
            "decoder": _decoder(first.recipe["evaluate"]),
            "runs": [run.name for run, _ in by_seed.values()],
            "seeds": sorted(by_seed),
        }
        outcomes += [replace(o, system=label) for _, own in by_seed.values() for o in own]
    return systems, outcomes


def _same_answers(a: Sequence[Outcome], b: Sequence[Outcome]) -> bool:
    return {o.example_id: o.text for o in a} == {o.example_id: o.text for o in b}


def _suite(
    suite: str, outcomes: Sequence[Outcome], tables: Mapping[str, Table], known: Known, options: EvaluationOptions
) -> dict[str, Any]:
    members = {o.example_id for o in outcomes if o.suite == suite}
    metric = "accuracy" if any(known[name].task in vqa.VQA_TASKS for name in members) else "accuracy_report"
    scores = {label: _part(table, metric, members) for label, table in tables.items()}
    cells = {label: _cell(tables[label], members, known, options) for label in tables}
    tests = []
    for a, b in combinations(tables, 2):
        shared = sorted(scores[a].keys() & scores[b].keys())
        if shared:
            result = S.compare(
                [scores[a][name] for name in shared],
                [scores[b][name] for name in shared],
                [vqa.patient(known[name]) for name in shared],
                level=options.level,
                resamples=options.resamples,
                permutations=options.permutations,
                kind="difference",
            )
            tests.append({"a": a, "b": b, **result.as_dict()})
    patients = len({vqa.patient(known[name]) for name in members})
    return {"n": len(members), "patients": patients, "metric": metric, "cells": cells, "tests": tests}


def _part(table: Table, metric: str, members: set[str]) -> dict[str, float]:
    return {name: value for name, value in averaged(table.get(metric, {})).items() if name in members}


def _cell(table: Table, members: set[str], known: Known, options: EvaluationOptions) -> dict[str, Any]:
    values = {name: _part(table, name, members) for name in SUITE if name in table}
    metrics = {name: interval(v, known, options, name != "words") for name, v in values.items() if v}
    even = balanced(values.get("accuracy", {}), known, options)
    by_seed = {s: {n: v for n, v in row.items() if n in members} for s, row in table.get("accuracy", {}).items()}
    return {
        "metrics": metrics | ({"balanced_accuracy": even} if even is not None else {}),
        "seeds": seeds(by_seed),
    }


def _mark(suites: Mapping[str, dict[str, Any]], options: EvaluationOptions) -> None:
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
