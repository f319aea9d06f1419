"""A card that is not here: FLOPs by the published formula, worked by hand; the settings that fit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from clinalign.errors import UsageError
from clinalign.training.batches import ScoringPlan
from clinalign.training.cards import CARDS, RUNTIME, Work, card_named, proposals, seconds_on
from clinalign.training.options import TrainOptions

VICUNA = SimpleNamespace(
    hidden_size=4096, num_hidden_layers=32, intermediate_size=11008, vocab_size=32064, num_attention_heads=32,
    num_key_value_heads=32,
)  # fmt: skip
LLAVA = SimpleNamespace(get_text_config=lambda: VICUNA)
BOTH = ("chosen", "rejected")


def test_a_step_of_llava_costs_what_the_formula_says() -> None:
    """Prompt 626 (576 of the image), answers of 120, chosen and rejected clean and chosen corrupted: T = 866 and 746.
    Nb = 32 (4 d^2 + 3 d 11008) = 6.476e9. F = 2 Nb 1612 + 2 32 d (866^2 + 746^2) = 20.879e12 + 0.342e12 = 21.22e12;
    a LoRA step is 2 F = 42.44e12, the head 6 * 360 * d * 32064 = 0.284e12: 42.73e12 in all (43.1 is published for it).
    At 40 % of 989e12 that is 0.1080 s a pair; with checkpointing 63.95e12 are 0.1617 s. The reference: F and a third of
    the head, 21.32e12 are 0.0539 s. Two images of 304e6 * 576 * 2 are 0.70e12: 0.00177 s."""
    plan, work = ScoringPlan(clean=BOTH, corrupt=("chosen",)), Work(1000, 626, 120, 576, 304_000_000)
    found = seconds_on(CARDS["h100"], LLAVA, work, plan, TrainOptions())
    assert found["steps"] == pytest.approx(108.0, rel=1e-3)
    assert found["reference"] == pytest.approx(53.9, rel=1e-3)
    assert found["images"] == pytest.approx(1.77, rel=5e-3)
    again = seconds_on(CARDS["h100"], LLAVA, work, plan, TrainOptions(gradient_checkpointing=True, epochs=2))
    assert again["steps"] == pytest.approx(2 * 161.7, rel=1e-3) and again["reference"] == found["reference"]
    assert again["images"] == pytest.approx(2 * found["images"])
    free = ScoringPlan(clean=BOTH, reference_free=True)
    assert seconds_on(CARDS["h100"], LLAVA, work, free, TrainOptions())["reference"] == 0


def test_answers_cost_the_weights_once_a_token_of_eight() -> None:
    """Nb and the head are 6.607e9 parameters, 13.21e9 bytes at 3.35e12 a second: 3.944 ms a token of eight answers,
    0.493 ms of one; 120 tokens of 1 000 answers take 59.2 s. Their prompts' forward, 2 Nb 626 + 2 32 d 626^2 = 8.21e12
    at 40 %, takes 20.8 s more."""
    plan, work = ScoringPlan(clean=BOTH), Work(1000, 626, 120, 576, 304_000_000)
    assert seconds_on(CARDS["h100"], LLAVA, work, plan, TrainOptions())["answers"] == pytest.approx(79.9, rel=2e-3)


def test_what_fits_is_proposed_the_fastest_first() -> None:
    """16 units of weights (4 in 4 bit), 4 a pair without checkpointing and 1 with it. In 24 units: two pairs, or five
    of which the half of eight is four, in 4 bit; eight with checkpointing."""

    def needed(options: TrainOptions, quantize: str) -> int:
        pair = 1 if options.gradient_checkpointing else 4
        return (4 if quantize == "4bit" else 16) * 2**30 + pair * options.micro_batch * 2**30 - RUNTIME

    found = list(proposals(24 * 2**30, needed, TrainOptions(batch=8), ["none", "4bit"]))
    assert [tuple(settings.values()) for settings, _ in found] == [
        (False, 2, "none"), (False, 4, "4bit"), (True, 8, "none"), (True, 8, "4bit"),
    ]  # fmt: skip
    assert found[0][1] == 24 * 2**30 and list(proposals(2**30, needed, TrainOptions(batch=8), ["none"])) == []


def test_an_unknown_card_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"--card h10: unknown card, did you mean 'h100'|--card h10: unknown card"):
        card_named("h10")
