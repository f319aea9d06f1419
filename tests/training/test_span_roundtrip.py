"""Characters to tokens and back, on 10 000 random edits: what training marks is what the corpus says."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from clinalign.language.offsets import decode, token_offsets
from clinalign.pairs.spans import edited_ids
from clinalign.training.encode import span_tokens

sys.path.insert(0, str(Path(__file__).parents[1] / "language"))
sys.path.insert(0, str(Path(__file__).parents[1] / "pairs"))
from test_spans import TOKENIZERS, WORDS, mutate, sample

EDITS = (1_000, pytest.param(5_000, marks=pytest.mark.slow))


def characters(tokenizer, ids: list[int], text: str, marked: list[bool]) -> list[list[int]]:
    """The character ranges of the marked tokens, joined where they touch."""
    lead = decode(tokenizer, ids).index(text)
    out: list[list[int]] = []
    for (start, end), mark in zip(token_offsets(tokenizer, ids), marked, strict=True):
        start, end = max(0, start - lead), min(len(text), end - lead)
        if not mark or start >= end:
            continue
        if out and start <= out[-1][1]:
            out[-1][1] = max(end, out[-1][1])
        else:
            out.append([start, end])
    return out


@pytest.mark.parametrize("edits", EDITS)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_characters_tokens_characters(name: str, edits: int) -> None:
    """Each side's spans, as tokens, hold every character of the spans and no token beside them; the characters of these
    tokens give the same tokens again, and spans that end at token borders come back exactly."""
    tokenizer, rng = TOKENIZERS[name](), random.Random(f"{name}/round trip")
    done = exact = 0
    while done < edits:
        words = [rng.choice([" ", " ", " ", "", "  "]) + rng.choice(WORDS) for _ in range(rng.randint(1, 12))]
        ids = sample(tokenizer, "".join(words).strip(), rng)
        own = decode(tokenizer, ids).strip()
        new = mutate(own, rng)
        if not own or not new or own == new:
            continue
        made = edited_ids(tokenizer, ids, own, new)
        for text, side, spans in ((own, ids, made.chosen_spans), (new, made.ids, made.rejected_spans)):
            ranges = [list(span) for span in spans]
            marked = span_tokens(tokenizer, side, text, ranges)
            back = characters(tokenizer, side, text, marked)
            assert all(any(a <= start and end <= b for a, b in back) for start, end in ranges)
            lead = decode(tokenizer, side).index(text)
            for (start, end), mark in zip(token_offsets(tokenizer, side), marked, strict=True):
                touches = start < end and any(start - lead < b and a < end - lead for a, b in ranges)
                assert mark == touches
            assert span_tokens(tokenizer, side, text, back) == marked
            exact += back == ranges
        done += 1
    assert exact > edits  # of 2 x edits sides, most have spans that end at token borders
