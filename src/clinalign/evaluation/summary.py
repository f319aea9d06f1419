"""Outcomes and measurements into the numbers of a run: metrics with intervals, paired tests, flips, image ablation.

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
from clinalign.evaluation.calibration import calibration_summary
from clinalign.evaluation.evidence import ablation_summary, causal_summary, grounding_summary, verdicts
from clinalign.evaluation.metrics import (
    ABLATIONS,
    JUDGE_FAILED,
    METRICS,
    PROBABILITY,
    RULES_SAID,
    SECOND_SAID,
    VQA_TASKS,
    Metric,
    own_metrics,
    patient,
    question_kind,
    shown,
)
from clinalign.evaluation.options import SummaryOptions
from clinalign.evaluation.peers import PREFIX as EXTERNAL
from clinalign.evaluation.peers import legacy_scores
from clinalign.evaluation.reports import report_summary
from clinalign.evaluation.scores import (
    ById,
    Table,
    averaged,
    balanced,
    collect,
    compared,
    grouped,
    interval,
    rounded,
    seeds,
)
from clinalign.evaluation.text import bleu_columns, corpus_bleu
from clinalign.language.judge import INCOMPLETE
from clinalign.records import Example, Measurement, Outcome


def summarise(
    outcomes: Sequence[Outcome],
    examples: Sequence[Example],
    options: SummaryOptions | None = None,
    *,
    measurements: Sequence[Measurement] = (),
    baseline: str = "base",
    comparators: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The summary of every system in `outcomes`, in the order they appear.

    Every system is compared with `baseline`, and the first other system with each of `comparators` (default: all the
    rest). Holm's correction runs over these comparisons within one metric. Same outcomes, same bytes.
    """
    options = options or SummaryOptions.model_validate({})
    own = own_metrics(options.metrics)
    known = {example.id: example for example in examples}
    systems = list(dict.fromkeys(outcome.system for outcome in outcomes))
    _check(outcomes, known, systems, baseline, comparators)
    base = _clean(outcomes, baseline)
    tables = {system: collect(outcomes, measurements, known, system, base, options, own) for system in systems}
    asked = sorted({o.example_id for o in outcomes if o.condition == "clean"})
    summary = {
        "n": len(asked),
        "patients": len({patient(known[name]) for name in asked}),
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
        "systems": {s: _system(outcomes, measurements, known, s, tables[s], options, own) for s in systems},
        "comparisons": _comparisons(tables, known, _pairs(systems, baseline, comparators), options, own),
    }
    if own:
        summary["own_metrics"] = [metric.described() for metric in own]
    return rounded(summary)


def card_rows(summary: Mapping[str, Any], system: str) -> list[dict[str, str]]:
    """A model card's table for one system: `metric, base, value, difference`, formatted in per cent and points."""
    differences = {c["metric"]: c for c in summary["comparisons"] if c["a"] == system and c["b"] == summary["baseline"]}
    rows = []
    for metric in shown("card", summary):
        value, base = (find(summary, name, metric) for name in (system, summary["baseline"]))
        if value is not None:
            row = {"metric": metric.name.replace("_", " "), "value": _percent(value), "base": _percent(base)}
            rows.append(row | {"difference": _percent(differences.get(metric.name), signed=True)})
    return rows


def main_system(recipe: Mapping[str, Any]) -> str:
    """The label of the system under `align` of a run's resolved recipe: its method, or valor where it is reinforced."""
    align = recipe["align"]
    return "valor" if align.get("reinforce") else str(align["method"])


def find(summary: Mapping[str, Any], system: str, metric: Metric) -> dict[str, Any] | None:
    """One interval of a summary, or None where it was not measured."""
    found: Any = summary["systems"].get(system, {})
    for name in (*metric.group, metric.name):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if found and found["estimate"] is not None else None


def card_note(summary: Mapping[str, Any]) -> str:
    """What the numbers of `card_rows` are numbers of."""
    return (
        f"{summary['n']} questions of {summary['patients']} patients; per cent, with {100 * summary['level']:g} % "
        "intervals over patients; differences are paired, in points."
    )


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
    known: ById,
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
    outcomes: Sequence[Outcome],
    measurements: Sequence[Measurement],
    known: ById,
    system: str,
    table: Table,
    options: SummaryOptions,
    own: Sequence[Metric],
) -> dict[str, Any]:
    clean = [o for o in outcomes if o.system == system and o.condition == "clean"]
    metrics = _metrics(clean, known, table, options, own)
    score = averaged(table.get("accuracy", {}))
    flips = [metric for metric in METRICS if metric.group == ("flips",) and metric.name in table]
    margins = [name for name in table if name.startswith("margin_") and "@" not in name]
    ablations = {c: ablation_summary(table, known, c, options) for c in ABLATIONS if f"changed_{c}" in table}
    found = {
        "n": len({o.example_id for o in clean}),
        "verdicts": verdicts(metrics, ablations),
        "seeds": seeds(table.get("accuracy", {})),
        "metrics": metrics,
        "kinds": grouped(score, known, question_kind, options),
        "modalities": grouped(score, known, lambda e: e.modality or "unknown", options),
        "suites": _suites(clean, known, table, options),
        "flips": {m.name: interval(averaged(table[m.name]), known, options, m.kind) for m in flips},
        "margins": {f.removeprefix("margin_"): interval(averaged(table[f]), known, options) for f in sorted(margins)},
        "causal": causal_summary(table, known, options),
        "ablations": ablations,
        "counts": _counts(clean) | {"not_measured": _not_measured(measurements, system)},
    }
    return found | _optional(clean, known, table, options)


def _optional(
    clean: Sequence[Outcome], known: ById, table: Table, options: SummaryOptions
) -> dict[str, dict[str, Any]]:
    """What is there only where it was measured."""
    found: dict[str, dict[str, Any]] = {}
    if PROBABILITY in table:
        found["calibration"] = calibration_summary(table[PROBABILITY], known, options)
    reports = {o.example_id: o.text for o in clean if o.task == "report"}
    if reports:
        found["reports"] = report_summary(reports, known, options)
    if "lesion_area" in table:
        found["grounding"] = grounding_summary(table, known, options)
    external = {name.removeprefix(EXTERNAL): name for name in table if name.startswith(EXTERNAL)}
    if external:
        found["external"] = {key: interval(averaged(table[n]), known, options) for key, n in sorted(external.items())}
    asked = [(o.text, known[o.example_id]) for o in clean if o.task in VQA_TASKS]
    if options.legacy and asked:
        rows = [(text, example.answer, example.task == "closed") for text, example in asked]
        other = legacy_scores(rows, variant="llava_med").get("closed_accuracy")
        found["legacy"] = legacy_scores(rows) | ({} if other is None else {"closed_accuracy_llava_med": other})
    return found


def _metrics(
    clean: Sequence[Outcome], known: ById, table: Table, options: SummaryOptions, own: Sequence[Metric]
) -> dict[str, dict[str, Any]]:
    listed = [m for m in (*METRICS, *own) if m.group == ("metrics",) and m.name in table]
    metrics = {m.name: interval(averaged(table[m.name]), known, options, m.kind) for m in listed}
    even = balanced(averaged(table.get("accuracy", {})), known, options)
    if even is not None:
        metrics["balanced_accuracy"] = even
    spoken = [(o.text, known[o.example_id]) for o in clean if o.task == "open"]
    if spoken:
        columns = np.array([bleu_columns(text, example.answer) for text, example in spoken])
        patients = [patient(example) for _, example in spoken]
        metrics["bleu"] = S.ratio_interval(columns, patients, corpus_bleu, level=options.level, share=True).as_dict()
    return metrics


def _suites(clean: Sequence[Outcome], known: ById, table: Table, options: SummaryOptions) -> dict[str, dict[str, Any]]:
    """The metrics that every table has to show, by suite."""
    found = {}
    for suite in sorted({o.suite for o in clean}):
        members = {o.example_id for o in clean if o.suite == suite}
        found[suite or "unnamed"] = {"n": len(members), "metrics": suite_metrics(table, members, known, options)}
    return found


def suite_metrics(table: Table, members: set[str], known: ById, options: SummaryOptions) -> dict[str, dict[str, Any]]:
    """The metrics of the questions of one data set."""
    metrics = {}
    for metric in shown("suite"):
        if scores := part(table, metric.name, members):
            metrics[metric.name] = interval(scores, known, options, metric.kind)
    even = balanced(part(table, "accuracy", members), known, options)
    return metrics | ({"balanced_accuracy": even} if even is not None else {})


def part(table: Table, metric: str, members: set[str]) -> dict[str, float]:
    """One metric of some of the questions."""
    return {name: value for name, value in averaged(table.get(metric, {})).items() if name in members}


def _counts(clean: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "answers": len(clean),
        "right": sum(o.correct is True for o in clean),
        "wrong": sum(o.correct is False for o in clean),
        "not_judged": sum(o.correct is None for o in clean),
        "incomplete": sum(o.correct is None and o.reason == INCOMPLETE for o in clean),
        "judge_failed": sum(o.reason.startswith(JUDGE_FAILED) for o in clean),
        "judged_by_both": agreement(clean),
    }


def agreement(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many answers both the rules and the language model judged, and on how many of them they agree."""
    both = [o.slots for o in outcomes if RULES_SAID in o.slots]
    return {"asked": len(both), "agree": sum(slots[RULES_SAID] == slots[SECOND_SAID] for slots in both)}


def _not_measured(measurements: Sequence[Measurement], system: str) -> dict[str, int]:
    """Why margins and attention are missing: how many by condition and reason."""
    missing = [m for m in measurements if m.system == system and m.value is None]
    named = ((m.name if m.condition == "clean" else m.condition, m.reason) for m in missing)
    return dict(sorted(Counter(f"{what}: {reason}" for what, reason in named).items()))


def _comparisons(
    tables: Mapping[str, Table],
    known: ById,
    pairs: Sequence[tuple[str, str]],
    options: SummaryOptions,
    own: Sequence[Metric],
) -> list[dict[str, Any]]:
    rows = []
    for metric in (m for m in (*METRICS, *own) if "tested" in m.shown):
        found = {}
        for a, b in pairs:
            left, right = (averaged(tables[system].get(metric.name, {})) for system in (a, b))
            if result := compared(left, right, known, options, metric.kind):
                found[a, b] = result
        adjusted = S.holm({pair: row["p"] for pair, row in found.items()})
        rows += [
            {"a": a, "b": b, "metric": metric.name, **row, "p_holm": adjusted[a, b]} for (a, b), row in found.items()
        ]
    return rows
