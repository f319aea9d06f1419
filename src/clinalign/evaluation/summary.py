"""Outcomes into the numbers of a run: metrics with intervals, paired tests, flips, image reliance.

The shape of `evaluation/summary.json`:

    n, patients, level, baseline, methods{}
    systems: {label: {n, seeds{}, metrics{name: interval}, kinds{kind: interval}, modalities{modality: interval},
                      flips{name: interval}, margins{condition: interval}, reliance{condition: {...}}, counts{}}}
    comparisons: [{a, b, metric, estimate, low, high, n, patients, method, p, p_holm, test, minimum_detectable}]

An interval is {estimate, low, high, n, patients, method}; shares are between 0 and 1. A comparison is a - b.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from clinalign.errors import UsageError
from clinalign.evaluation import statistics as S
from clinalign.evaluation import vqa
from clinalign.evaluation.options import EvaluationOptions
from clinalign.records import Example, Outcome

Table = dict[str, dict[int, dict[str, float]]]
"""metric -> seed -> example id -> value, for one system."""

RELIANCE = ("blank", "shuffled", "no_image")
FLIPS = ("lesion_noise", "control", "removal")
COMPARED = (
    *(name for name in vqa.SHARES if name.startswith("accuracy")),
    "intact",
    "yes_rate",
    "words",
    *(f"flip_{name}" for name in FLIPS),
    "specificity",
    "specificity_removal",
)
CHANGED_AT_LEAST = 0.05
IGNORES_P = 0.01
DIGITS = 6


def summarise(
    outcomes: Sequence[Outcome],
    examples: Sequence[Example],
    options: EvaluationOptions | None = None,
    *,
    baseline: str = "base",
    comparators: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The summary of every system in `outcomes`, in the order they appear.

    Every system is compared with `baseline`, and the first other system with each of `comparators` (default: all the
    rest). Holm's correction runs over these comparisons within one metric. Same outcomes, same bytes.
    """
    options = options or EvaluationOptions.model_validate({})
    known = {example.id: example for example in examples}
    systems = list(dict.fromkeys(outcome.system for outcome in outcomes))
    _check(outcomes, known, systems, baseline, comparators)
    base = _clean(outcomes, baseline)
    tables = {system: _table(outcomes, known, system, base) for system in systems}
    asked = sorted({o.example_id for o in outcomes if o.condition == "clean"})
    summary = {
        "n": len(asked),
        "patients": len({vqa.patient(known[name]) for name in asked}),
        "level": options.level,
        "baseline": baseline,
        "methods": {
            "interval": "over patients: bootstrap (expanded percentile), cluster-t below 30 patients, exact at 0 and 1",
            "test": "two-sided sign flip by patient; exact McNemar at one question a patient",
            "correction": "Holm over the compared pairs of systems, within a metric",
            "resamples": options.resamples,
            "permutations": options.permutations,
        },
        "systems": {s: _system(outcomes, known, s, tables[s], options) for s in systems},
        "comparisons": _comparisons(tables, known, _pairs(systems, baseline, comparators), options),
    }
    return _rounded(summary)


def card_rows(summary: Mapping[str, Any], system: str) -> list[dict[str, str]]:
    """A model card's table for one system: `metric, base, value, difference`, formatted in per cent and points."""
    base = summary["systems"].get(summary["baseline"], {}).get("metrics", {})
    differences = {c["metric"]: c for c in summary["comparisons"] if c["a"] == system and c["b"] == summary["baseline"]}
    rows = []
    for name, value in summary["systems"][system]["metrics"].items():
        if name not in vqa.SHARES or value["estimate"] is None:
            continue
        row = {"metric": name.replace("_", " "), "value": _percent(value), "base": _percent(base.get(name))}
        rows.append(row | {"difference": _percent(differences.get(name), signed=True)})
    return rows


def _percent(interval: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    if interval is None or interval["estimate"] is None:
        return "-"
    form = "{:+.1f}" if signed else "{:.1f}"
    text = form.format(100 * interval["estimate"])
    if interval["low"] is None:
        return text
    return f"{text} [{form.format(100 * interval['low'])}, {form.format(100 * interval['high'])}]"


def _check(
    outcomes: Sequence[Outcome],
    known: Mapping[str, Example],
    systems: list[str],
    baseline: str,
    comparators: Sequence[str] | None,
) -> None:
    if not outcomes:
        raise UsageError("evaluation: no outcome to summarise; run the evaluate stage on a split that has examples")
    strange = next((o.example_id for o in outcomes if o.example_id not in known), None)
    if strange is not None:
        raise UsageError(f"evaluation: outcome of example '{strange}', which the examples table does not have")
    for name in comparators or ():
        if name not in systems:
            raise UsageError(f"evaluation: no outcomes of system '{name}'; there are {', '.join(systems)}")
    if baseline not in systems and len(systems) > 1:
        raise UsageError(f"evaluation: no outcomes of the baseline '{baseline}'; there are {', '.join(systems)}")


def _pairs(systems: list[str], baseline: str, comparators: Sequence[str] | None) -> list[tuple[str, str]]:
    others = [system for system in systems if system != baseline]
    against = others[1:] if comparators is None else [c for c in comparators if c != baseline]
    return [(system, baseline) for system in others] + [(others[0], c) for c in against if c != others[0]]


def _clean(outcomes: Sequence[Outcome], system: str) -> dict[str, Outcome]:
    """A system's clean outcomes by example; of several seeds the lowest."""
    chosen = [o for o in outcomes if o.system == system and o.condition == "clean"]
    return {o.example_id: o for o in sorted(chosen, key=lambda o: -o.seed)}


def _table(
    outcomes: Sequence[Outcome], known: Mapping[str, Example], system: str, base: Mapping[str, Outcome]
) -> Table:
    table: Table = defaultdict(lambda: defaultdict(dict))
    own = [o for o in outcomes if o.system == system]
    clean = {(o.seed, o.example_id): o for o in own if o.condition == "clean"}
    for outcome in own:
        name, seed = outcome.example_id, outcome.seed
        if outcome.condition == "clean":
            got = vqa.values(outcome, known[name], base.get(name))
        elif outcome.condition in RELIANCE:
            score = math.nan if outcome.correct is None else float(outcome.correct)
            before = clean.get((seed, name))
            got = {f"accuracy_{outcome.condition}": score} if known[name].task in vqa.VQA_TASKS else {}
            if before is not None:
                got[f"changed_{outcome.condition}"] = float(_plain(before.text) != _plain(outcome.text))
        else:
            names = {"margin": f"margin_{outcome.condition}", "margin_clean": "margin_clean"}
            names["flipped"] = f"flip_{outcome.condition}"
            got = {names[key]: value for key, value in outcome.metrics.items()}
        for metric, value in got.items():
            table[metric][seed][name] = value
    for name, minuend in (("specificity", "flip_lesion_noise"), ("specificity_removal", "flip_removal")):
        for seed, flips in table.get(minuend, {}).items():
            control = table.get("flip_control", {}).get(seed, {})
            table[name][seed] = {e: flips[e] - control[e] for e in flips if e in control}
    return table


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _system(
    outcomes: Sequence[Outcome],
    known: Mapping[str, Example],
    system: str,
    table: Table,
    options: EvaluationOptions,
) -> dict[str, Any]:
    clean = [o for o in outcomes if o.system == system and o.condition == "clean"]
    names = [*vqa.SHARES, *vqa.MEANS]
    metrics = {name: _interval(table[name], known, options, name in vqa.SHARES) for name in names if name in table}
    score = _averaged(table.get("accuracy", {}))
    columns, patients, combine = vqa.balanced_columns(score, known)
    if len(columns):
        metrics["balanced_accuracy"] = S.ratio_interval(
            columns, patients, combine, level=options.level, resamples=options.resamples
        ).as_dict()
    flips = [*(f"flip_{name}" for name in FLIPS), "specificity", "specificity_removal"]
    margins = [name for name in table if name.startswith("margin_")]
    return {
        "n": len({o.example_id for o in clean}),
        "seeds": _seeds(table.get("accuracy", {})),
        "metrics": metrics,
        "kinds": _groups(score, known, vqa.kind, options),
        "modalities": _groups(score, known, lambda e: e.modality or "unknown", options),
        "flips": {f: _interval(table[f], known, options, f.startswith("flip_")) for f in flips if f in table},
        "margins": {f.removeprefix("margin_"): _interval(table[f], known, options, False) for f in sorted(margins)},
        "reliance": {c: _reliance(table, known, c, options) for c in RELIANCE if f"changed_{c}" in table},
        "counts": {
            "answers": len(clean),
            "right": sum(o.correct is True for o in clean),
            "wrong": sum(o.correct is False for o in clean),
            "not_judged": sum(o.correct is None for o in clean),
            "not_measured": _not_measured(outcomes, system),
        },
    }


def _not_measured(outcomes: Sequence[Outcome], system: str) -> dict[str, int]:
    """Why margins are missing: how many by condition and reason."""
    missing = [o for o in outcomes if o.system == system and o.condition in FLIPS and not o.metrics]
    return dict(sorted(Counter(f"{o.condition}: {o.reason}" for o in missing).items()))


def _averaged(by_seed: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """Each question's mean over the seeds that scored it."""
    names, matrix = _matrix(by_seed)
    return dict(zip(names, S.per_question(matrix), strict=True)) if names else {}


def _matrix(by_seed: Mapping[int, Mapping[str, float]]) -> tuple[list[str], np.ndarray]:
    names = sorted({name for row in by_seed.values() for name in row})
    rows = [[row.get(name, math.nan) for name in names] for _, row in sorted(by_seed.items())]
    return names, np.array(rows, float)


def _interval(
    by_seed: Mapping[int, Mapping[str, float]], known: Mapping[str, Example], options: EvaluationOptions, share: bool
) -> dict[str, Any]:
    averaged = _averaged(by_seed)
    patients = [vqa.patient(known[name]) for name in averaged]
    return S.mean_interval(
        list(averaged.values()), patients, level=options.level, resamples=options.resamples, share=share
    ).as_dict()


def _seeds(by_seed: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    _, matrix = _matrix(by_seed)
    return {"values": sorted(by_seed), **S.seed_spread(matrix)} if matrix.size else {"values": sorted(by_seed)}


def _groups(
    score: Mapping[str, float], known: Mapping[str, Example], group: Any, options: EvaluationOptions
) -> dict[str, Any]:
    """Accuracy with its interval by group of questions."""
    grouped: dict[str, dict[str, float]] = defaultdict(dict)
    for name, value in score.items():
        grouped[group(known[name])][name] = value
    return {key: _interval({0: grouped[key]}, known, options, True) for key in sorted(grouped)}


def _reliance(table: Table, known: Mapping[str, Example], condition: str, options: EvaluationOptions) -> dict[str, Any]:
    """Does taking the image away change anything?

    `p` tests "at least 5 % of answers change" with patients as the trials, so that many questions about one image do
    not count as many images; below 0.01 the model is said to ignore the image.
    """
    changed: dict[str, bool] = defaultdict(bool)
    for name, value in _averaged(table[f"changed_{condition}"]).items():
        if known[name].images:
            changed[vqa.patient(known[name])] |= value > 0
    p = float(stats.binom.cdf(sum(changed.values()), len(changed), CHANGED_AT_LEAST)) if changed else None
    return {
        "accuracy": _interval(table.get(f"accuracy_{condition}", {}), known, options, True),
        "changed": _interval(table[f"changed_{condition}"], known, options, True),
        "p": p,
        "ignores_image": p is not None and p < IGNORES_P,
    }


def _comparisons(
    tables: Mapping[str, Table],
    known: Mapping[str, Example],
    pairs: Sequence[tuple[str, str]],
    options: EvaluationOptions,
) -> list[dict[str, Any]]:
    rows = []
    for metric in COMPARED:
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for a, b in pairs:
            left, right = _averaged(tables[a].get(metric, {})), _averaged(tables[b].get(metric, {}))
            shared = sorted(left.keys() & right.keys())
            if shared:
                result = S.compare(
                    [left[name] for name in shared],
                    [right[name] for name in shared],
                    [vqa.patient(known[name]) for name in shared],
                    level=options.level,
                    resamples=options.resamples,
                    permutations=options.permutations,
                )
                found[a, b] = result.as_dict()
        adjusted = S.holm({pair: row["p"] for pair, row in found.items()})
        rows += [{"a": a, "b": b, "metric": metric, **row, "p_holm": adjusted[a, b]} for (a, b), row in found.items()]
    return rows


def _rounded(value: Any) -> Any:
    """Six decimals: beyond them numbers may differ between machines. Not a number becomes None."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return round(value, DIGITS) if math.isfinite(value) else None
    return value
