"""The sections of the page behind the headline: groups of questions, causal checks, image reliance, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clinalign.pages.figures import intervals, reliability
from clinalign.pages.headline import Summary, cell, find, grid, ordered, shown_name
from clinalign.pages.markup import p_value, percent, points

FLIPS = (
    ("flips", "flip_lesion_noise", "lesion noised", "Preferences that flip when the lesion is covered with noise"),
    ("flips", "flip_control", "control noised", "Preferences that flip when an equal patch elsewhere is noised"),
    ("flips", "flip_removal", "lesion removed", "Preferences that flip when the lesion is removed"),
    ("flips", "specificity", "noised − control", "Flips by noise in the lesion minus flips by noise elsewhere"),
    ("flips", "specificity_removal", "removed − control", "Flips by removal minus flips by noise elsewhere"),
)
CONDITIONS = {
    "blank": "black image",
    "noise": "noise instead of the image",
    "shuffled": "another patient's image",
    "no_image": "no image",
}
VERDICTS = {True: "ignores the image", False: "not shown to ignore it"}


def faults(summary: Summary, systems: Sequence[str]) -> list[dict[str, str]]:
    """Sentences of the evaluation that name a fault which an accuracy alone would hide."""
    return [
        {"system": shown_name(label), "text": text}
        for label in ordered(summary, systems)
        for text in summary["systems"][label].get("verdicts", [])
    ]


MUST_NOT_FALL = {
    "accuracy": "right answers",
    "accuracy_closed": "right answers to closed questions",
    "accuracy_open": "right answers to open questions",
    "accuracy_against_prior": "right answers against the habit",
    "accuracy_with_prior": "right answers with the habit",
    "accuracy_uncontaminated": "right answers where there is no habit",
    "accuracy_report": "right reports",
    "intact": "intact answers",
    "specificity": "flips by noise at the lesion beyond the control",
    "specificity_removal": "flips by removal beyond the control",
}


def fell(summary: Summary, systems: Sequence[str]) -> list[str]:
    """Every number of every trained system that is lower than the base's, the interval of the difference below zero."""
    lower = [
        c
        for c in summary["comparisons"]
        if c["b"] == systems[0] and c["metric"] in MUST_NOT_FALL and c["high"] is not None and c["high"] < 0
    ]
    return [
        f"{shown_name(c['a'])}, {MUST_NOT_FALL[c['metric']]}: {points(c['estimate'])} points"
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
    table = grid(summary, ordered(summary, systems), systems[1], FLIPS)
    if not table["rows"]:
        return None
    rows = []
    for group, name, label, _ in FLIPS[:3]:
        for system, kind in ((systems[0], "other"), (systems[1], "main")):
            value = find(summary, system, (group, name))
            if value:
                bounds = [100 * (value[k] if value[k] is not None else value["estimate"]) for k in KEYS]
                rows.append((f"{label}, {shown_name(system)}", *bounds, kind))
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


KEYS = ("estimate", "low", "high")


def reliance(summary: Summary, systems: Sequence[str]) -> list[dict[str, Any]]:
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
        for condition, found in summary["systems"][label].get("reliance", {}).items()
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
            "cells": [cell(known(found.get(name))) for name in ("ece", "brier", "auc")],
        }
        for s, found in kept.items()
    ]
    series = [(shown_name(s), found["bins"]) for s, found in kept.items() if s in systems[:2] and found.get("bins")]
    figure = reliability("Said yes, and was it yes?", series) if series else ""
    return {"rows": rows, "figure": figure, "names": [name for name, _ in series]}


def facts(summary: Summary, systems: Sequence[str], kinds: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """The few numbers at the top of the page."""
    base, method = systems[0], systems[1]
    was, now, whole = (find(summary, s, ("metrics", m)) for s, m in ((base, A), (method, A), (method, "intact")))
    tiles = []
    if was and now:
        value = f"{percent(was['estimate'])} → {percent(now['estimate'])} %"
        tiles.append({"value": value, "label": f"questions answered right, base → {shown_name(method)}"})
    tiles.append({"value": str(len(kinds["fixed"])), "label": "wrong before, right now"})
    tiles.append({"value": str(len(kinds["broken"])), "label": "right before, wrong now"})
    if whole:
        tiles.append({"value": f"{percent(whole['estimate'])} %", "label": "answers intact outside the claim"})
    return tiles


A = "accuracy"


def known(value: Any) -> Any:
    """An interval, or None where it has no estimate."""
    return value if value and value.get("estimate") is not None else None


def _counts(found: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in found.items())
