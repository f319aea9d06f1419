"""The shortest phrases in which two texts differ, as character ranges."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

Spans = list[tuple[int, int]]

_TOKEN = re.compile(r"\s*(?:\w+|[^\w\s])|\s+$")
MAX_EDITS = 400


@dataclass(frozen=True, slots=True)
class Edit:
    """The changed text and where it differs, as character ranges into the side that a pair prefers and the other one.

    `was_correct`: the text before was right, so that the edit is the counterfactual. `kind`: what was turned
    ("presence", "side", "zone", "size", "finding", "letter", ..., for reports several joined by "+").
    """

    text: str
    chosen_spans: Spans
    rejected_spans: Spans
    was_correct: bool
    kind: str

    @classmethod
    def between(cls, own: str, new: str, was_correct: bool, kind: str) -> Edit:
        """The edit that makes `new` of `own`: a right text is the chosen side, a wrong one the rejected."""
        own_spans, new_spans = differing(own, new)
        sides = (own_spans, new_spans) if was_correct else (new_spans, own_spans)
        return cls(new, *sides, was_correct, kind)


def pieces(text: str) -> tuple[list[str], list[int]]:
    """Words and marks, each with the white space before it, and where each begins; last comes the text's length."""
    found = [m.group() for m in _TOKEN.finditer(text)]
    starts, at = [], 0
    for piece in found:
        starts.append(at)
        at += len(piece)
    return found, [*starts, len(text)]


@lru_cache(maxsize=1024)
def blocks(before: str, after: str) -> tuple[tuple[int, int, int, int], ...]:
    """Differing character ranges (start, end in `before`, start, end in `after`), in order.

    Outside the ranges the texts are identical. White space that both sides share is left out of a range; an inserted
    or deleted word keeps the space in front of it.
    """
    a, a_at = pieces(before)
    b, b_at = pieces(after)
    out = []
    for i, j, k, n in _changed(a, b):
        start, end, first, last = a_at[i], a_at[j], b_at[k], b_at[n]
        if i < j and k < n:
            while start < end and first < last and before[start] == after[first] and before[start].isspace():
                start, first = start + 1, first + 1
        out.append((start, end, first, last))
    return tuple(out)


def differing(before: str, after: str) -> tuple[Spans, Spans]:
    """Character ranges of the differing phrases in each text; an insertion has a range in `after` alone."""
    found = blocks(before, after)
    return [(s, e) for s, e, _, _ in found if s < e], [(s, e) for _, _, s, e in found if s < e]


def deletions(
    text: str, spans: Sequence[Sequence[int]], other: str, others: Sequence[Sequence[int]]
) -> list[tuple[int, int]]:
    """Where the other text says something and this one nothing: the place here and where it begins there, in order.

    `spans` and `others` are the differing ranges of the two, empty ones or none where a text has nothing. No place is
    known where the texts differ outside of them too.
    """
    mine, theirs = (sorted((s, e) for s, e in ranges if s < e) for ranges in (spans, others))
    if _outside(text, mine) != _outside(other, theirs):
        return []
    here, there = _shared_before(mine), _shared_before(theirs)
    found = []
    for (start, _), at in zip(theirs, there, strict=True):
        if at not in here:
            said = sum(e - s for (s, e), before in zip(mine, here, strict=True) if before < at)
            found.append((at + said, start))
    return found


def _outside(text: str, spans: Spans) -> str:
    ends = [0, *(end for _, end in spans)]
    starts = [*(start for start, _ in spans), len(text)]
    return "".join(text[end:start] for end, start in zip(ends, starts, strict=True))


def _shared_before(spans: Spans) -> list[int]:
    """How many characters outside the spans stand before each of them."""
    out, inside = [], 0
    for start, end in spans:
        out.append(start - inside)
        inside += end - start
    return out


def _changed(a: list[str], b: list[str]) -> list[tuple[int, int, int, int]]:
    head = 0
    while head < len(a) and head < len(b) and a[head] == b[head]:
        head += 1
    tail = 0
    while tail < len(a) - head and tail < len(b) - head and a[-1 - tail] == b[-1 - tail]:
        tail += 1
    x, y = a[head : len(a) - tail], b[head : len(b) - tail]
    if not x and not y:
        return []
    if not x or not y:
        return [(head, head + len(x), head, head + len(y))]
    return [(i + head, j + head, k + head, n + head) for i, j, k, n in _between(_matches(x, y), len(x), len(y))]


def _between(matches: list[tuple[int, int]], n: int, m: int) -> list[tuple[int, int, int, int]]:
    out, i, k = [], 0, 0
    for x, y in [*matches, (n, m)]:
        if x > i or y > k:
            out.append((i, x, k, y))
        i, k = x + 1, y + 1
    return out


def _matches(a: list[str], b: list[str]) -> list[tuple[int, int]]:
    """A longest common subsequence as index pairs (Myers 1986, greedy O(ND)); none kept past `MAX_EDITS` edits."""
    reach = {1: 0}
    trail: list[dict[int, int]] = []
    for edits in range(min(len(a) + len(b), MAX_EDITS) + 1):
        trail.append(dict(reach))
        for k in range(-edits, edits + 1, 2):
            down = k == -edits or (k != edits and reach[k - 1] < reach[k + 1])
            x = reach[k + 1] if down else reach[k - 1] + 1
            y = x - k
            while x < len(a) and y < len(b) and a[x] == b[y]:
                x, y = x + 1, y + 1
            reach[k] = x
            if x >= len(a) and y >= len(b):
                return _walk_back(trail, len(a), len(b), edits)
    return []


def _walk_back(trail: list[dict[int, int]], x: int, y: int, edits: int) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for d in range(edits, -1, -1):
        reach, k = trail[d], x - y
        down = k == -d or (k != d and reach[k - 1] < reach[k + 1])
        came = k + 1 if down else k - 1
        x0 = reach[came] if d else 0
        y0 = x0 - came if d else 0
        while x > x0 and y > y0 and (d == 0 or (x > (x0 if down else x0 + 1) and y > (y0 + 1 if down else y0))):
            x, y = x - 1, y - 1
            out.append((x, y))
        x, y = x0, y0
    return out[::-1]


def words(text: str) -> list[str]:
    """Words and punctuation marks without white space."""
    return re.findall(r"\w+|[^\w\s]", text)
