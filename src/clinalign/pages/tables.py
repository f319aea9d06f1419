"""Tables of what only some runs measure: noise levels, grounding by layer, reports, suites, other scorers, metrics of
other packages, distillation. Each but the last is {title, note, head, columns, rows} in the
shape that the page's tables take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clinalign.errors import RowError
from clinalign.evaluation.metrics import shown as metrics_of
from clinalign.evaluation.summary import find
from clinalign.imaging.images import read_image
from clinalign.pages.pictures import HEAT, are_shown, data_uri, left_out
from clinalign.pages.provenance import read_json
from clinalign.pages.results import Summary, cell, known, ordered, shown_name

Table = dict[str, Any]


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
    measures = metrics_of("layers")
    pairs = [(m, s) for m in measures for s in shown if any(m.name in row for row in found[s])]
    by = {(row["layer"], m.name, s): row[m.name] for s in shown for row in found[s] for m in measures if m.name in row}
    layers = sorted({layer for layer, _, _ in by})
    return {
        "title": "Attention in the outline, layer by layer",
        "note": "Ratio: attention inside the outline over the mean everywhere, relative to a general description; 1 is "
        "no preference. Pointing: the strongest place lies inside. KL, JS: distance to the outline, lower is nearer.",
        "head": "Decoder layer",
        "columns": [{"label": f"{m.label}, {shown_name(s)}", "title": m.help} for m, s in pairs],
        "rows": [_row(str(n), [cell(known(by.get((n, m.name, s))), m.unit) for m, s in pairs]) for n in layers],
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
        if summary["systems"][system].get("reports"):
            cells = [cell(find(summary, system, metric), metric.unit) for metric in metrics_of("report")]
            rows.append(_row(shown_name(system), cells, system == method))
    count = max((summary["systems"][s]["reports"]["n"] for s in shown if "reports" in summary["systems"][s]), default=0)
    return {
        "title": "Reports",
        "note": f"{count} reports, findings read by the rule labeller; per cent, invented and missed as counts.",
        "head": "System",
        "columns": [{"label": metric.label, "title": metric.help} for metric in metrics_of("report")],
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
    rows = [_row(name, [cell(known(found[s].get(name)), "") for s in shown]) for name in names]
    told = summary.get("external", {})
    note = "Ran: " + ", ".join(f"{name} {version}" for name, version in told.get("ran", {}).items()) + "."
    return _by_system("Metrics of other packages", note, "Metric", shown, rows)


def _by_system(title: str, note: str, head: str, shown: Sequence[str], rows: list[Table]) -> Table:
    columns = [{"label": shown_name(s), "title": ""} for s in shown]
    return {"title": title, "note": note, "head": head, "columns": columns, "rows": rows}


def _row(label: str, cells: list[dict[str, str]], main: bool = False) -> Table:
    return {"label": label, "kind": "main" if main else "other", "cells": cells}


def _at(found: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = found
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


COLUMNS = {
    "to_teacher": "distance to the expert's map (KL, nats)",
    "to_lesion": "distance to the lesion (JS, nats)",
    "ratio": "attention on the lesion, times an even share",
    "mass": "attention on the image at all, %",
}
SIDE = 160


def distillation(folder: Path) -> dict[str, Any] | None:
    """Rows of the table and strips of pictures from `evaluation/distill.json`; None where nothing was distilled."""
    found = read_json(folder / "evaluation" / "distill.json")
    if not found or not found.get("examples"):
        return None
    rows = [
        {"label": shown_name(name), "cells": [_cell(column, means) for column in COLUMNS]}
        for name, means in found["systems"].items()
    ]
    first = next(iter(found["systems"].values()))
    strips = [strip for strip in (_strip(folder, entry) for entry in found["shown"]) if strip] if are_shown() else []
    return {
        "columns": list(COLUMNS.values()), "rows": rows, "strips": strips, "layer": found["layer"],
        "examples": found["examples"], "teacher_ratio": f"{first['teacher_ratio']:.2f}",
    }  # fmt: skip


def _cell(column: str, means: Mapping[str, float]) -> str:
    return f"{100 * means[column]:.1f}" if column == "mass" else f"{means[column]:.3f}"


def _strip(folder: Path, entry: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        image = _sized(read_image(folder / entry["image"]))
        maps = {name: read_image(folder / path)[..., 0] for name, path in entry["maps"].items()}
        pictures = [{"label": "image", "uri": data_uri(image)}]
        for name, grey in maps.items():
            label = "expert" if name == "teacher" else shown_name(name)
            pictures.append({"label": label, "uri": data_uri(over(image, grey))})
    except RowError:
        return None
    except Exception as error:
        left_out(error)
        return None
    return {"question": entry["question"], "pictures": pictures}


def over(image: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """A grey map as one colour laid over an image uint8 [H, W, 3], each cell as large as its share of the image."""
    height, width = image.shape[:2]
    depth = np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.NEAREST), float)[..., None] / 255
    return np.asarray(image * (1 - 0.75 * depth) + np.array(HEAT) * 0.75 * depth, np.uint8)


def _sized(image: np.ndarray) -> np.ndarray:
    scale = SIDE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
