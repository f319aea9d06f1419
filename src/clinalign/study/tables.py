"""Results of a sweep's systems into its tables: means on dev, intervals and paired tests on test, the frontier."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from clinalign.evaluation import statistics as S
from clinalign.evaluation import summarise
from clinalign.evaluation.metrics import Metric, kind_of
from clinalign.evaluation.options import SummaryOptions
from clinalign.evaluation.scores import Table, averaged, collect, compared, interval, rounded
from clinalign.records import Example, Measurement, Outcome

Found = Sequence[tuple[list[Outcome], list[Measurement]]]
"""Of one system what each of its seeds found."""
BASE = "base"
TRUTH = "truth_nll"
FOREIGN = ("legacy", "suites", "modalities", "margins", "seeds")
"""Parts of a summary that a sweep's JSON leaves out."""


def dev_rows(
    systems: Mapping[str, Found], base: Found, examples: Sequence[Example], own: Sequence[Metric] = ()
) -> dict[str, dict[str, float]]:
    """Means on dev by system: of questions that have a value, and over seeds; `own`: the recipe's own metrics."""
    known, options = {e.id: e for e in examples}, SummaryOptions()
    clean = {o.example_id: o for outcomes, _ in base for o in outcomes if o.condition == "clean"}
    rows = {}
    for name, found in {BASE: base, **systems}.items():
        outcomes, measurements = _named(found, name)
        table = collect(outcomes, measurements, known, name, clean, options, own)
        rows[name] = rounded({metric: _mean(table, metric) for metric in table if not math.isnan(_mean(table, metric))})
    return rows


def _mean(table: Table, metric: str) -> float:
    values = [value for value in averaged(table[metric]).values() if not math.isnan(value)]
    return math.fsum(values) / len(values) if values else math.nan


def _named(found: Found, name: str) -> tuple[list[Outcome], list[Measurement]]:
    outcomes = [replace(o, system=name) for one, _ in found for o in one]
    return outcomes, [replace(m, system=name) for _, one in found for m in one]


def test_summary(
    systems: Mapping[str, Found], base: Found, examples: Sequence[Example], options: SummaryOptions
) -> dict[str, Any]:
    """Intervals and paired tests of a split that was read; the first of `systems` is compared with every other one."""
    outcomes: list[Outcome] = []
    measurements: list[Measurement] = []
    for name, found in {BASE: base, **systems}.items():
        own = _named(found, name)
        outcomes, measurements = outcomes + own[0], measurements + own[1]
    summary = summarise(outcomes, examples, options, measurements=measurements)
    for system in summary["systems"].values():
        for part in FOREIGN:
            system.pop(part, None)
    return summary


def kept_summary(
    systems: Mapping[str, Found], base: Found, examples: Sequence[Example], options: SummaryOptions
) -> dict[str, Any]:
    """Forgetting: the loss on the answers of other tasks by system, each compared with the base and the first with all
    others, Holm over these."""
    known = {example.id: example for example in examples}
    values: dict[str, dict[str, float]] = {}
    for name, found in {BASE: base, **systems}.items():
        by_seed: dict[int, dict[str, float]] = {}
        for measurement in (m for _, one in found for m in one if m.name == TRUTH and m.value is not None):
            by_seed.setdefault(measurement.seed, {})[measurement.example_id] = float(measurement.value or 0.0)
        values[name] = averaged(by_seed)
    names = list(systems)
    pairs = [(name, BASE) for name in names] + [(names[0], name) for name in names[1:]]
    kind = kind_of(TRUTH)
    tested = {pair: compared(values[pair[0]], values[pair[1]], known, options, kind) for pair in pairs}
    adjusted = S.holm({pair: row["p"] for pair, row in tested.items() if row})
    rows = [{"a": a, "b": b, **row, "p_holm": adjusted[a, b]} for (a, b), row in tested.items() if row]
    shown = {name: interval(found, known, options, kind) for name, found in values.items()}
    return dict(rounded({"systems": shown, "comparisons": rows}))


def with_frontier(rows: list[dict[str, Any]], metric: str, drift: str = "drift_rest") -> None:
    """Marks the rows that no other beats in the rule's metric and drift at once."""
    placed = [row for row in rows if metric in row["means"] and drift in row["means"]]
    points = [(row["means"][metric], row["means"][drift]) for row in placed]
    for row in rows:
        row["frontier"] = False
    for row, best in zip(placed, S.frontier(points), strict=True):
        row["frontier"] = best
