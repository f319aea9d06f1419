"""Trained ids are the sampled ids: in every pair, on two kinds of tokenizer, from the answer to the training batch."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from clinalign.language.offsets import decode
from clinalign.pairs import PairOptions, build_pairs
from clinalign.storage import Quarantine
from clinalign.training.encode import span_tokens

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "language"))
from test_build_pairs import phantoms
from test_spans import TOKENIZERS, cut, outside


def spelt(tokenizer, text: str, rng: random.Random) -> list[int]:
    """Ids that spell a text as a model may: now and then a word in single characters."""
    words = text.split(" ")
    at = rng.randrange(1, len(words)) if rng.random() < 0.4 and len(words) > 1 else len(words)
    ids = list(tokenizer(" ".join(words[:at]), add_special_tokens=False)["input_ids"])
    for word in words[at:]:
        mark = tokenizer.convert_tokens_to_ids("\u2581" if "\u2581" in tokenizer.get_vocab() else "\u0120")
        ids += [mark, *(tokenizer.convert_tokens_to_ids(character) for character in word)]
    if decode(tokenizer, ids) != text:  # a character that is no entry of its own
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return [*ids, tokenizer.eos_token_id]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_in_every_pair_the_own_side_has_the_sampled_ids_and_the_other_has_them_outside_its_spans(
    name: str, tmp_path: Path
) -> None:
    tokenizer, rng = TOKENIZERS[name](), random.Random(name)
    examples, answers = phantoms(40)
    answers = [replace(a, token_ids=spelt(tokenizer, a.text, rng)) for a in answers]
    quarantine = Quarantine(tmp_path / "q.jsonl")
    pairs = build_pairs(examples, answers, tokenizer, PairOptions(), quarantine)
    sampled = {a.example_id: a.token_ids for a in answers}
    assert len(pairs) > 400 and not [r for r in quarantine.rows if r["reason"] in ("text_mismatch", "token_mismatch")]
    unusual = 0
    for pair in pairs:
        sides = {
            "chosen": (pair.chosen_token_ids, pair.chosen, pair.chosen_spans),
            "rejected": (pair.rejected_token_ids, pair.rejected, pair.rejected_spans),
        }
        own = sides.pop(pair.own)
        (other,) = sides.values()
        assert own[0] == sampled[pair.example_id]
        assert outside(tokenizer, own[0], own[2], own[1]) == outside(tokenizer, other[0], other[2], other[1])
        assert cut(own[1], own[2]) == cut(other[1], other[2])
        for ids, text, spans in (own, other):
            assert any(span_tokens(tokenizer, ids, text, spans)) or not spans
        unusual += own[0][:-1] != list(tokenizer(own[1], add_special_tokens=False)["input_ids"])
    assert unusual > 0.1 * len(pairs)  # encoding the text again would not have given these ids
