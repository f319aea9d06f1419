"""Answers encoded afresh end as the model's own do, so that the last token tells nothing about the sides."""

from pathlib import Path
from typing import Any

import pytest
import tiny

from clinalign.language.offsets import answer_end
from clinalign.measuring.drift import _answer
from clinalign.measuring.evidence import paired
from clinalign.pairs.off_policy import dataset_pairs, reference_pairs
from clinalign.pairs.options import PairOptions
from clinalign.records import Answer, Example
from clinalign.storage import Quarantine
from clinalign.training.encode import truth_pairs
from clinalign.training.options import TextualOptions, TrainOptions
from clinalign.training.reinforce import _Stage

TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{{ '<end_of_turn>\\n' }}{% endfor %}"
)


@pytest.fixture
def gemma():
    """A tokenizer whose EOS is </s> and whose template ends each turn with a token of its own, as Gemma 3's does."""
    tokenizer = tiny.tiny("gemma3").tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end_of_turn>"]})
    tokenizer.chat_template = TURNS
    return tokenizer


def example() -> Example:
    return Example(
        id="1", images=[], question="Is there an effusion?", answer="no", task="closed", split="align",
        rejected="Yes.",
    )  # fmt: skip


def test_the_end_is_the_templates(gemma) -> None:
    turn = gemma.convert_tokens_to_ids("<end_of_turn>")
    assert answer_end(gemma) == turn
    assert answer_end(gemma, "{% for m in messages %}{{ m['content'] }} </s>{% endfor %}") == gemma.eos_token_id
    for template in (None, "{{ raise_exception('no') }}", "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"):
        gemma.chat_template = template
        assert answer_end(gemma) == gemma.eos_token_id, "a template without an end of its own"


def test_pairs_end_as_the_template_does(gemma, tmp_path) -> None:
    quarantine, turn = Quarantine(tmp_path / "q.jsonl"), gemma.convert_tokens_to_ids("<end_of_turn>")
    [given] = dataset_pairs([example()], gemma, PairOptions(editor="dataset"), quarantine)
    assert given.chosen_token_ids[-1] == given.rejected_token_ids[-1] == turn
    [truth] = truth_pairs([example()], gemma, answer_end(gemma))
    assert truth.chosen_token_ids[-1] == turn


def test_what_a_model_is_scored_and_mended_with_ends_as_its_turns_do(gemma: Any) -> None:
    """A model that stops at both, its EOS first, as Gemma's [1, 106]: answers encoded from words end in the turn's."""
    vlm = tiny.tiny("gemma3")
    turn = gemma.convert_tokens_to_ids("<end_of_turn>")
    vlm.tokenizer = vlm.processor.tokenizer = gemma
    vlm.processor.chat_template = TURNS
    vlm.model.generation_config.eos_token_id = [gemma.eos_token_id, turn]
    assert vlm.end_id == turn != vlm.eos_ids[0]
    asked = example()
    own = paired(vlm, asked, "There is an effusion.", {})
    assert own.pair is not None and own.pair.answer[-1] == own.pair.counterfactual[-1] == turn
    assert _answer(vlm, own)[0][-1] == turn
    stage = _Stage(vlm, "textual", TextualOptions(), TrainOptions(), [asked], None, Path(), 0)  # type: ignore[arg-type]
    assert stage._encode("No effusion.")[-1] == turn
    vlm.model.generation_config.eos_token_id = gemma.eos_token_id
    assert vlm.end_id == gemma.eos_token_id, "a model that does not stop at the turn's end"


@pytest.mark.parametrize("end", ["<end_of_turn>", "</s>", "<end_of_image>"])
def test_a_reference_ends_as_the_answer_it_faces(gemma, tmp_path, end: str) -> None:
    own = gemma("Yes, an effusion.", add_special_tokens=False)["input_ids"] + [gemma.convert_tokens_to_ids(end)]
    answer = Answer("1", "m", 0, "Is there an effusion?", "Yes, an effusion.", own, "stop", "greedy", 0)
    [pair] = reference_pairs([example()], [answer], gemma, Quarantine(tmp_path / "q.jsonl"))
    assert pair.chosen_token_ids[-1] == pair.rejected_token_ids[-1] == gemma.convert_tokens_to_ids(end)
