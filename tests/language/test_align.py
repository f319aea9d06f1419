"""The shortest differing phrases: naive dynamic programming says how short they can be."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinalign.language.align import blocks, differing, pieces

WORDS = st.lists(st.sampled_from(["a", "no", "left", "right", "nodule", ",", "≤", "é", "."]), max_size=12)
TEXT = st.one_of(st.text(max_size=30), WORDS.map(" ".join))


@given(before=TEXT, after=TEXT)
def test_outside_the_ranges_the_texts_are_the_same(before: str, after: str) -> None:
    at, to, rest = 0, 0, []
    for start, end, first, last in blocks(before, after):
        assert before[at:start] == after[to:first]
        rest.append((before[start:end], after[first:last]))
        at, to = end, last
    assert before[at:] == after[to:]
    assert all(a != b for a, b in rest)
    assert (rest == []) == (before == after)


def _common(a: list[str], b: list[str]) -> int:
    """Length of a longest common subsequence, the naive way."""
    row = [0] * (len(b) + 1)
    for x in a:
        previous = row[:]
        for j, y in enumerate(b):
            row[j + 1] = previous[j] + 1 if x == y else max(previous[j + 1], row[j])
    return row[-1]


@given(before=WORDS, after=WORDS)
def test_no_shorter_phrases_would_do(before: list[str], after: list[str]) -> None:
    a, b = " ".join(before), " ".join(after)
    kept = len(pieces(a)[0]) - sum(len(pieces(a[s:e])[0]) for s, e, _, _ in blocks(a, b))
    assert kept >= _common(pieces(a)[0], pieces(b)[0])


@pytest.mark.parametrize(
    "before, after, old, new",
    [
        ("on the left side", "on the right side", ["left"], ["right"]),
        ("shows evidence of it", "shows no evidence of it", [], [" no"]),
        ("shows no evidence of it", "shows evidence of it", [" no"], []),
        ("A nodule.", "No nodule.", ["A"], ["No"]),
        ("left upper zone, large", "right lower zone, small", ["left upper", "large"], ["right lower", "small"]),
        ("clear.", "clear!", ["."], ["!"]),
        ("same", "same", [], []),
        ("", "new", [], ["new"]),
    ],
)
def test_examples(before: str, after: str, old: list[str], new: list[str]) -> None:
    a, b = differing(before, after)
    assert [before[s:e] for s, e in a] == old
    assert [after[s:e] for s, e in b] == new


def test_long_texts_stay_fast() -> None:
    rng = random.Random(0)
    a = [rng.choice("abcdefgh") for _ in range(1500)]
    b = [rng.choice("stuvwxyz") for _ in range(1500)]
    assert len(blocks(" ".join(a), " ".join(b))) == 1
