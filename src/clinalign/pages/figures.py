"""Small SVG figures that follow the page's colours, light or dark: intervals and training curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

Curve = Sequence[tuple[float, float]]


def intervals(rows: Sequence[tuple[str, float, float, float, str]], *, low: float, high: float, unit: str) -> Markup:
    """A forest plot. A row is (label, estimate, lower, upper, class); the axis runs from `low` to `high`."""
    left, width, height = 170, 560, 30

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * width

    body = []
    for tick in _ticks(low, high):
        body.append(
            f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="6" y2="{height * len(rows) + 8}"/>'
            f'<text class="axis" x="{x(tick):.1f}" y="{height * len(rows) + 24}">{tick:g}{escape(unit)}</text>'
        )
    for row, (label, estimate, lower, upper, kind) in enumerate(rows):
        y = height * row + 22
        shown = f"{estimate:.1f}".replace("-", "−")
        body.append(
            f'<g class="{escape(kind)}"><text class="label" x="{left - 12}" y="{y + 4}">{escape(label)}</text>'
            f'<line class="whisker" x1="{x(max(lower, low)):.1f}" x2="{x(min(upper, high)):.1f}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{x(estimate):.1f}" cy="{y}" r="5.5"/>'
            f'<text class="value" x="{left + width + 12}" y="{y + 4}">{shown}</text></g>'
        )
    view = f"0 0 {left + width + 70} {height * len(rows) + 32}"
    return Markup(f'<svg class="forest" viewBox="{view}" role="img">{"".join(body)}</svg>')


def curves(title: str, series: Sequence[tuple[str, Curve]], *, log: bool = False) -> Markup:
    """One small chart of several curves over the training step; `log` for a logarithmic vertical axis."""
    width, height, left, bottom = 320, 170, 44, 22
    kept = [(name, [(s, v) for s, v in points if math.isfinite(v) and (not log or v > 0)]) for name, points in series]
    kept = [(name, points) for name, points in kept if points]
    if not kept:
        return Markup()
    values = [math.log10(v) if log else v for _, points in kept for _, v in points]
    low, high = min(values), max(values)
    high = high if high > low else low + 1
    steps = max(s for _, points in kept for s, _ in points) or 1

    def place(step: float, value: float) -> str:
        y = (math.log10(value) if log else value) - low
        return (
            f"{left + step / steps * (width - left - 6):.1f},{height - bottom - y / (high - low) * (height - 46):.1f}"
        )

    body = [f'<text class="title" x="{left}" y="14">{escape(title)}</text>']
    for tick in _ticks(low, high, 4):
        y = height - bottom - (tick - low) / (high - low) * (height - 46)
        shown = f"{10**tick:.2g}" if log else f"{tick:g}"
        body.append(f'<line class="grid" x1="{left}" x2="{width - 6}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(f'<text class="tick" x="{left - 6}" y="{y + 3:.1f}">{shown}</text>')
    body.append(f'<text class="axis" x="{(left + width) / 2}" y="{height - 4}">step (of {steps:g})</text>')
    for number, (name, points) in enumerate(kept):
        path = " ".join(place(step, value) for step, value in points)
        body.append(f'<polyline class="line c{number}" points="{path}"><title>{escape(name)}</title></polyline>')
    return Markup(f'<svg class="chart" viewBox="0 0 {width} {height}" role="img">{"".join(body)}</svg>')


def smoothed(curve: Curve, window: int = 9) -> list[tuple[float, float]]:
    """Centred moving average, so that a curve of single batches can be read."""
    half = window // 2
    values = [value for _, value in curve]
    means = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [(step, sum(near) / len(near)) for (step, _), near in zip(curve, means)]


def _ticks(low: float, high: float, about: int = 6) -> list[float]:
    raw = (high - low) / about
    scale = 10 ** math.floor(math.log10(raw))
    step = next(m * scale for m in (1, 2, 2.5, 5, 10) if m * scale >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]
