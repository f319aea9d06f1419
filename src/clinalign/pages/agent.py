"""`agent.html`: an agent's questions step by step, each sentence of an answer beside the trace rows that carry it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from clinalign.errors import RowError
from clinalign.imaging.images import read_image, read_mask
from clinalign.pages.markup import percent, points
from clinalign.pages.pictures import data_uri
from clinalign.pages.provenance import read_json
from clinalign.records import Example, Outcome, TraceStep
from clinalign.storage import read_table, write_text

HERE = Path(__file__).parent
SHOWN = 40
"""Questions of which every step is shown."""
METRICS = ("accuracy", "precision", "recall", "f1", "unanswered")
MASK = (255, 230, 0)


def write_agent_page(folder: Path, *, shown: int = SHOWN, images: bool = True) -> Path:
    """Writes `agent.html` into the folder of `clinalign agent`, atomically. Returns its path."""
    section = agent_section(folder, shown=shown, images=images)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    css = Markup((HERE / "report.css").read_text(encoding="utf-8"))
    write_text(folder / "agent.html", environment.get_template("agent.html.j2").render({"agent": section, "css": css}))
    return folder / "agent.html"


def agent_section(folder: Path, *, shown: int = SHOWN, images: bool = True) -> dict[str, Any] | None:
    """What the section shows: `tables` of metrics, a row a subclass and system; `costs`; `questions` with steps and
    sentences.

    Questions the checker did not accept come first, then the others, each in the order in which they were asked. None
    where there is no trace.
    """
    if not (folder / "trace.parquet").is_file():
        return None
    result: Mapping[str, Any] = read_json(folder / "evaluation" / "eh.json") or {}
    examples = {e.id: e for e in read_table(folder / "examples.parquet", Example)}
    steps_of: dict[tuple[str, str], list[TraceStep]] = defaultdict(list)
    for step in read_table(folder / "trace.parquet", TraceStep):
        steps_of[step.system, step.question_id].append(step)
    outcomes = [o for o in read_table(folder / "outcomes.parquet", Outcome) if o.condition == "clean"]
    said = {(o.example_id, o.system): o for o in outcomes}
    systems = list(dict.fromkeys(o.system for o in outcomes))
    order = sorted(steps_of, key=lambda name: not _last(steps_of[name]).error)
    return {
        "tables": _tables(result),
        "baselines": _baselines(result),
        "gains": result.get("gains", {}),
        "costs": result.get("costs", {}),
        "count": result.get("items", 0),
        "items_hash": result.get("items_hash", ""),
        "questions": [
            _question(folder, examples[name], steps_of[system, name], [said.get((name, s)) for s in systems], images)
            for system, name in order[:shown]
            if name in examples
        ],
        "asked": len(steps_of),
        "percent": percent,
        "points": points,
    }


def _last(steps: Sequence[TraceStep]) -> TraceStep:
    return next(step for step in reversed(steps) if step.step == "check")


def _tables(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Options shuffled, and in the fixed order: a row a subclass and system, systems beside each other."""
    tables = []
    for suite, title in (("systems", "With and without the agent"), ("legacy", "Options in the published fixed order")):
        found = result.get(suite, {})
        rows = [
            {
                "label": name,
                "system": system,
                "class": row.get("class", ""),
                "n": row["accuracy"]["n"],
                "cells": [_cell(row[m]) for m in METRICS],
            }
            for name in dict.fromkeys(name for groups in found.values() for name in groups)
            for system, groups in found.items()
            if (row := groups.get(name))
        ]
        tables += [{"title": title, "rows": rows}] * bool(rows)
    return tables


def _baselines(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for suite, title in (("baselines", ""), ("legacy_baselines", ", fixed order")):
        for name, groups in result.get(suite, {}).items():
            if "all" in groups:
                rows.append({"label": name.replace("_", " ") + title, "cell": _cell(groups["all"])})
    return rows


def _cell(interval: Mapping[str, Any]) -> dict[str, str]:
    low, high = interval["low"], interval["high"]
    shown = "" if low is None else f"{percent(low)} to {percent(high)}"
    return {"value": percent(interval["estimate"]), "interval": shown}


def _question(
    folder: Path, example: Example, steps: Sequence[TraceStep], outcomes: Sequence[Outcome | None], images: bool
) -> dict[str, Any]:
    checked = json.loads(_last(steps).output)
    numbers = {step.id: step.number for step in steps}
    sentences = [
        sentence | {"rows": [numbers[row] for row in sentence["evidence"] if row in numbers]}
        for sentence in checked["sentences"]
    ]
    return {
        "id": example.id,
        "system": steps[0].system,
        "anchor": f"{example.id}-{steps[0].system}".replace("/", "-").replace(" ", "-"),
        "question": example.question,
        "truth": example.answer,
        "answers": [(o.system, o.slots.get("letter") or "none", o.correct) for o in outcomes if o is not None],
        "accepted": checked["accepted"],
        "sentences": sentences,
        "steps": [_step(folder, step, images) for step in steps],
        "images": [uri for name in example.images if images and (uri := _picture(folder / name))],
    }


def _step(folder: Path, step: TraceStep, images: bool) -> dict[str, Any]:
    output = json.loads(step.output)
    return {
        "number": step.number,
        "attempt": step.attempt + 1,
        "step": step.step,
        "who": step.who,
        "seconds": f"{step.seconds:.3f}",
        "error": step.error,
        "input": step.input_hash[:12],
        "hash": step.output_hash[:12],
        "quote": output.pop("quote", "") if isinstance(output, dict) else "",
        "output": json.dumps(output, ensure_ascii=False)[:1500],
        "masks": [uri for name in step.masks if images and (uri := _outlined(folder, step, name))],
    }


def _picture(path: Path) -> str:
    try:
        return data_uri(read_image(path), 192)
    except RowError:
        return ""


def _outlined(folder: Path, step: TraceStep, name: str) -> str:
    """The image that a step saw with its mask laid over; "" where either is missing or their sizes differ."""
    try:
        image, mask = read_image(folder / step.images[0]).copy(), read_mask(folder / name)
    except (RowError, IndexError):
        return ""
    if image.shape[:2] != mask.shape:
        return ""
    image[mask] = (image[mask] // 2 + [v // 2 for v in MASK]).astype(image.dtype)
    return data_uri(image, 128)
