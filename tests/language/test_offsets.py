"""Token offsets come from the ids, for two kinds of tokenizer, unicode and unusual spellings included."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinalign.language.offsets import _from_prefixes, decode, token_offsets

sys.path.insert(0, str(Path(__file__).parent))
from tokenizers_small import CORPUS, byte_level, sentencepiece

TOKENIZERS = {"byte_level": byte_level, "sentencepiece": sentencepiece}


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.sampled_from(CORPUS), st.text(min_size=1, max_size=40)))
def test_the_ranges_tile_the_text(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    whole = decode(tokenizer, ids)
    ranges = token_offsets(tokenizer, ids)
    assert len(ranges) == len(ids)
    covered = [False] * len(whole)
    for begin, end in ranges:
        covered[begin:end] = [True] * (end - begin)
    assert all(covered)
    assert [r[0] for r in ranges] == sorted(r[0] for r in ranges)
    assert ranges[-1][0] == ranges[-1][1] == len(whole)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_unusual_spelling_of_a_word_keeps_its_own_borders(name: str) -> None:
    """`le` + `ft` sampled one piece at a time: encoding the text again would give other ids."""
    tokenizer = TOKENIZERS[name]()
    ids = [i for part in ("The le", "ft") for i in tokenizer(part, add_special_tokens=False)["input_ids"]]
    if name == "sentencepiece":
        ids = tokenizer.convert_tokens_to_ids(["▁The", "▁", "l", "e", "f", "t"])
    ranges = token_offsets(tokenizer, ids)
    text = decode(tokenizer, ids)
    assert text == "The left"
    assert "".join(text[a:b] for a, b in ranges) == text
    assert len(ids) != len(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_fast_and_slow_agree(name: str) -> None:
    """The prefix decoder is the naive form."""
    tokenizer = TOKENIZERS[name]()
    rng = random.Random(0)
    plain = [i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids]
    plain = [i for i in plain if tokenizer.convert_ids_to_tokens(i).isascii() or name == "sentencepiece"]
    plain = [i for i in plain if not tokenizer.convert_ids_to_tokens(i).startswith("<0x")]
    for _ in range(100):
        ids = [rng.choice(plain) for _ in range(rng.randint(1, 12))] + [tokenizer.eos_token_id]
        assert token_offsets(tokenizer, ids) == _from_prefixes(tokenizer, ids, decode(tokenizer, ids))


def test_a_character_of_several_tokens_belongs_to_all_of_them() -> None:
    tokenizer = sentencepiece()
    ids = tokenizer.convert_tokens_to_ids(["▁a", "<0xE2>", "<0x89>", "<0xA4>", "▁a"])
    assert decode(tokenizer, ids) == "a≤ a"
    assert token_offsets(tokenizer, ids) == [(0, 1), (1, 2), (1, 2), (1, 2), (2, 4)]
