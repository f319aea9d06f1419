"""Outcomes into the numbers of a run: metrics with intervals, paired tests, flips, grounding, image reliance.

docs/evaluation.md lists the fields of `evaluation/summary.json`. An interval is {estimate, low, high, n, patients,
method}; shares are between 0 and 1. A comparison is a - b.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clinalign.errors import UsageError
from clinalign.evaluation import statistics as S
from clinalign.evaluation import vqa
from clinalign.evaluation.byquestion import Known, Table, averaged, balanced, groups, interval, rounded, seeds
from clinalign.evaluation.calibration import PROBABILITY, calibration_summary
from clinalign.evaluation.causal import FLIPS, causal_summary
from clinalign.evaluation.collect import collect
from clinalign.evaluation.external import PREFIX as EXTERNAL
from clinalign.evaluation.grounding import CONDITION as ATTENTION
from clinalign.evaluation.grounding import grounding_summary
from clinalign.evaluation.legacy import legacy_scores
from clinalign.evaluation.llm_judge import agreement
from clinalign.evaluation.options import EvaluationOptions
from clinalign.evaluation.overlap import bleu_columns, corpus_bleu
from clinalign.evaluation.reliance import RELIANCE, reliance_summary, verdicts
from clinalign.evaluation.reports import report_summary
from clinalign.language.judge import INCOMPLETE
from clinalign.records import Example, Outcome

COMPARED = (
    *(name for name in vqa.SHARES if name.startswith("accuracy")),
    "intact",
    "yes_rate",
    "words",
    *(f"flip_{name}" for name in FLIPS),
    "specificity",
    "specificity_removal",
    "area_specificity",
)
UNBOUNDED = ("words", "specificity", "specificity_removal", "area_specificity")
"""Compared metrics that are no shares; the others' differences lie between -1 and 1."""
SUITE = (
    "accuracy",
    "accuracy_closed",
    "accuracy_open",
    "accuracy_report",
    "yes_rate",
    "unanswered",
    "unparsable",
    "incomplete",
    "abstained",
    "words",
    "coverage",
)


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
    tables = {system: collect(outcomes, known, system, base, options) for system in systems}
    asked = sorted({o.example_id for o in outcomes if o.condition == "clean"})
    summary = {
        "n": len(asked),
        "patients": len({vqa.patient(known[name]) for name in asked}),
        "level": options.level,
        "baseline": baseline,
        "methods": {
            "interval": "over patients: Korn-Graubard (shares), Bonett-Price (differences of shares), else bootstrap "
            "(expanded percentile) or, below 30 patients, cluster-t",
            "test": "two-sided sign flip by patient; exact McNemar at one question a patient",
            "correction": "Holm over the compared pairs of systems, within a metric",
            "resamples": options.resamples,
            "permutations": options.permutations,
        },
        "systems": {s: _system(outcomes, known, s, tables[s], options) for s in systems},
        "comparisons": _comparisons(tables, known, _pairs(systems, baseline, comparators), options),
    }
    return rounded(summary)


def card_rows(summary: Mapping[str, Any], system: str) -> list[dict[str, str]]:
    """A model card's table for one system: `metric, base, value, difference`, formatted in per cent and points."""
    base, own = (_numbers(summary["systems"].get(name, {})) for name in (summary["baseline"], system))
    differences = {c["metric"]: c for c in summary["comparisons"] if c["a"] == system and c["b"] == summary["baseline"]}
    rows = []
    for name, value in own.items():
        if name not in ON_CARD or value["estimate"] is None:
            continue
        row = {"metric": name.replace("_", " "), "value": _percent(value), "base": _percent(base.get(name))}
        rows.append(row | {"difference": _percent(differences.get(name), signed=True)})
    return rows


ON_CARD = (*vqa.SHARES, "balanced_accuracy", *(f"flip_{name}" for name in FLIPS))


def card_note(summary: Mapping[str, Any]) -> str:
    """What the numbers of `card_rows` are numbers of."""
    return (
        f"{summary['n']} questions of {summary['patients']} patients; per cent, with {100 * summary['level']:g} % "
        "intervals over patients; differences are paired, in points."
    )


def _numbers(system: Mapping[str, Any]) -> dict[str, Any]:
    return {**system.get("metrics", {}), **system.get("flips", {})}


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
    known: Known,
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


def _system(
    outcomes: Sequence[Outcome], known: Known, system: str, table: Table, options: EvaluationOptions
) -> dict[str, Any]:
    clean = [o for o in outcomes if o.system == system and o.condition == "clean"]
    metrics = _metrics(clean, known, table, options)
    score = averaged(table.get("accuracy", {}))
    flips = [*(f"flip_{name}" for name in FLIPS), "specificity", "specificity_removal"]
    margins = [name for name in table if name.startswith("margin_")]
    reliance = {c: reliance_summary(table, known, c, options) for c in RELIANCE if f"changed_{c}" in table}
    found = {
        "n": len({o.example_id for o in clean}),
        "verdicts": verdicts(metrics, reliance),
        "seeds": seeds(table.get("accuracy", {})),
        "metrics": metrics,
        "kinds": groups(score, known, vqa.kind, options),
        "modalities": groups(score, known, lambda e: e.modality or "unknown", options),
        "suites": _suites(clean, known, table, options),
        "flips": {f: _flip_interval(f, table, known, options) for f in flips if f in table},
        "margins": {f.removeprefix("margin_"): interval(averaged(table[f]), known, options) for f in sorted(margins)},
        "causal": causal_summary(table, known, options),
        "reliance": reliance,
        "counts": _counts(outcomes, clean, system),
    }
    return found | _optional(clean, known, table, options)


def _optional(
    clean: Sequence[Outcome], known: Known, table: Table, options: EvaluationOptions
) -> dict[str, dict[str, Any]]:
    """What is there only where it was measured."""
    found: dict[str, dict[str, Any]] = {}
    if PROBABILITY in table:
        found["calibration"] = calibration_summary(averaged(table[PROBABILITY]), known, options)
    reports = {o.example_id: o.text for o in clean if o.task == "report"}
    if reports:
        found["reports"] = report_summary(reports, known, options)
    if "area" in table:
        found["grounding"] = grounding_summary(table, known, options)
    external = {name.removeprefix(EXTERNAL): name for name in table if name.startswith(EXTERNAL)}
    if external:
        found["external"] = {key: interval(averaged(table[n]), known, options) for key, n in sorted(external.items())}
    asked = [(o.text, known[o.example_id]) for o in clean if o.task in vqa.VQA_TASKS]
    if options.legacy and asked:
        rows = [(text, example.answer, example.task == "closed") for text, example in asked]
        other = legacy_scores(rows, variant="llava_med").get("closed_accuracy")
        found["legacy"] = legacy_scores(rows) | ({} if other is None else {"closed_accuracy_llava_med": other})
    return found


def _flip_interval(name: str, table: Table, known: Known, options: EvaluationOptions) -> dict[str, Any]:
    share = name.startswith("flip_")
    return interval(averaged(table[name]), known, options, share, difference=not share)


def _metrics(
    clean: Sequence[Outcome], known: Known, table: Table, options: EvaluationOptions
) -> dict[str, dict[str, Any]]:
    names = [*vqa.SHARES, *vqa.MEANS]
    metrics = {n: interval(averaged(table[n]), known, options, n != "words") for n in names if n in table}
    even = balanced(averaged(table.get("accuracy", {})), known, options)
    if even is not None:
        metrics["balanced_accuracy"] = even
    spoken = [(o.text, known[o.example_id]) for o in clean if o.task == "open"]
    if spoken:
        columns = np.array([bleu_columns(text, example.answer) for text, example in spoken])
        patients = [vqa.patient(example) for _, example in spoken]
        metrics["bleu"] = S.ratio_interval(columns, patients, corpus_bleu, level=options.level, share=True).as_dict()
    return metrics


def _suites(
    clean: Sequence[Outcome], known: Known, table: Table, options: EvaluationOptions
) -> dict[str, dict[str, Any]]:
    """The metrics that every table has to show, by suite."""
    found = {}
    for suite in sorted({o.suite for o in clean}):
        members = {o.example_id for o in clean if o.suite == suite}

        def part(name: str, members: set[str] = members) -> dict[str, float]:
            return {e: v for e, v in averaged(table[name]).items() if e in members}

        values = {n: part(n) for n in SUITE if n in table}
        metrics = {n: interval(v, known, options, n not in vqa.MEANS) for n, v in values.items() if v}
        even = balanced(values.get("accuracy", {}), known, options)
        found[suite or "unnamed"] = {
            "n": len(members),
            "metrics": metrics | ({"balanced_accuracy": even} if even is not None else {}),
        }
    return found


def _counts(outcomes: Sequence[Outcome], clean: Sequence[Outcome], system: str) -> dict[str, Any]:
    return {
        "answers": len(clean),
        "right": sum(o.correct is True for o in clean),
        "wrong": sum(o.correct is False for o in clean),
        "not_judged": sum(o.correct is None for o in clean),
        "incomplete": sum(o.correct is None and o.reason == INCOMPLETE for o in clean),
        "judge_failed": sum(o.reason.startswith(vqa.JUDGE_FAILED) for o in clean),
        "judged_by_both": agreement(clean),
        "not_measured": _not_measured(outcomes, system),
    }


def _not_measured(outcomes: Sequence[Outcome], system: str) -> dict[str, int]:
    """Why margins and attention are missing: how many by condition and reason."""
    wanted = (*FLIPS, ATTENTION)
    missing = [o for o in outcomes if o.system == system and o.condition in wanted and not o.metrics]
    return dict(sorted(Counter(f"{o.condition}: {o.reason}" for o in missing).items()))


def _comparisons(
    tables: Mapping[str, Table],
    known: Known,
    pairs: Sequence[tuple[str, str]],
    options: EvaluationOptions,
) -> list[dict[str, Any]]:
    rows = []
    for metric in COMPARED:
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for a, b in pairs:
            left, right = averaged(tables[a].get(metric, {})), averaged(tables[b].get(metric, {}))
            shared = sorted(left.keys() & right.keys())
            if shared:
                result = S.compare(
                    [left[name] for name in shared],
                    [right[name] for name in shared],
                    [vqa.patient(known[name]) for name in shared],
                    level=options.level,
                    resamples=options.resamples,
                    permutations=options.permutations,
                    kind="mean" if metric in UNBOUNDED else "difference",
                )
                found[a, b] = result.as_dict()
        adjusted = S.holm({pair: row["p"] for pair, row in found.items()})
        rows += [{"a": a, "b": b, "metric": metric, **row, "p_holm": adjusted[a, b]} for (a, b), row in found.items()]
    return rows
