"""Text for the page: every string is escaped here or by the template; edits and differences become <mark>."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

FULL_SHADE = 2.0
"""Reward in nats at which a token has its full shade."""
FAINT = 0.05
"""Rewards below this are not shaded."""


def spans_marked(text: str, spans: Sequence[Sequence[int]], kind: str) -> Markup:
    """The text with its character spans in `<mark class=kind>`, space before the words left out of the mark; an empty
    span shows as a caret.
    """
    out, at = Markup(), 0
    for start, end in sorted((int(s), int(e)) for s, e in spans):
        first = _first(text, start, end)
        inner = escape(text[first:end]) if end > first else Markup("&#8248;")
        out += escape(text[at:first]) + Markup('<mark class="{}">{}</mark>').format(kind, inner)
        at = end
    return out + escape(text[at:])


def difference(before: str, after: str) -> tuple[Markup, Markup]:
    """Both texts with the words that differ marked: `<del>` in the first, `<ins>` in the second."""
    left, right = re.findall(r"\s*\S+", before), re.findall(r"\s*\S+", after)
    words = difflib.SequenceMatcher(None, [w.strip() for w in left], [w.strip() for w in right], autojunk=False)
    out = [Markup(), Markup()]
    for tag, i1, i2, j1, j2 in words.get_opcodes():
        for side, (tokens, lo, hi, name) in enumerate(((left, i1, i2, "del"), (right, j1, j2, "ins"))):
            chunk = "".join(tokens[lo:hi])
            if tag == "equal" or not chunk:
                out[side] += escape(chunk)
            else:
                space = chunk[: len(chunk) - len(chunk.lstrip())]
                out[side] += escape(space) + Markup(f"<{name}>{{}}</{name}>").format(chunk.lstrip())
    return out[0], out[1]


def shaded(text: str, tokens: Sequence[Sequence[Any]]) -> Markup:
    """The text with every token shaded by its reward; `tokens` are [start, end, reward in nats]. A token likelier than
    under the base is underlined, one less likely has a dotted line, so that colour is not needed to tell.
    """
    out, at = Markup(), 0
    for start, end, reward in tokens:
        if start < at or end <= start or abs(reward) < FAINT:
            continue
        kind, depth = ("up" if reward > 0 else "down"), min(1.0, abs(reward) / FULL_SHADE)
        token = Markup('<span class="tok {}" style="--d:{}" title="{} nats">{}</span>')
        shown = f"{reward:+.2f}".replace("-", "−")
        first = _first(text, start, end)
        out += escape(text[at:first]) + token.format(kind, f"{depth:.2f}", shown, text[first:end])
        at = end
    return out + escape(text[at:])


def _first(text: str, start: int, end: int) -> int:
    """Where the words of a range begin: behind its leading space, unless it is nothing but space."""
    inner = text[start:end]
    return end - len(inner.lstrip()) if inner.strip() else start


def percent(value: float | None, digits: int = 1) -> str:
    """A share as per cent; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def points(value: float | None) -> str:
    """A difference of shares in points, with its sign."""
    return "–" if value is None else f"{100 * value:+.1f}".replace("-", "−")


def p_value(value: float | None) -> str:
    """A p-value as a reader expects it."""
    return "–" if value is None else ("<0.001" if value < 0.001 else f"{value:.3f}")
