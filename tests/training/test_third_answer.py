"""Rows of one answer, a third answer, what is refused by name: what the packed step scores of a pair and what not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import packing
import pytest
import tiny
import torch
from test_packing import WEIGHTS, encode, gradient, pair, steps

from clinalign.errors import RowError
from clinalign.models import VLM
from clinalign.models.features import Features
from clinalign.objectives import METHODS, LossCoefficients
from clinalign.training.batches import ScoringPlan, pack_pairs, plan_for
from clinalign.training.options import TrainOptions
from clinalign.training.reference import Reference


@pytest.fixture(scope="module")
def llava() -> VLM:
    vlm = tiny.tiny_llava()
    vlm.attach_lora(r=4, alpha=8, dropout=0.0)
    tiny.perturb(vlm)
    return vlm


def test_keep_packs_one_prefix_and_one_answer(llava: VLM) -> None:
    """The row ends with the token before the chosen answer's last; firempo's two rows hold both sides. `sizes` counts
    the same: prompt and chosen answer, against twice prompt, both answers less what they share."""
    sample = packing.sample(llava, 0, np.random.default_rng(0))
    kept, other = steps(llava, [sample], "keep"), steps(llava, [sample], "firempo")
    trees = pack_pairs(llava, [sample], kept.plan).trees
    assert trees.ids.tolist() == [[*sample.prompt, *sample.answers["chosen"][:-1]]]
    prompt, (chosen, rejected) = len(sample.prompt), (len(sample.answers[s]) for s in ("chosen", "rejected"))
    assert list(kept.sizes) == [prompt + chosen]
    assert list(other.sizes) == [2 * (prompt + chosen + rejected - 2)]
    assert pack_pairs(llava, [sample], other.plan).trees.ids.shape[0] == 2


def test_rest_and_spans_share_the_answer_out(llava: VLM) -> None:
    sample = packing.sample(llava, 0, np.random.default_rng(0))
    batch = pack_pairs(llava, [sample], plan_for(METHODS["keep"], WEIGHTS))
    assert (batch.kl + batch.nll)[0].tolist() == [1.0] * len(sample.answers["chosen"])
    in_kl = set(batch.index[0, : batch.kl_tokens].tolist())
    assert in_kl == {i for i, marked in enumerate(sample.spans["chosen"]) if not marked}


def test_keep_takes_the_token_after_a_deletion_as_edited_and_holds_all_others(llava: VLM) -> None:
    """ "no nodule" to "nodule": the answer turns where "nodule" is said, and holding that token would hold the "no"."""
    assert TrainOptions(method="keep").empty_span == "next_token" and TrainOptions(method="dpo").empty_span == "ignore"
    given = pair(llava, "The image shows nodules.", "The image shows no nodules.", [], [[16, 19]])
    sample = encode(llava, given, empty_span=TrainOptions(method="keep").empty_span)
    batch = pack_pairs(llava, [sample], plan_for(METHODS["keep"], WEIGHTS))
    edited = [i for i, weight in zip(batch.index[0].tolist(), batch.nll[0].tolist(), strict=True) if weight]
    held = set(batch.index[0, : batch.kl_tokens].tolist())
    assert edited == [sample.fork] and held == set(range(len(sample.answers["chosen"]))) - {sample.fork}


def test_keep_changes_with_the_image_and_not_with_the_rejected_answer(llava: VLM) -> None:
    sample = packing.sample(llava, 0, np.random.default_rng(0))
    before = steps(llava, [sample], "keep").loss([0])[0].item()
    other = replace(sample, answers=sample.answers | {"rejected": sample.answers["rejected"][::-1]}, corrupted=None)
    assert steps(llava, [other], "keep").loss([0])[0].item() == before
    moved = replace(sample, images=["15"])
    assert abs(steps(llava, [moved], "keep").loss([0])[0].item() - before) > 1e-4


def test_a_fresh_adapter_has_no_kl_and_keeps_gate_is_keep() -> None:
    vlm = tiny.tiny_llava()
    vlm.attach_lora(r=4, alpha=8)
    sample = packing.sample(vlm, 0, np.random.default_rng(0))
    (kept, found), (gated, _) = (steps(vlm, [sample], name).loss([0]) for name in ("keep", "keep_gated"))
    assert found["loss/kl"].item() == pytest.approx(0, abs=1e-6)
    assert gated.item() == pytest.approx(kept.item(), abs=1e-6)


def test_a_pair_without_counterfactual_is_kept_by_its_own_answer_alone(llava: VLM) -> None:
    """counterfactual_keep of a pair without v' or without y0 is keep of it, value and gradient."""
    full = packing.sample(llava, 0, np.random.default_rng(0))
    alone = replace(full, answers={s: full.answers[s] for s in ("chosen", "rejected")})
    for sample in (alone, replace(full, corrupted=None)):
        (a, _), (b, _) = (steps(llava, [sample], name).loss([0]) for name in ("counterfactual_keep", "keep"))
        assert a.item() == b.item() and torch.equal(gradient(llava, a), gradient(llava, b))
    assert (
        steps(llava, [full], "counterfactual_keep").loss([0])[0].item()
        != steps(llava, [full], "keep").loss([0])[0].item()
    )


def test_only_where_the_rejected_answer_is_true_does_firempo_flip(llava: VLM) -> None:
    """A pair that does not flip is a pair without corrupted image to FiRe-MPO, and costs one row; to v1, which prefers
    the same answer under the image, it has one."""
    flips = packing.sample(llava, 0, np.random.default_rng(0))
    stays = replace(flips, flips=False)
    (a, found), (b, _) = (steps(llava, [s], "firempo").loss([0]) for s in (stays, replace(flips, corrupted=None)))
    assert a.item() == b.item() and found["loss/visual"].item() == 0 and found["visual/margins"].isnan().all()
    assert pack_pairs(llava, [stays], plan_for(METHODS["firempo"], WEIGHTS)).trees.ids.shape[0] == 1
    assert steps(llava, [stays], "v1").loss([0])[0].item() == steps(llava, [flips], "v1").loss([0])[0].item()


def test_reference_free_methods_ask_for_no_reference(llava: VLM, tmp_path: Path) -> None:
    sample = packing.sample(llava, 0, np.random.default_rng(0))
    for name in ("simpo", "orpo"):
        plan = plan_for(METHODS[name], WEIGHTS)
        reference = Reference(llava, Features(llava, packing.read(llava)), tmp_path)
        assert not plan.needs_reference and reference.fill([sample], plan) == 0


def test_one_record_serves_tokens_that_other_methods_asked_for(llava: VLM, tmp_path: Path) -> None:
    """keep needs the states outside the spans, rrpo those in them: both together are all, and neither is lost."""
    sample = packing.sample(llava, 0, np.random.default_rng(0))
    reference = Reference(llava, Features(llava, packing.read(llava)), tmp_path)
    plans = [plan_for(METHODS[name], WEIGHTS) for name in ("keep", "rrpo", "counterfactual_keep", "rrpo_authors")]
    assert [reference.fill([sample], plan) for plan in plans] == [1, 1, 1, 0]
    [record] = [reference.store.get(key) for key in reference.store.keys()]
    assert record["index"].tolist() == list(range(len(sample.answers["chosen"])))
    assert set(record) == {
        "chosen", "rejected", "corrupt_counterfactual", "index", "states",
        "corrupt_counterfactual_index", "corrupt_counterfactual_states",
    }  # fmt: skip
    assert all(reference.verify([sample], plan) == 1 for plan in plans)


@packing.EVERY_METHOD
def test_padding_changes_nothing(llava: VLM, every: bool) -> None:
    """Beside longer pairs, on either side, value and gradient of a pair stay, whatever is scored."""
    rng = np.random.default_rng(0)
    samples = [
        packing.sample(llava, 0, rng),
        packing.sample(llava, 1, rng, tails=(7, 6), prompt="Is there any nodule?"),
    ]
    for name in packing.methods_to_try(WEIGHTS, every):
        alone = gradient(llava, steps(llava, samples[:1], name).loss([0])[0])
        alone = alone + gradient(llava, steps(llava, samples[1:], name).loss([0])[0])
        for padding in ("left", "right"):
            together = gradient(llava, steps(llava, samples, name, padding=padding).loss([0, 1])[0])
            assert (2 * together - alone).norm() <= 1e-4 * alone.norm(), name


def test_a_third_answer_is_encoded_from_its_own_fields(llava: VLM) -> None:
    given = pair(llava, "A nodule on the left.", "A nodule on the right.", [[16, 20]], [[16, 21]])
    text = "No nodule is seen."
    ids = llava.tokenizer(text, add_special_tokens=False)["input_ids"] + llava.eos_ids
    own = replace(given, corrupted_answer=text, corrupted_answer_spans=[[0, 17]], corrupted_answer_token_ids=ids)
    sample = encode(llava, own)
    assert sample.answers["counterfactual"] == ids and sample.spans["counterfactual"][0]
    assert "counterfactual" not in encode(llava, given).answers
    with pytest.raises(RowError) as caught:
        encode(llava, replace(own, corrupted_answer_spans=[[0, 99]]))
    assert (caught.value.field, caught.value.reason) == ("corrupted_answer_spans", "span_mismatch")


@pytest.mark.parametrize(
    "changes, field, reason",
    [
        ({"corrupted_images": None}, "corrupted_images", "no_corrupted_images"),
        ({"corrupted_images": []}, "corrupted_images", "no_corrupted_images"),
        ({}, "corrupted_answer", "no_corrupted_answer"),
        ({"weight": -0.5}, "weight", "negative_weight"),
    ],
)
def test_what_a_method_needs_and_a_pair_lacks_is_refused_by_name(llava: VLM, changes, field: str, reason: str) -> None:
    given = pair(llava, "A nodule on the left.", "A nodule on the right.", [[16, 20]], [[16, 21]])
    needs = METHODS["symmetric"].needs if "weight" not in changes else ()
    with pytest.raises(RowError) as caught:
        encode(llava, replace(given, **({"corrupted_images": ["0x"]} | changes)), needs=needs)
    assert (caught.value.field, caught.value.reason) == (field, reason)


def test_the_plan_scores_what_the_method_names(llava: VLM) -> None:
    plan = plan_for(METHODS["symmetric"], WEIGHTS)
    assert isinstance(plan, ScoringPlan)
    sample = packing.sample(llava, 0, np.random.default_rng(0))
    forks = [tree.forks[0].answers for tree in pack_pairs(llava, [sample], plan).trees.trees]
    assert [len(answers) for answers in forks] == [2, 2]


@pytest.mark.parametrize("name", METHODS)
def test_no_token_of_a_prompt_or_an_image_is_scored(llava: VLM, name: str) -> None:
    """What a loss sums are answers' own tokens, each read where the token before it stands: the loss has no gradient by
    the logits of any other column."""
    sample = packing.sample(llava, 0, np.random.default_rng(0))
    batch = pack_pairs(llava, [sample], plan_for(METHODS[name], WEIGHTS))
    answers = {tuple(answer) for answer in sample.answers.values()}
    assert batch.trees.targets
    for target in batch.trees.targets:
        column = batch.trees.column(*target[:4])
        assert column >= batch.trees.prompt_columns(target.tree)[-1]
        assert any(len(a) > target.offset and a[target.offset] == target.token for a in answers)


def test_segment_dpo_with_one_beta_is_dpo_and_weighs_kinds(llava: VLM) -> None:
    """The rest at the spans' beta: DPO, value and gradient; the rest at next to nothing: DPO on the spans alone."""
    sample = packing.sample(llava, 0, np.random.default_rng(0))
    assert sample.kind == "side"

    def lossed(name: str, **betas: float) -> torch.Tensor:
        return steps(llava, [sample], name, LossCoefficients(beta=0.5, betas=betas)).loss([0])[0]

    same, plain = lossed("segment_dpo", rest=0.5, side=0.5), lossed("dpo")
    assert same.item() == pytest.approx(plain.item(), abs=1e-6)
    assert torch.allclose(gradient(llava, same), gradient(llava, plain), atol=1e-6)
    assert lossed("segment_dpo", rest=1e-9).item() == pytest.approx(lossed("mask_dpo").item(), abs=1e-6)
    assert lossed("segment_dpo", rest=0.5, side=2.0).item() != pytest.approx(plain.item(), abs=1e-3)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if "corrupted_images" in method.needs])
def test_a_method_that_needs_the_corrupted_image_refuses_a_pair_without_by_name(llava: VLM, name: str) -> None:
    given = pair(llava, "A nodule on the left.", "A nodule on the right.", [[16, 20]], [[16, 21]])
    with pytest.raises(RowError) as caught:
        encode(llava, given, needs=METHODS[name].needs, views=tuple(METHODS[name].views))
    assert (caught.value.field, caught.value.reason) == ("corrupted_images", "no_corrupted_images")


def test_views_have_prompts_of_their_own(llava: VLM) -> None:
    """Without an image no image token, with both twice as many and a last sentence that says which is asked about."""
    given = pair(llava, "A nodule on the left.", "A nodule on the right.", [[16, 20]], [[16, 21]])
    sample = encode(llava, replace(given, corrupted_images=["0x"]), views=("free", "first", "second"))
    counts = {view: ids.count(llava.image_token_id) for view, (_, ids) in sample.prompts.items()}
    one = sample.prompt.count(llava.image_token_id)
    assert counts == {"free": 0, "first": 2 * one, "second": 2 * one} and one > 0
    assert sample.prompts["second"][0] == "Where is the nodule? Answer based on the second image."
    assert sample.shown("first") == ["0", "0x"] and sample.shown("free") == [] and sample.shown("level1") is None
