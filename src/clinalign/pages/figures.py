"""Small figures that follow the page's colours, light or dark: intervals, training curves, calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

Curve = Sequence[tuple[float, float]]


def intervals(rows: Sequence[tuple[str, float, float, float, str]], *, low: float, high: float) -> Markup:
    """A forest plot of plain boxes, so that its words keep their size on a phone. A row is (label, estimate, lower,
    upper, class); the axis runs from `low` to `high`.
    """

    def at(value: float) -> str:
        return f"{100 * (min(max(value, low), high) - low) / (high - low):.2f}%"

    ticks = _ticks(low, high, 5)
    grid = Markup("").join(
        Markup('<i class="gridline{}" style="left:{}"></i>').format(" zero" if t == 0 else "", at(t)) for t in ticks
    )
    body = Markup()
    for label, estimate, lower, upper, kind in rows:
        shown = f"{estimate:.1f}".replace("-", "−")
        words = f"{label}: {shown}, interval {lower:.1f} to {upper:.1f}".replace("-", "−")
        whisker = Markup('<i class="whisker" style="left:{};right:calc(100% - {})"></i>').format(at(lower), at(upper))
        dot = Markup('<i class="dot" style="left:{}"></i>').format(at(estimate))
        body += Markup(
            '<div class="frow {}" title="{}"><span class="flabel">{}</span><span class="track">{}{}{}</span>'
            '<span class="fvalue">{}</span></div>'
        ).format(kind, words, label, grid, whisker, dot, shown)
    marks = Markup("").join(
        Markup('<span style="left:{}">{}</span>').format(at(t), f"{t:g}".replace("-", "−")) for t in ticks
    )
    axis = Markup('<div class="frow faxis" aria-hidden="true"><span></span><span class="track">{}</span></div>')
    return Markup('<div class="forest">{}{}</div>').format(body, axis.format(marks))


def reliability(title: str, series: Sequence[tuple[str, Sequence[Mapping[str, float]]]]) -> Markup:
    """Reliability diagram: the share of yes over the probability of yes. A bin is {confidence, observed, n}."""
    size, left, bottom = 240, 40, 34
    side = size - 8

    def place(x: float, y: float) -> tuple[float, float]:
        return left + x * side, 22 + (1 - y) * side

    body = [f'<text class="title" x="{left}" y="14">{escape(title)}</text>']
    for tick in (0.0, 0.5, 1.0):
        (x, bottom_y), (right, y) = place(tick, 0.0), place(1.0, tick)
        body.append(f'<line class="grid" x1="{left}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(f'<text class="tick" x="{left - 6}" y="{y + 3:.1f}">{100 * tick:g}</text>')
        body.append(f'<text class="axis" x="{x:.1f}" y="{bottom_y + 14:.1f}">{100 * tick:g}</text>')
    (x0, y0), (x1, y1) = place(0.0, 0.0), place(1.0, 1.0)
    body.append(f'<line class="ideal" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>')
    for number, (name, bins) in enumerate(series):
        points = [place(b["confidence"], b["observed"]) for b in bins]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        body.append(f'<polyline class="line c{number}" points="{path}"><title>{escape(name)}</title></polyline>')
        body += [f'<circle class="point c{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points]
    axis = f'<text class="axis" x="{left + side / 2}" y="{side + bottom + 18}">probability of yes, per cent</text>'
    view = f"0 0 {left + side + 10} {side + bottom + 24}"
    return Markup(f'<svg class="chart square" viewBox="{view}" role="img">{"".join(body)}{axis}</svg>')


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


def tradeoff(
    tried: Sequence[tuple[float, float, bool]],
    read: Sequence[tuple[str, Mapping[str, float], Mapping[str, float]]],
    title: str = "right",
) -> Markup:
    """Accuracy, or the share that `title` names, over drift. `tried`: (drift, accuracy, on the frontier) of what was
    tried, small marks; `read`: name, drift and accuracy with intervals of what was read on test. The axis of the drift
    is that of its square root, so that small drifts stay apart, and ends at what was read: of what was tried beyond it
    the number is given. What has no estimate (no answer that can be read) has no mark; nothing is drawn for none."""
    width, height, left, bottom, top = 640, 360, 52, 40, 14
    read = [one for one in read if None not in (one[1]["estimate"], one[2]["estimate"])]
    if not read:
        return Markup()
    most = max(1e-6, *(1.5 * (drift["high"] or drift["estimate"]) for _, drift, _ in read))
    beyond, tried = sum(x > most for x, _, _ in tried), [one for one in tried if one[0] <= most]
    shares = [y for _, y, _ in tried] + [a[k] for _, _, a in read for k in ("low", "high") if a[k] is not None]
    shares += [accuracy["estimate"] for _, _, accuracy in read]
    low, high = 100 * min(shares), 100 * max(shares)
    low, high = (low - 1, high + 1) if high - low < 1 else (low, high)

    def x(drift: float) -> float:
        return left + math.sqrt(max(drift, 0.0) / most) * (width - left - 120)

    def y(share: float) -> float:
        return height - bottom - (100 * share - low) / (high - low) * (height - bottom - top)

    body = []
    for tick in _ticks(low, high, 5):
        at = y(tick / 100)
        body.append(f'<line class="grid" x1="{left}" x2="{width - 6}" y1="{at:.1f}" y2="{at:.1f}"/>')
        body.append(f'<text class="tick" x="{left - 6}" y="{at + 3:.1f}">{tick:g}</text>')
    for share in (0.0, 0.04, 0.25, 1.0):
        body.append(f'<text class="axis" x="{x(share * most):.1f}" y="{height - 22}">{share * most:.2g}</text>')
    body.append(
        f'<text class="axis" x="{width / 2:.0f}" y="{height - 4}">drift, nats a token (square-root scale)</text>'
    )
    body.append(f'<text class="title" x="4" y="{top - 2}">{escape(title)}, per cent</text>')
    for moved, share, best in tried:
        fill = "currentColor" if best else "none"
        body.append(f'<circle cx="{x(moved):.1f}" cy="{y(share):.1f}" r="3" fill="{fill}" stroke="currentColor"/>')
    if beyond:
        text = f"{beyond} tried {'setting drifts' if beyond == 1 else 'settings drift'} further"
        body.append(f'<text class="axis" x="{width - 80}" y="{top - 2}">{text}</text>')
    labels: list[float] = []
    for number, (name, drift, accuracy) in enumerate(read):
        at, level = x(drift["estimate"]), y(accuracy["estimate"])
        kind = f"c{number % 6}"
        if accuracy["low"] is not None:
            ends = f'y1="{y(accuracy["low"]):.1f}" y2="{y(accuracy["high"]):.1f}"'
            body.append(f'<line class="line {kind}" x1="{at:.1f}" x2="{at:.1f}" {ends}/>')
        if drift["low"] is not None:
            ends = f'x1="{x(drift["low"]):.1f}" x2="{x(drift["high"]):.1f}"'
            body.append(f'<line class="line {kind}" y1="{level:.1f}" y2="{level:.1f}" {ends}/>')
        body.append(f'<circle class="point {kind}" cx="{at:.1f}" cy="{level:.1f}" r="6"/>')
        line = level - 7
        while any(abs(line - other) < 12 for other in labels):  # names that would lie upon each other
            line += 3
        labels.append(line)
        body.append(f'<text x="{at + 9:.1f}" y="{line:.1f}" font-size="12">{escape(name)}</text>')
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
