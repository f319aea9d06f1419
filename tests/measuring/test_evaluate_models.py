"""Margins and whole evaluations on real model classes, tiny and random."""

import pytest
import tiny
import torch

from clinalign.evaluation import summarise
from clinalign.measuring import evaluate
from clinalign.measuring.asking import Entry
from clinalign.measuring.evidence import AnswerPair, margins
from clinalign.measuring.options import EvaluationOptions
from clinalign.storage import Journal


def pairs(vlm) -> list[AnswerPair]:
    def ids(text):
        return vlm.tokenizer(text, add_special_tokens=False)["input_ids"] + vlm.eos_ids[:1]

    left = ids("There is a nodule in the left upper lung.")
    right = ids("There is a nodule in the right upper lung.")
    none = ids("No nodule is seen.")
    one, two = tiny.image(0), tiny.image(1, 48, 32)
    return [
        AnswerPair("Where is the nodule?", [one], left, right),
        AnswerPair("Is there a nodule on the left?", [two], none, left),
        AnswerPair("Describe both.", [one, two], left, none),
        AnswerPair("Is the heart of normal size?", [], left, right),
    ]


@torch.no_grad()
def naive(vlm, pair: AnswerPair) -> float:
    """Two separate passes, by the Hugging Face model itself with its own masks and positions."""
    totals = []
    prompt = vlm.prompt_ids(pair.prompt, pair.images)
    grids = [vlm.image_grid(image) for image in pair.images]
    for answer in (pair.answer, pair.counterfactual):
        ids = torch.tensor([prompt + answer])
        embeddings, extra = vlm.embed(ids, [vlm.image_features(pair.images)])
        positions = vlm.axes(vlm.positions(prompt + answer, grids)[:, None])
        out = vlm.language_model(inputs_embeds=embeddings, position_ids=positions, **extra).last_hidden_state
        logps = vlm.logits(out[0]).log_softmax(-1)
        totals.append(sum(logps[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer)))
    return totals[0] - totals[1]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_packed_margin_equals_two_passes(family):
    vlm = tiny.tiny(family)
    expected = [naive(vlm, pair) for pair in pairs(vlm)]
    assert margins(vlm, pairs(vlm), batch_size=4) == pytest.approx(expected, abs=2e-4, rel=1e-5)
    assert margins(vlm, pairs(vlm), batch_size=1) == pytest.approx(expected, abs=2e-4, rel=1e-5)
    assert min(abs(x) for x in expected) > 0.01


def test_a_random_model_goes_through_every_condition(world):
    options = EvaluationOptions(ablations=["blank", "shuffled", "no_image"], max_new_tokens=4, resamples=100)
    vlm, examples = tiny.tiny_llava(), world.examples[:24]
    first = evaluate(vlm, examples, world.folder, options, system="base")
    assert {o.condition for o in first.outcomes} == {"clean", *options.ablations}
    assert {m.condition for m in first.measurements} >= set(options.flips)
    assert first == evaluate(vlm, examples, world.folder, options, system="base")
    assert summarise(first.outcomes, examples, options)["n"] == 24


def test_everything_resumes_on_a_real_model(world, tmp_path):
    """Killed in the middle of each part: answers with their probability, noise levels with new answers, attention."""
    options = EvaluationOptions(
        max_new_tokens=4, batch_size=4, flip_levels=[90.0], flip_answers=True, grounding=True, ablations=["noise"]
    )
    vlm, examples = tiny.tiny_llava(), world.examples[:12]
    whole = evaluate(vlm, examples, world.folder, options, system="base")
    assert {o.condition for o in whole.outcomes} == {"clean", "noise", *options.flips}
    assert {m.name for m in whole.measurements} >= {"margin", "attention_kl"}
    assert {m.condition for m in whole.measurements} >= set(options.flips)
    path = tmp_path / "journal"
    evaluate(vlm, examples, world.folder, options, system="base", journal=Journal(path, Entry))
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in range(3, len(lines), 7):
        path.write_bytes(b"".join(lines[:kept]) + lines[kept][:20])
        again = evaluate(vlm, examples, world.folder, options, system="base", journal=Journal(path, Entry))
        assert again == whole
