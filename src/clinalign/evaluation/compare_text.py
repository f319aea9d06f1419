"""The table of `clinalign compare` as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

BESIDE = ("closed", "open", "balanced", "yes-rate", "words", "unanswered", "unparsable")
KEYS = ("accuracy_closed", "accuracy_open", "balanced_accuracy", "yes_rate", "words", "unanswered", "unparsable")


def as_text(result: Mapping[str, Any]) -> str:
    """A table for each suite with what has to be read beside an accuracy, and a line on what the tests say."""
    runs = ", ".join(result["runs"])
    blocks = [f"{runs}: {result['n']} questions, {result['patients']} patients; per cent, 95 % intervals by patient"]
    if result["level"] != 0.95:
        blocks[0] = blocks[0].replace("95", f"{100 * result['level']:g}")
    for name, suite in result["suites"].items():
        title = f"{name or 'unnamed'} ({suite['n']} questions, {suite['patients']} patients)"
        header = [title, "accuracy", *BESIDE]
        rows = [_row(label, cell, suite["metric"], result) for label, cell in suite["cells"].items()]
        blocks.append("\n".join([*_aligned([header, *rows]), *_said(suite)]))
    return "\n\n".join(blocks)


def _row(label: str, cell: Mapping[str, Any], metric: str, result: Mapping[str, Any]) -> list[str]:
    number = len(result["systems"][label]["seeds"])
    shown = f"{label} ({number} seeds)" if number > 1 else label
    metrics = cell["metrics"]
    score = _interval(metrics.get(metric)) + (" *" if cell["best"] else "")
    return [shown, score, *(_plain(metrics.get(key), key) for key in KEYS)]


def _interval(found: Mapping[str, Any] | None) -> str:
    if not found or found["estimate"] is None:
        return "-"
    text = f"{100 * found['estimate']:.1f}"
    return text if found["low"] is None else f"{text} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def _plain(found: Mapping[str, Any] | None, key: str) -> str:
    if not found or found["estimate"] is None:
        return "-"
    return f"{found['estimate'] if key == 'words' else 100 * found['estimate']:.1f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    out = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), row[1].ljust(widths[1])]
        out.append("  ".join([*cells, *(c.rjust(w) for c, w in zip(row[2:], widths[2:], strict=True))]).rstrip())
    return out


def _said(suite: Mapping[str, Any]) -> list[str]:
    """What the tests say: who is best, or whom the highest system cannot be told from."""
    cells, metric = suite["cells"], suite["metric"]
    best = next((label for label, cell in cells.items() if cell["best"]), None)
    if best is not None:
        return [f"* {best} is better than every other system after Holm's correction"]
    scores = {label: cell["metrics"].get(metric, {}).get("estimate") for label, cell in cells.items()}
    scored = [label for label in scores if scores[label] is not None]
    if len(scored) < 2:
        return []
    top = max(scored, key=lambda label: scores[label] or 0.0)
    lines = ["no system is marked best; after Holm's correction the highest cannot be told from"]
    for test in suite["tests"]:
        pair = {test["a"], test["b"]}
        if top in pair and not cells[(pair - {top}).pop()]["behind"]:
            lines.append(f"  {_difference(test, top)}")
    return lines


def _difference(test: Mapping[str, Any], top: str) -> str:
    sign = 1 if test["a"] == top else -1
    other = test["b"] if test["a"] == top else test["a"]
    ends = sorted(100 * sign * test[key] for key in ("low", "high") if test[key] is not None)
    within = f" [{ends[0]:+.1f}, {ends[1]:+.1f}]" if ends else ""
    least = test["minimum_detectable"]
    reach = f"; this set would show {100 * least:.1f}" if least is not None else ""
    p = "-" if test["p_holm"] is None else f"{test['p_holm']:.2g}"
    return f"{other}: {top} is higher by {100 * sign * test['estimate']:.1f}{within}, p {p}{reach}"
