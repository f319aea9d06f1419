"""The numbers at the top of the page and on the terminal, both read from `evaluation/summary.json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clinalign.pages.figures import intervals
from clinalign.pages.markup import p_value, percent, points

Summary = Mapping[str, Any]

COLUMNS = (
    ("metrics", "accuracy", "all", "Accuracy over all questions, per cent"),
    ("metrics", "accuracy_closed", "closed", "Accuracy on closed (yes/no, choice) questions"),
    ("metrics", "accuracy_open", "open", "Accuracy on open questions"),
    ("metrics", "accuracy_against_prior", "against the habit", "Questions whose truth contradicts the habit"),
    ("metrics", "accuracy_with_prior", "with the habit", "Questions whose truth is what the habit says"),
    ("metrics", "accuracy_uncontaminated", "untouched", "Questions that the habit does not touch"),
    ("metrics", "intact", "intact", "Answers that parse, do not repeat, and keep the base's text outside the claim"),
)
BESIDE = (
    ("metrics", "balanced_accuracy", "balanced", "Mean of the accuracy on yes and on no; 50 is chance"),
    ("metrics", "yes_rate", "says yes", "Share of yes/no questions answered by yes"),
    ("metrics", "unanswered", "no answer", "Nothing was said"),
    ("metrics", "unparsable", "no verdict", "The judge could not read the answer; never scored"),
    ("metrics", "incomplete", "incomplete", "Part of the truth, or less than it; neither right nor wrong"),
    ("metrics", "abstained", "abstained", "Declined, or named possibilities only; never scored"),
    ("metrics", "truncated", "cut off", "Longer than the limit"),
    ("metrics", "words", "words", "Mean answer length in words"),
    ("metrics", "coverage", "understood", "Share of the clinical words of the answers that the rules know"),
    ("metrics", "token_f1", "word overlap", "F1 of the words with the short ground truth"),
)
"""What is always read beside accuracy."""
PLAIN = {"words"}
NAMES = {"firempo": "FiRe-MPO", "dpo": "DPO", "sft": "SFT on chosen", "rrpo": "RRPO", "mask_dpo": "MASK-DPO"}
"""How a system is shown when its label is a method's name."""

LOG_WIDTH = 120


def headline(summary: Summary, systems: Sequence[str]) -> dict[str, Any]:
    """Everything the result section shows. `systems`: baseline, method of interest, comparators."""
    base, method = systems[0], systems[1]
    shown = ordered(summary, systems)
    accuracy = [(label, find(summary, label, ("metrics", "accuracy")), _kind(label, method)) for label in shown]
    differences = [c for c in compared(summary) if c["b"] == base]
    return {
        "sentence": _sentence(summary, base, method),
        "n": summary["n"],
        "patients": summary["patients"],
        "level": f"{100 * summary['level']:g}",
        "accuracy": _forest([(shown_name(label), found, kind) for label, found, kind in accuracy if found]),
        "differences": _forest([(shown_name(c["a"]), c, _kind(c["a"], method)) for c in differences], zero=True),
        "main": grid(summary, shown, method, COLUMNS),
        "beside": grid(summary, shown, method, BESIDE),
        "tests": [_test(c) for c in compared(summary)],
        "test_note": f"Accuracy; {summary['methods']['test']}; {summary['methods']['correction']}.",
        "seeds": max(len(s.get("seeds", {}).get("values", [0])) for s in summary["systems"].values()),
    }


def grid(
    summary: Summary, shown: Sequence[str], method: str, columns: Sequence[tuple[str, str, str, str]]
) -> dict[str, Any]:
    """A table of systems by columns (group, name, label, explanation); columns nobody has are left out."""
    kept = [c for c in columns if any(find(summary, label, c[:2]) for label in shown)]
    rows = [
        {
            "label": shown_name(label),
            "kind": _kind(label, method),
            "cells": [cell(find(summary, label, c[:2]), c[1] in PLAIN) for c in kept],
        }
        for label in shown
    ]
    return {"columns": [{"label": c[2], "title": c[3]} for c in kept], "rows": rows if kept else []}


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
    columns = [c for c in COLUMNS if any(find(summary, label, c[:2]) for label in names)]
    title = f"{summary['n']} test questions, {summary['patients']} patients: right, per cent"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("system", no_wrap=True)
    for column in columns:
        table.add_column(column[2], justify="right")
    table.add_column("against base, points [95 %]", justify="right", no_wrap=True)
    differences = {c["a"]: c for c in compared(summary) if c["b"] == names[0]}
    for label in names:
        cells = [cell(find(summary, label, c[:2]), False)["value"] for c in columns]
        table.add_row(shown_name(label), *cells, _difference(differences[label]) if label in differences else "")
    Console(width=None if sys.stdout.isatty() else LOG_WIDTH).print(table)


def shown_name(label: str) -> str:
    """A system's name as the page and the terminal show it."""
    return NAMES.get(label, label)


def find(summary: Summary, label: str, key: tuple[str, str]) -> Any:
    """One interval of the summary, or None where it was not measured."""
    found = summary["systems"].get(label, {}).get(key[0], {}).get(key[1])
    return found if found and found["estimate"] is not None else None


def compared(summary: Summary, metric: str = "accuracy") -> list[Mapping[str, Any]]:
    """The paired comparisons of one metric; one without a number (nothing could be judged) is left out."""
    return [c for c in summary["comparisons"] if c["metric"] == metric and c["estimate"] is not None]


def _kind(label: str, method: str) -> str:
    return "main" if label == method else "other"


def cell(found: Any, plain: bool = False) -> dict[str, str]:
    """A number and its interval as the tables show them: per cent, or the value itself where `plain`."""
    if not found:
        return {"value": "–", "interval": ""}
    scale = 1 if plain else 100
    low, high = found["low"], found["high"]
    small = f"{scale * low:.1f} to {scale * high:.1f}" if low is not None else ""
    value = f"{found['estimate']:.1f}" if plain else percent(found["estimate"])
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
    room = max(2.0, 0.08 * (high - low))
    return intervals(triples, low=low - room, high=high + room)


KEYS = ("estimate", "low", "high")


def _sentence(summary: Summary, base: str, method: str) -> str:
    found = [c for c in compared(summary) if (c["a"], c["b"]) == (method, base)]
    accuracy = {label: find(summary, label, ("metrics", "accuracy")) for label in (base, method)}
    if not found or not all(accuracy.values()):
        return f"{summary['n']} questions were answered by {len(summary['systems'])} systems."
    c = found[0]
    clear = c["low"] is not None and (c["low"] > 0 or c["high"] < 0)
    verdict = "" if clear else "; the interval holds zero, so this run does not show a difference"
    text = (
        f"{shown_name(method)} answers {percent(accuracy[method]['estimate'])} % of the questions right, base "
        f"{percent(accuracy[base]['estimate'])} %: {points(c['estimate'])} points "
        f"[{points(c['low'])}, {points(c['high'])}]{verdict}."
    )
    others = [c for c in compared(summary) if c["a"] == method and c["b"] != base]
    for other in others:
        if other["high"] is not None and other["high"] < 0:
            lead = points(-other["estimate"])[1:]
            text += f" {shown_name(other['b'])} is better than {shown_name(method)} by {lead} points on the same pairs."
    return text
