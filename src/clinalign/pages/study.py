"""`study.html`: what a sweep tried, what dev chose, test with intervals and paired tests, accuracy against drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from clinalign.evaluation.metrics import METRICS, Metric
from clinalign.evaluation.statistics import frontier
from clinalign.pages.figures import tradeoff
from clinalign.pages.markup import p_value, percent, points
from clinalign.pages.provenance import read_json
from clinalign.pages.results import shown_name
from clinalign.storage import write_text

HERE = Path(__file__).parent
DEV = ("accuracy", "right", "style_preserved", "drift_rest", "accuracy_prior_conflicting", "accuracy_prior_aligned",
       "accuracy_prior_neutral")  # fmt: skip
TEST = (*DEV[:4], "drift_claim", *DEV[4:])
TESTED = ("accuracy", "right", "style_preserved", "drift_rest", "matched_counterfactual", "matched_inpainted",
          "answers_matched_counterfactual", "premise_corrected_counterfactual")  # fmt: skip
RIGHT = ("accuracy", "right")
NAMED = {metric.name: metric for metric in reversed(METRICS)}


def write_study_page(folder: Path) -> Path:
    """Writes `study.html` from `study.json` and `costs.json` of a sweep's folder, atomically. Returns its path."""
    study: dict[str, Any] = read_json(folder / "study.json") or {}
    costs = read_json(folder / "costs.json") or {}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    css = Markup((HERE / "report.css").read_text(encoding="utf-8"))
    page = environment.get_template("study.html.j2").render(_page(study, costs) | {"css": css})
    write_text(folder / "study.html", page)
    return folder / "study.html"


def _page(study: Mapping[str, Any], costs: Mapping[str, Any]) -> dict[str, Any]:
    first, *others = study["tests"]
    main = study["test"][first]
    metric = _metric(study, main)
    return {
        "title": study["name"],
        "phantom": study["source"].startswith("phantom"),
        "readings": study["readings"],
        "rule": study["rule"],
        "pairs": study["pairs"],
        "best": shown_name(study["best"]),
        "chosen": {shown_name(name): setting for name, setting in study["chosen"].items()},
        "notes": _matched(study) + _diverged(study),
        "lead": _lead(study, main, metric),
        "plotted": "Accuracy" if metric.name in RIGHT else metric.label.capitalize(),
        "dev": _dev(study),
        "split": first,
        "n": main["n"],
        "patients": main["patients"],
        "level": f"{100 * main['level']:g}",
        "seeds": len(study["seeds"]),
        "frontier": _figure(study, main, metric),
        "test": _table(main, TEST),
        "evidence": _evidence(main),
        "calibration": _calibration(main),
        "compared": _compared(main, study["best"]),
        "others": [{"split": s, "n": study["test"][s]["n"], **_table(study["test"][s], TEST[:3])} for s in others],
        "compared_others": [{"split": s, "rows": _compared(study["test"][s], study["best"])} for s in others],
        "kept": _kept(study),
        "costs": [(name, f"{value:,.0f}") for name, value in costs.items() if name != "training_of"],
    }


def _metric(study: Mapping[str, Any], main: Mapping[str, Any]) -> Metric:
    """What the rule chose by, where it is a share that was measured on test; otherwise, and in a study that does not
    say it, the accuracy."""
    metric = NAMED.get(study.get("metric", "accuracy"))
    measured = all(metric and metric.name in _found(main["systems"][name]) for name in (study["best"], "base"))
    return metric if metric is not None and metric.unit == "%" and measured else NAMED["accuracy"]


def _found(system: Mapping[str, Any]) -> dict[str, Any]:
    """What was found of a system on a split, under other conditions too."""
    return {**system.get("flips", {}), **system["metrics"]}


def _matched(study: Mapping[str, Any]) -> list[str]:
    """Of each second setting what it was matched at, and whether that could be met."""
    texts = []
    for name, at in study.get("matched", {}).items():
        metric = _label(NAMED[at["metric"]]) if at["metric"] in NAMED else at["metric"]
        limit = f"{at['limit']:.3g} ({metric})" if at["limit"] is not None else f"{metric}, which is not known"
        found = "its setting is within" if at["met"] else "no setting of it is within; taken is the least beyond"
        texts.append(f"{shown_name(name)}, matched at what the best system has on dev, {limit}: {found}.")
    return texts


def _lead(study: Mapping[str, Any], main: Mapping[str, Any], metric: Metric) -> str:
    best = study["best"]
    found = (_found(main["systems"][name]).get(metric.name, {}).get("estimate") for name in (best, "base"))
    own, base = (percent(value) for value in found)
    drift = main["systems"][best]["metrics"].get("drift_rest", {}).get("estimate")
    text = f"{shown_name(best)}, chosen on {study['dev']['split']}, "
    if metric.name in RIGHT:
        asked = "of the questions" if metric.name == "right" else "of the answers that could be judged"
        text += f"is right in {own} % {asked}, the base in {base} %"
    else:
        text += f"has {metric.label} {own} %, the base {base} %"
    return (
        f"{text}; it drifts by {drift:.2g} nats a token where it should not move." if drift is not None else f"{text}."
    )


def _diverged(study: Mapping[str, Any]) -> list[str]:
    """Of each further seed of a chosen setting that diverged why it is not on test."""
    return [f"{name} is left out of test, it diverged: {why}" for name, why in study.get("diverged", {}).items()]


def _dev(study: Mapping[str, Any]) -> dict[str, Any]:
    rows = study["dev"]["rows"]
    names = dict.fromkeys((*(name for name in study.get("rule_metrics", ()) if name in NAMED), *DEV))
    metrics = [NAMED[name] for name in names if any(name in row["means"] for row in rows)]
    return {
        "pairs": any(_pairs(row) for row in rows),
        "labels": [_label(metric) for metric in metrics],
        "rows": [
            {
                "label": row["name"],
                "steps": f"{100 * row['steps']:.0f} %" if row["steps"] else "",
                "pairs": _pairs(row) or row.get("pairs", {}).get("used", ""),
                "marks": [mark for mark in ("chosen", "frontier", "diverged") if row.get(mark)],
                "cells": [_number(metric, row["means"].get(metric.name)) for metric in metrics],
            }
            for row in rows
        ],
    }


def _pairs(row: Mapping[str, Any]) -> str:
    """How many pairs a setting's training could use, where that is not all of them."""
    found = row.get("pairs") or {"used": 0, "of": 0}
    return f"{found['used']} of {found['of']}" if found["used"] < found["of"] else ""


def _label(metric: Metric) -> str:
    return metric.label if metric.unit == "%" or not metric.unit else f"{metric.label}, {metric.unit}"


def _number(metric: Metric, value: float | None) -> str:
    """As per cent, or with three digits that count: a drift may be of any size."""
    text = percent(value) if metric.unit == "%" else "–" if value is None else f"{value:.3g}"
    return text.replace("-", "−")


def _cell(metric: Metric, found: Mapping[str, Any] | None) -> dict[str, str]:
    if not found or found["estimate"] is None:
        return {"value": "–", "interval": ""}
    bounds = " to ".join(_number(metric, found[key]) for key in ("low", "high"))
    return {"value": _number(metric, found["estimate"]), "interval": bounds if found["low"] is not None else ""}


def _table(summary: Mapping[str, Any], names: Sequence[str], part: str = "metrics") -> dict[str, Any]:
    systems = summary["systems"]
    metrics = [NAMED[name] for name in names if any(name in one[part] for one in systems.values())]
    rows = [
        {"label": shown_name(name), "cells": [_cell(metric, one[part].get(metric.name)) for metric in metrics]}
        for name, one in systems.items()
    ]
    return {"labels": [_label(metric) for metric in metrics], "rows": rows}


def _evidence(summary: Mapping[str, Any]) -> dict[str, Any]:
    return _table(summary, [metric.name for metric in METRICS if "flips" in metric.shown], "flips")


def _calibration(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    metrics = [NAMED[name] for name in ("ece", "brier", "auc")]
    return [
        {"label": shown_name(name), "cells": [_cell(metric, one["calibration"].get(metric.name)) for metric in metrics]}
        for name, one in summary["systems"].items()
        if one.get("calibration", {}).get("n")
    ]


def _compared(summary: Mapping[str, Any], best: str) -> list[dict[str, str]]:
    """The best against each other, metric by metric."""
    rows = []
    for row in summary["comparisons"]:
        if row["a"] != best or row["metric"] not in TESTED or row["estimate"] is None:
            continue
        metric = NAMED[row["metric"]]
        form = points if metric.unit == "%" else _signed
        rows.append(
            {
                "metric": _label(metric),
                "against": shown_name(row["b"]),
                "difference": form(row["estimate"]),
                "interval": f"{form(row['low'])} to {form(row['high'])}",
                "p": p_value(row["p_holm"]),
            }
        )
    return rows


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3g}".replace("-", "−")


def _kept(study: Mapping[str, Any]) -> dict[str, Any] | None:
    if not study["kept"]:
        return None
    found, metric = study["test"][study["kept"]], NAMED["truth_nll"]
    tested = {row["a"]: row for row in found["comparisons"] if row["b"] == "base"}
    rows = [
        {
            "label": shown_name(name),
            "cell": _cell(metric, value),
            "p": p_value(tested[name]["p_holm"]) if name in tested else "",
        }
        for name, value in found["systems"].items()
    ]
    return {"split": study["kept"], "rows": rows}


def _figure(study: Mapping[str, Any], main: Mapping[str, Any], metric: Metric) -> Markup | None:
    """The metric over drift: small marks for what dev tried, large ones with intervals for what was read on test."""
    share = metric.name
    means = (row["means"] for row in study["dev"]["rows"])
    points = [(one[share], one["drift_rest"]) for one in means if {"drift_rest", share} <= one.keys()]
    tried = [(drift, value, best) for (value, drift), best in zip(points, frontier(points), strict=True)]
    read = [
        (shown_name(name), one["drift_rest"], one[share])
        for name, one in ((name, _found(system)) for name, system in main["systems"].items())
        if {"drift_rest", share} <= one.keys()
    ]
    title = "right" if share in RIGHT else metric.label
    return tradeoff(tried, read, title) if read else None
