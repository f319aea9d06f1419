"""The page's figures as PNG and SVG files, for papers and slides; the same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from clinalign import __version__
from clinalign.evaluation.metrics import shown
from clinalign.evaluation.summary import find
from clinalign.pages.pictures import left_out
from clinalign.pages.provenance import CHARTS, curve_series
from clinalign.pages.results import ACCURACY, Summary, compared, ordered, shown_name
from clinalign.storage import atomic, key_of

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, which every kind of colour vision tells apart."""
GREY = "#5D6670"
STYLES = ("-", "--", ":", "-.")
STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "svg.hashsalt": "clinalign",
    "svg.fonttype": "none",
}
SUFFIXES: dict[str, tuple[dict[str, Any], dict[str, Any], str, bytes]] = {
    ".png": ({"dpi": 200}, {"Software": "clinalign"}, "Source", b"IEND\xaeB`\x82"),
    ".svg": ({}, {"Date": None}, "Identifier", b"</svg>"),
}
"""How a figure is saved, what it says of itself, the name under which it says what it was drawn from, and its end."""
Rows = list[tuple[str, Mapping[str, Any], str]]


def write_figures(
    folder: Path, summary: Summary | None, systems: Sequence[str], logs: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[Path]:
    """Writes the figures that the run has numbers for into `folder`, each as PNG and SVG, and returns their paths.

    A figure holds the key of the numbers it was drawn from; one that is there with the same key is left as it is.
    """
    import matplotlib

    series = [curve_series(logs, column) for _, column, _ in CHARTS]
    key = key_of([summary, systems, series, __version__, matplotlib.__version__])
    drawn: dict[str, Callable[[], Any]] = {}
    if summary:
        colours = _colours(summary, systems)
        for name, title, rows in _forests(summary, systems, colours):
            drawn[name] = partial(_forest, title, rows)
        drawn["kinds"] = partial(_kinds, summary, systems, colours)
    if any(logs.values()):
        drawn["training"] = partial(_training, logs)
    written: list[Path] = []
    with matplotlib.rc_context(STYLE):
        for name, draw in drawn.items():
            paths = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
            try:
                if not all(_is_drawn(path, key) for path in paths):
                    figure = draw()
                    for path in paths:
                        _save(figure, path, key)
                written += paths
            except Exception as error:  # the page can do without a figure, be it for want of memory
                left_out(error)
    return written


def _colours(summary: Summary, systems: Sequence[str]) -> dict[str, str]:
    trained = [s for s in ordered(summary, systems) if s != systems[0]]
    return {systems[0]: GREY} | {s: COLOURS[n % len(COLOURS)] for n, s in enumerate(trained)}


def _forests(summary: Summary, systems: Sequence[str], colours: Mapping[str, str]) -> list[tuple[str, str, Rows]]:
    labels = ordered(summary, systems)
    accuracy = [(shown_name(s), find(summary, s, ACCURACY), colours[s]) for s in labels]
    against = [c for c in compared(summary) if c["b"] == systems[0]]
    differences = [(shown_name(c["a"]), c, colours[c["a"]]) for c in against]
    flips = [
        (f"{metric.label}, {shown_name(s)}", find(summary, s, metric), colours[s])
        for metric in shown("flips")
        if metric.kind == "share"
        for s in labels
    ]
    sets = (
        ("accuracy", f"Right answers, per cent of those that can be read, {summary['n']} questions", accuracy),
        ("difference", "Difference to base, points", differences),
        ("flips", "Answers that flip, per cent", flips),
    )
    found = [(name, title, [(label, i, colour) for label, i, colour in rows if i]) for name, title, rows in sets]
    return [entry for entry in found if entry[2]]


def _forest(title: str, rows: Rows) -> Any:
    figure, axes = _figure(6.0, 0.9 + 0.28 * len(rows))
    for place, (_, found, colour) in enumerate(reversed(rows)):
        value = 100 * found["estimate"]
        low, high = (100 * found[k] if found[k] is not None else value for k in ("low", "high"))
        axes.plot([low, high], [place, place], color=colour, linewidth=2.0, solid_capstyle="round")
        axes.plot([value], [place], "o", color=colour, markersize=5.5)
        axes.annotate(f"{value:.1f}", (1.02, place), xycoords=("axes fraction", "data"), va="center")
    axes.set_yticks(range(len(rows)), [row[0] for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_title(title)
    axes.grid(axis="x", color="#DDE1E5", linewidth=0.6)
    return figure


def _kinds(summary: Summary, systems: Sequence[str], colours: Mapping[str, str]) -> Any:
    """Accuracy by kind of question, the systems beside each other within a kind."""
    labels = ordered(summary, systems)
    names = sorted(set().union(*(summary["systems"][s].get("kinds", {}) for s in labels)))
    figure, axes = _figure(6.0, 0.9 + 0.2 * max(1, len(names)) * (1 + len(labels) / 3))
    for number, system in enumerate(labels):
        for place, name in enumerate(reversed(names)):
            found = summary["systems"][system].get("kinds", {}).get(name)
            if not found or found["estimate"] is None:
                continue
            y, value = place + 0.3 - 0.6 * (number + 0.5) / len(labels), 100 * found["estimate"]
            low, high = (100 * found[k] if found[k] is not None else value for k in ("low", "high"))
            axes.plot([low, high], [y, y], color=colours[system], linewidth=1.6)
            label = shown_name(system) if place == 0 else None
            axes.plot([value], [y], "osD^v"[number % 5], color=colours[system], markersize=4, label=label)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in reversed(names)])
    axes.set_title("Right answers by kind of question, per cent")
    axes.grid(axis="x", color="#DDE1E5", linewidth=0.6)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _training(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 5.0), layout="constrained")
    panels = figure.subplots(2, 3).flat
    for axes, (title, key, log) in zip(panels, CHARTS):
        for number, (label, points) in enumerate(curve_series(logs, key)):
            if points:
                steps, values = zip(*points)
                style = STYLES[number % len(STYLES)]
                axes.plot(steps, values, style, color=COLOURS[number % len(COLOURS)], label=shown_name(label))
        axes.set_title(title)
        axes.set_xlabel("step")
        if log:
            axes.set_yscale("log")
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _is_drawn(path: Path, key: str) -> bool:
    """Whether a whole figure of these numbers is there."""
    if not path.is_file():
        return False
    content = path.read_bytes()
    return key.encode() in content and content.rstrip().endswith(SUFFIXES[path.suffix][3])


def _save(figure: Any, path: Path, key: str) -> None:
    settings, facts, made_from, _ = SUFFIXES[path.suffix]
    with atomic(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], metadata=facts | {made_from: key}, **settings)
