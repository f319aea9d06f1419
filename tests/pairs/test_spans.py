"""Token ids of edited answers: exactly the sampled ids outside the spans, for two kinds of tokenizer."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from clinalign.errors import RowError
from clinalign.language.offsets import decode, token_offsets
from clinalign.pairs.spans import Edited, edited_ids

sys.path.insert(0, str(Path(__file__).parents[1] / "language"))
from tokenizers_small import CORPUS, byte_level, sentencepiece

TOKENIZERS = {"byte_level": byte_level, "sentencepiece": sentencepiece}
WORDS = (
    "left right a an no small large nodule effusion, (see) There is pneumothorax — naïve ≤5 mm. 🫁 T2-weighted "
    "isn't\n x-ray ( ) upper"
).split(" ")
EDITS = (1_000, pytest.param(5_000, marks=pytest.mark.slow))


def outside(tokenizer: Any, ids: Sequence[int], spans: Sequence[Sequence[int]], text: str) -> list[int]:
    """The ids that overlap no span, EOS included."""
    lead = decode(tokenizer, ids).index(text)
    ranges = token_offsets(tokenizer, ids)
    return [i for i, (a, b) in zip(ids, ranges) if not any(a - lead < end and start < b - lead for start, end in spans)]


def cut(text: str, spans: Sequence[Sequence[int]]) -> str:
    out, at = [], 0
    for start, end in spans:
        out.append(text[at:start])
        at = end
    return "".join([*out, text[at:]])


def check(tokenizer: Any, ids: list[int], own: str, new: str) -> Edited:
    made = edited_ids(tokenizer, ids, own, new)
    assert decode(tokenizer, made.ids).strip() == new
    assert outside(tokenizer, ids, made.chosen_spans, own) == outside(tokenizer, made.ids, made.rejected_spans, new)
    assert cut(own, made.chosen_spans) == cut(new, made.rejected_spans)
    assert made.ids[-1] == ids[-1] == tokenizer.eos_token_id
    return made


def sample(tokenizer: Any, text: str, rng: random.Random) -> list[int]:
    """Ids as a model may sample them: sometimes a word in other pieces than the tokenizer would choose."""
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if rng.random() < 0.3 and len(text) > 4:
        at = rng.randrange(1, len(text))
        parts = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text[:at], text[at:])]
        ids = [i for part in parts for i in part]
    return [*ids, tokenizer.eos_token_id]


def mutate(text: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(text))
        end = min(len(text), at + rng.choice([0, 0, 1, 3, 6]))
        new = rng.choice(["", "", " ", "no ", " left", "right", "é", "🫁", "x", ". ", rng.choice(WORDS)])
        text = text[:at] + new + text[end:]
    return text.strip()


@pytest.mark.parametrize("edits", EDITS)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_random_edits_keep_the_sampled_ids(name: str, edits: int) -> None:
    tokenizer = TOKENIZERS[name]()
    rng = random.Random(name)
    done = 0
    for _ in range(edits):
        words = [rng.choice([" ", " ", " ", "", "  "]) + rng.choice(WORDS) for _ in range(rng.randint(1, 12))]
        ids = sample(tokenizer, "".join(words).strip(), rng)
        own = decode(tokenizer, ids).strip()
        new = mutate(own, rng)
        if own and new:
            check(tokenizer, ids, own, new)
            done += 1
    assert done > 0.95 * edits


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_swapped_word_is_one_span_and_one_place(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    own = CORPUS[0]
    ids = [*tokenizer(own, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    new = own.replace("left", "right").replace("a small", "no small")
    made = check(tokenizer, ids, own, new)
    assert [own[s:e] for s, e in made.chosen_spans] == ["a", "left"]
    assert [new[s:e] for s, e in made.rejected_spans] == ["no", "right"]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_insertions_and_deletions_have_a_span_on_one_side(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    own, new = CORPUS[3], CORPUS[3].replace("shows evidence", "shows no evidence")
    ids = [*tokenizer(own, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    made = check(tokenizer, ids, own, new)
    assert made.chosen_spans == [] and [new[s:e] for s, e in made.rejected_spans] == [" no"]
    back = check(tokenizer, made.ids, new, own)
    assert back.ids == ids and back.rejected_spans == [] and len(back.chosen_spans) == 1


def test_a_leading_space_of_the_sampled_text_is_kept() -> None:
    """A model that answers after "ASSISTANT:" begins with " There", and the text is stored without the space."""
    tokenizer = byte_level()
    ids = [*tokenizer(" There is a nodule.", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    made = edited_ids(tokenizer, ids, "There is a nodule.", "Here is no nodule.")
    assert decode(tokenizer, made.ids) == " Here is no nodule."
    assert made.chosen_spans == [[0, 5], [9, 10]] and made.rejected_spans == [[0, 4], [8, 10]]


def test_ids_that_spell_another_text_are_refused() -> None:
    tokenizer = byte_level()
    ids = tokenizer("There is a nodule.", add_special_tokens=False)["input_ids"]
    with pytest.raises(RowError) as error:
        edited_ids(tokenizer, ids, "There is a mass.", "There is no mass.")
    assert error.value.reason == "text_mismatch"


def test_encoding_the_edited_text_afresh_would_change_other_ids() -> None:
    """Why all this: an answer sampled in unusual pieces is not what the tokenizer makes of its text."""
    tokenizer = byte_level()
    parts = ["There is a sm", "all nodule on the left side."]
    ids = [i for part in parts for i in tokenizer(part, add_special_tokens=False)["input_ids"]]
    ids.append(tokenizer.eos_token_id)
    made = check(tokenizer, ids, "".join(parts), "".join(parts).replace("left", "right"))
    afresh = tokenizer(decode(tokenizer, made.ids), add_special_tokens=False)["input_ids"]
    assert made.ids[:-1] != afresh
