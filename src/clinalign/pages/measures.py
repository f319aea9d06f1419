"""Tables of what only some runs measure: noise levels, grounding by layer, reports, suites, other scorers, metrics of
other packages. Each is {title, note, head, columns, rows} in the shape that the page's tables take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clinalign.pages.headline import Summary, cell, ordered, shown_name
from clinalign.pages.results import known

Table = dict[str, Any]
LAYERS = {"ratio": "attention ratio", "pointing": "pointing, %", "kl": "KL", "js": "JS"}
REPORTS = (
    (("micro", "precision"), "precision", "Of the findings stated, the share that the reference has"),
    (("micro", "recall"), "recall", "Of the reference's findings, the share that is stated"),
    (("micro", "f1"), "F1", "Both in one, over all findings"),
    (("macro", "f1"), "F1, mean of classes", "F1 by finding, averaged"),
    (("side",), "side right", "Of the findings found, the share on the right side"),
    (("zone",), "zone right", "Of the findings found, the share in the right zone"),
    (("hallucinated",), "invented a report", "Mean number of findings that the reference does not have"),
    (("missed",), "missed a report", "Mean number of the reference's findings that are not stated"),
    (("bleu",), "BLEU", "Overlap of words and phrases"),
    (("rouge_l",), "ROUGE-L", "Longest common run of words"),
)
COUNTS = ("hallucinated", "missed")


def result_tables(summary: Summary, systems: Sequence[str]) -> list[Table]:
    """What belongs to the result: suites, reports, other packages' metrics, other scorers."""
    shown = ordered(summary, systems)
    tables = [_suites(summary, shown), _reports(summary, shown, systems[1])]
    tables += [_external(summary, shown), _legacy(summary, shown)]
    return [table for table in tables if table["rows"]]


def evidence_tables(summary: Summary, systems: Sequence[str]) -> list[Table]:
    """What belongs to the question whether the model looks: flips by noise level, grounding by layer, rewards."""
    shown = [s for s in systems[:2] if s in summary["systems"]]
    tables = [
        _levels(summary, shown),
        _layers(summary, shown),
        _rewarded(summary, ordered(summary, systems), systems[1]),
    ]
    return [table for table in tables if table["rows"]]


def _levels(summary: Summary, shown: Sequence[str]) -> Table:
    found = {s: {row["sigma"]: row for row in summary["systems"][s].get("causal", {}).get("levels", [])} for s in shown}
    levels = sorted({level for rows in found.values() for level in rows})
    sides = [(s, side) for s in shown for side in ("lesion", "control")]
    rows = [
        _row(f"{level:g}", [cell(known(found[s].get(level, {}).get(side))) for s, side in sides]) for level in levels
    ]
    return {
        "title": "By strength of the noise",
        "note": "Flips, per cent; the SD of the noise is on the 0–255 scale.",
        "head": "SD of the noise",
        "columns": [{"label": f"{side}, {shown_name(s)}", "title": ""} for s, side in sides],
        "rows": rows if len(rows) > 1 else [],
    }


def _layers(summary: Summary, shown: Sequence[str]) -> Table:
    found = {s: summary["systems"][s].get("grounding", {}).get("layers", []) for s in shown}
    pairs = [(m, s) for m in LAYERS for s in shown if any(m in row for row in found[s])]
    by = {(row["layer"], m, s): row[m] for s in shown for row in found[s] for m in LAYERS if m in row}
    layers = sorted({layer for layer, _, _ in by})
    return {
        "title": "Attention in the outline, layer by layer",
        "note": "Ratio: attention inside the outline over the mean everywhere, relative to a general description; 1 is "
        "no preference. Pointing: the strongest place lies inside. KL, JS: distance to the outline, lower is nearer.",
        "head": "Decoder layer",
        "columns": [{"label": f"{LAYERS[m]}, {shown_name(s)}", "title": ""} for m, s in pairs],
        "rows": [_row(str(n), [_number(by.get((n, m, s)), share=m == "pointing") for m, s in pairs]) for n in layers],
    }


def _rewarded(summary: Summary, shown: Sequence[str], method: str) -> Table:
    found = {s: summary["systems"][s].get("grounding", {}).get("spans", {}).get("top", {}) for s in shown}
    tops = sorted({top for row in found.values() for top in row}, key=int)
    return {
        "title": "Are the rewarded words the claim?",
        "note": "Share of the claim's tokens among the most rewarded tokens of the answer, per cent.",
        "head": "System",
        "columns": [{"label": f"top {top} %", "title": ""} for top in tops],
        "rows": [
            _row(shown_name(s), [cell(known(r.get(t))) for t in tops], s == method) for s, r in found.items() if r
        ],
    }


def _reports(summary: Summary, shown: Sequence[str], method: str) -> Table:
    rows = []
    for system in shown:
        found = summary["systems"][system].get("reports")
        if found:
            values = [(path[-1], _at(found, path)) for path, _, _ in REPORTS]
            cells = [_number(value, share=name not in COUNTS) for name, value in values]
            rows.append(_row(shown_name(system), cells, system == method))
    count = max((summary["systems"][s]["reports"]["n"] for s in shown if "reports" in summary["systems"][s]), default=0)
    return {
        "title": "Reports",
        "note": f"{count} reports, findings read by the rule labeller; per cent, invented and missed as counts.",
        "head": "System",
        "columns": [{"label": label, "title": title} for _, label, title in REPORTS],
        "rows": rows,
    }


def _suites(summary: Summary, shown: Sequence[str]) -> Table:
    found = {s: summary["systems"][s].get("suites", {}) for s in shown}
    names = sorted({name for suites in found.values() for name in suites})
    rows = [_row(n, [cell(known(_at(found[s], (n, "metrics", "accuracy")))) for s in shown]) for n in names]
    return _by_system("By suite", "Right answers, per cent.", "Suite", shown, rows if len(rows) > 1 else [])


def _legacy(summary: Summary, shown: Sequence[str]) -> Table:
    found = {s: summary["systems"][s].get("legacy", {}) for s in shown}
    names = list(dict.fromkeys(name for scores in found.values() for name in scores))
    rows = []
    for name in names:
        values = [found[s].get(name) for s in shown]
        cells = [{"value": "–" if v is None else f"{v:.1f}", "interval": ""} for v in values]
        rows.append(_row(name.replace("_", " "), cells))
    note = "For comparison with published tables only: that scorer finds yes and no anywhere in an answer."
    return _by_system("As LLaVA-Med and MedAlign score", note, "Score", shown, rows)


def _external(summary: Summary, shown: Sequence[str]) -> Table:
    found = {s: summary["systems"][s].get("external", {}) for s in shown}
    names = sorted({name for metrics in found.values() for name in metrics})
    rows = [_row(name, [_number(found[s].get(name), share=False) for s in shown]) for name in names]
    told = summary.get("external", {})
    note = "Ran: " + ", ".join(f"{name} {version}" for name, version in told.get("ran", {}).items()) + "."
    return _by_system("Metrics of other packages", note, "Metric", shown, rows)


def _by_system(title: str, note: str, head: str, shown: Sequence[str], rows: list[Table]) -> Table:
    columns = [{"label": shown_name(s), "title": ""} for s in shown]
    return {"title": title, "note": note, "head": head, "columns": columns, "rows": rows}


def _row(label: str, cells: list[dict[str, str]], main: bool = False) -> Table:
    return {"label": label, "kind": "main" if main else "other", "cells": cells}


def _number(value: Any, *, share: bool) -> dict[str, str]:
    """An interval in per cent, or with two decimals as it is."""
    found = known(value)
    if found is None or share:
        return cell(found)
    bounds = "" if found["low"] is None else f"{found['low']:.2f} to {found['high']:.2f}"
    return {"value": f"{found['estimate']:.2f}".replace("-", "−"), "interval": bounds.replace("-", "−")}


def _at(found: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = found
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
