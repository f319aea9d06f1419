"""The numbers of the page and of the terminal, read from `evaluation/summary.json`; which metrics stand where, and what
they are called, is the table's to say (`evaluation.metrics`)."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from clinalign.evaluation.metrics import METRICS, shown
from clinalign.evaluation.summary import find
from clinalign.pages.figures import intervals, reliability, tradeoff
from clinalign.pages.markup import p_value, percent, points

Summary = Mapping[str, Any]
NAMES = {
    "firempo": "FiRe-MPO",
    "dpo": "DPO",
    "sft": "SFT on chosen",
    "rrpo": "RRPO",
    "mask_dpo": "MASK-DPO",
    "keep": "Keep",
    "counterfactual_keep": "Counterfactual keep",
    "valor": "VALOR",
}
"""How a system is shown when its label is a method's name."""

ACCURACY, STYLE, DRIFT = (
    next(m for m in METRICS if m.name == name) for name in ("accuracy", "style_preserved", "drift_rest")
)
KEYS = ("estimate", "low", "high")
LOG_WIDTH = 120


def headline(summary: Summary, systems: Sequence[str]) -> dict[str, Any]:
    """Everything the result section shows. `systems`: baseline, method of interest, comparators."""
    base, method = systems[0], systems[1]
    accuracy = [(label, find(summary, label, ACCURACY), _kind(label, method)) for label in ordered(summary, systems)]
    differences = [c for c in compared(summary) if c["b"] == base]
    return {
        "sentence": _sentence(summary, base, method),
        "n": summary["n"],
        "patients": summary["patients"],
        "level": f"{100 * summary['level']:g}",
        "accuracy": _forest([(shown_name(label), found, kind) for label, found, kind in accuracy if found]),
        "differences": _forest([(shown_name(c["a"]), c, _kind(c["a"], method)) for c in differences], zero=True),
        "frontier": _frontier(summary, systems),
        "main": grid(summary, systems, "result"),
        "beside": grid(summary, systems, "beside"),
        "tests": [_test(c) for c in compared(summary)],
        "test_note": f"Accuracy; {summary['methods']['test']}; {summary['methods']['correction']}.",
        "seeds": max(len(s.get("seeds", {}).get("values", [0])) for s in summary["systems"].values()),
    }


def _frontier(summary: Summary, systems: Sequence[str]) -> Markup | None:
    """Accuracy over drift, where the drift of a trained system was measured."""
    found = [
        (label, find(summary, label, DRIFT), find(summary, label, ACCURACY)) for label in ordered(summary, systems)
    ]
    read = [(shown_name(label), drift, accuracy) for label, drift, accuracy in found if drift and accuracy]
    return tradeoff([], read) if any(drift["estimate"] for _, drift, _ in read) else None


def grid(summary: Summary, systems: Sequence[str], place: str) -> dict[str, Any]:
    """The table of one place: systems by metrics; metrics that nobody has are left out."""
    labels = ordered(summary, systems)
    columns = [m for m in shown(place, summary) if any(find(summary, label, m) for label in labels)]
    rows = [
        {
            "label": shown_name(label),
            "kind": _kind(label, systems[1]),
            "cells": [cell(find(summary, label, metric), metric.unit) for metric in columns],
        }
        for label in labels
    ]
    return {"columns": [{"label": m.label, "title": m.help} for m in columns], "rows": rows if columns else []}


def ordered(summary: Summary, systems: Sequence[str]) -> list[str]:
    """The summary's systems: those of the recipe in its order, then any other."""
    return [s for s in systems if s in summary["systems"]] + [s for s in summary["systems"] if s not in systems]


def print_table(folder: Path) -> None:
    """The short table of a finished run on the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    path = folder / "evaluation" / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    names = list(summary["systems"])
    columns = [m for m in shown("result", summary) if any(find(summary, label, m) for label in names)]
    title = f"{summary['n']} test questions, {summary['patients']} patients: right, per cent"
    values = [[cell(find(summary, label, metric), metric.unit)["value"] for label in names] for metric in columns]
    differences = {c["a"]: c for c in compared(summary) if c["b"] == names[0]}
    against = [_difference(differences[label]) if label in differences else "" for label in names]
    shown_columns = [*zip([m.label for m in columns], values, strict=True), ("against base, points [95 %]", against)]
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    labels = [shown_name(label) for label in names]
    for number, part in enumerate(fitting(shown_columns, console.width - max(map(len, labels)) - 4)):
        table = Table(title=None if number else title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("system", no_wrap=True)
        for head, _ in part:
            table.add_column(head, justify="right")
        for row, label in enumerate(labels):
            table.add_row(label, *[cells[row] for _, cells in part])
        console.print(table)


def fitting(columns: Sequence[tuple[str, Sequence[str]]], width: int) -> list[list[tuple[str, Sequence[str]]]]:
    """Columns (heading, cells) in as many tables as it takes that no cell and no word of a heading is cut at `width`
    characters; a heading may take several lines, a single column that is wider than that stands alone."""
    tables: list[list[tuple[str, Sequence[str]]]] = []
    left = 0
    for head, cells in columns:
        needed = max(map(len, [*head.split(), *cells])) + 3
        if needed > left:
            tables.append([])
            left = width
        tables[-1].append((head, cells))
        left -= needed
    return tables


def shown_name(label: str) -> str:
    """A system's name as the page and the terminal show it."""
    return NAMES.get(label, label)


def compared(summary: Summary, metric: str = "accuracy") -> list[Mapping[str, Any]]:
    """The paired comparisons of one metric; one without a number (nothing could be judged) is left out."""
    return [c for c in summary["comparisons"] if c["metric"] == metric and c["estimate"] is not None]


def _kind(label: str, method: str) -> str:
    return "main" if label == method else "other"


def cell(found: Any, unit: str = "%") -> dict[str, str]:
    """A number and its interval as the tables show them: per cent, words with one decimal, others with two; nats, which
    may be of any size, with two digits that count."""
    if not found:
        return {"value": "–", "interval": ""}
    scale, form = (100 if unit == "%" else 1), {"%": ".1f", "words": ".1f", "nats": ".2g"}.get(unit, ".2f")
    low, high = found["low"], found["high"]
    small = f"{scale * low:{form}} to {scale * high:{form}}" if low is not None else ""
    value = f"{scale * found['estimate']:{form}}"
    return {"value": value.replace("-", "−"), "interval": small.replace("-", "−")}


def _test(comparison: Mapping[str, Any]) -> dict[str, str]:
    return {
        "label": f"{shown_name(comparison['a'])} − {shown_name(comparison['b'])}",
        "value": points(comparison["estimate"]),
        "interval": f"{points(comparison['low'])} to {points(comparison['high'])}",
        "p": p_value(comparison["p"]),
        "holm": p_value(comparison["p_holm"]),
    }


def _difference(c: Mapping[str, Any]) -> str:
    return f"{points(c['estimate'])} [{points(c['low'])}, {points(c['high'])}]"


def _forest(rows: Sequence[tuple[str, Mapping[str, Any], str]], *, zero: bool = False) -> Any:
    triples = [
        (label, *(100 * (f[k] if f[k] is not None else f["estimate"]) for k in KEYS), kind) for label, f, kind in rows
    ]
    if not triples:
        return ""
    low = min([t[2] for t in triples] + ([0.0] if zero else []))
    high = max([t[3] for t in triples] + ([0.0] if zero else []))
    margin = max(2.0, 0.08 * (high - low))
    return intervals(triples, low=low - margin, high=high + margin)


def _sentence(summary: Summary, base: str, method: str) -> str:
    found = [c for c in compared(summary) if (c["a"], c["b"]) == (method, base)]
    was, now = (find(summary, label, ACCURACY) for label in (base, method))
    if not found or was is None or now is None:
        return f"{summary['n']} questions were answered by {len(summary['systems'])} systems."
    c = found[0]
    clear = c["low"] is not None and (c["low"] > 0 or c["high"] < 0)
    verdict = "" if clear else "; the interval holds zero, so this run does not show a difference"
    text = (
        f"{shown_name(method)} answers {percent(now['estimate'])} % of the questions right, base "
        f"{percent(was['estimate'])} %: {points(c['estimate'])} points "
        f"[{points(c['low'])}, {points(c['high'])}]{verdict}."
    )
    unread = summary["n"] - now["n"]
    if unread > 0:  # accuracy is of the others, and a model that breaks may not win by it
        whole = percent(now["estimate"] * now["n"] / summary["n"])
        text += f" {unread} of its answers cannot be read: of all {summary['n']} questions {whole} % are right."
    others = [c for c in compared(summary) if c["a"] == method and c["b"] != base]
    for other in others:
        if other["high"] is not None and other["high"] < 0:
            lead = points(-other["estimate"])[1:]
            text += f" {shown_name(other['b'])} is better than {shown_name(method)} by {lead} points on the same pairs."
    return text


CONDITIONS = {
    "blank": "black image",
    "noise": "noise instead of the image",
    "shuffled": "another patient's image",
    "no_image": "no image",
}
VERDICTS = {True: "ignores the image", False: "not shown to ignore it"}


def failures(summary: Summary, systems: Sequence[str]) -> list[dict[str, str]]:
    """Sentences of the evaluation that name a failure which an accuracy alone would hide."""
    return [
        {"system": shown_name(label), "text": text}
        for label in ordered(summary, systems)
        for text in summary["systems"][label].get("verdicts", [])
    ]


def fell(summary: Summary, systems: Sequence[str]) -> list[str]:
    """Every number of every trained system that is lower than the base's, the interval of the difference below zero."""
    guarded = {metric.name for metric in shown("guarded", summary)}
    lower = [
        c
        for c in summary["comparisons"]
        if c["b"] == systems[0] and c["metric"] in guarded and c["high"] is not None and c["high"] < 0
    ]
    return [
        f"{shown_name(c['a'])}, {c['metric'].replace('_', ' ')}: {points(c['estimate'])} points"
        f" [{points(c['low'])}, {points(c['high'])}]"
        for c in lower
    ]


def groups(summary: Summary, systems: Sequence[str], field: str) -> dict[str, Any]:
    """Accuracy by kind of question (`kinds`) or by modality (`modalities`): a row a group, a column a system."""
    shown = ordered(summary, systems)
    found = {label: summary["systems"][label].get(field, {}) for label in shown}
    names = sorted(set().union(*found.values())) if found else []
    rows = []
    for name in names:
        values = [found[label].get(name) for label in shown]
        count = next((value["n"] for value in values if value), 0)
        cells = [cell(value if value and value["estimate"] is not None else None) for value in values]
        rows.append({"label": name.replace("_", " "), "n": count, "cells": cells})
    return {"systems": [shown_name(label) for label in shown], "rows": rows}


def causal(summary: Summary, systems: Sequence[str]) -> dict[str, Any] | None:
    """Flip rates with their controls: the table, and a forest plot of the method of interest and the base."""
    table = grid(summary, systems, "flips")
    if not table["rows"]:
        return None
    rows = []
    for metric in (m for m in shown("flips") if m.kind == "share"):
        for system, kind in ((systems[0], "other"), (systems[1], "main")):
            value = find(summary, system, metric)
            if value:
                bounds = [100 * (value[k] if value[k] is not None else value["estimate"]) for k in KEYS]
                rows.append((f"{metric.label}, {shown_name(system)}", *bounds, kind))
    high = max((row[3] for row in rows), default=1.0)
    missing = {
        s: summary["systems"][s].get("counts", {}).get("not_measured", {})
        for s in systems[:2]
        if s in summary["systems"]
    }
    return {
        "table": table,
        "figure": intervals(rows, low=0.0, high=max(10.0, 1.05 * high)) if rows else "",
        "missing": [f"{shown_name(s)}: {_counts(found)}" for s, found in missing.items() if found],
    }


def ablations(summary: Summary, systems: Sequence[str]) -> list[dict[str, Any]]:
    """What happens to the answers when the image is taken away, a row a system and condition, with the verdict."""
    return [
        {
            "system": shown_name(label),
            "condition": CONDITIONS.get(condition, condition.replace("_", " ")),
            "changed": cell(known(found["changed"])),
            "accuracy": cell(known(found["accuracy"])),
            "p": p_value(found["p"]),
            "verdict": found.get("verdict") or VERDICTS[found["ignores_image"]],
            "ignores": found["ignores_image"],
        }
        for label in ordered(summary, systems)
        for condition, found in summary["systems"][label].get("ablations", {}).items()
    ]


def calibration(summary: Summary, systems: Sequence[str]) -> dict[str, Any] | None:
    """Is the probability of yes right: a table of systems and the reliability diagrams of base and method."""
    measured = {s: summary["systems"][s].get("calibration") for s in ordered(summary, systems)}
    kept = {s: found for s, found in measured.items() if found and found.get("n")}
    if not kept:
        return None
    rows = [
        {
            "label": shown_name(s),
            "kind": "main" if s == systems[1] else "other",
            "n": found["n"],
            "cells": [cell(find(summary, s, metric)) for metric in shown("calibration")],
        }
        for s, found in kept.items()
    ]
    series = [(shown_name(s), found["bins"]) for s, found in kept.items() if s in systems[:2] and found.get("bins")]
    figure = reliability("Said yes, and was it yes?", series) if series else ""
    columns = [{"label": metric.label, "title": metric.help} for metric in shown("calibration")]
    return {"columns": columns, "rows": rows, "figure": figure, "names": [name for name, _ in series]}


def facts(summary: Summary, systems: Sequence[str], kinds: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """The few numbers at the top of the page."""
    base, method = systems[0], systems[1]
    was, now, whole = (find(summary, s, m) for s, m in ((base, ACCURACY), (method, ACCURACY), (method, STYLE)))
    tiles = []
    if was and now:
        value = f"{percent(was['estimate'])} → {percent(now['estimate'])} %"
        tiles.append({"value": value, "label": f"questions answered right, base → {shown_name(method)}"})
    tiles.append({"value": str(len(kinds["fixed"])), "label": "wrong before, right now"})
    tiles.append({"value": str(len(kinds["broken"])), "label": "right before, wrong now"})
    if whole:
        tiles.append({"value": f"{percent(whole['estimate'])} %", "label": "answers whose style is preserved"})
    return tiles


def known(value: Any) -> Any:
    """An interval, or None where it has no estimate."""
    return value if value and value.get("estimate") is not None else None


def _counts(found: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in found.items())
