"""The packed step equals the naive eight-pass form, value and gradient, with a policy that is not the reference."""

from __future__ import annotations

from dataclasses import replace

import naive
import numpy as np
import packing
import pytest
import tiny
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from clinalign.errors import RowError
from clinalign.models import VLM, load_vlm
from clinalign.models.attention import AttentionRequest
from clinalign.models.features import Features
from clinalign.objectives import METHODS, LossCoefficients
from clinalign.records import Pair
from clinalign.training.batches import ScoringPlan, pack_pairs, plan_for
from clinalign.training.encode import Sample, encode_pair, span_tokens
from clinalign.training.step import PackedSteps

WEIGHTS = LossCoefficients(beta=0.5, alpha=0.3, gamma=0.7, lam=0.4, betas={"rest": 0.2, "side": 0.8})
LOSS, GRADIENT = 1e-5, 1e-4


def policy(family: str) -> VLM:
    """A tiny model whose adapter has been moved away from the reference."""
    vlm = tiny.tiny(family)
    vlm.attach_lora(r=4, alpha=8, dropout=0.0)
    tiny.perturb(vlm)
    return vlm


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def vlm(request: pytest.FixtureRequest) -> VLM:
    return policy(request.param)


@pytest.fixture(scope="module")
def llava() -> VLM:
    return policy("llava")


def mixed(vlm: VLM) -> list[Sample]:
    """One image; two images and no shared token; text only with an insertion; a deletion without a corrupted twin."""
    rng = np.random.default_rng(0)
    return [
        packing.sample(vlm, 0, rng),
        packing.sample(vlm, 1, rng, images=2, fork=0, tails=(5, 2)),
        packing.sample(vlm, 2, rng, images=0, spans=(0, 2)),
        packing.sample(vlm, 3, rng, corrupted=False, tails=(0, 3), spans=(1, 0)),
    ]


def gradient(vlm: VLM, loss: torch.Tensor, retain: bool = False) -> torch.Tensor:
    params = list(vlm.trainable().values())
    found = torch.autograd.grad(loss, params, allow_unused=True, retain_graph=retain)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(found, params, strict=True)])


def steps(vlm: VLM, samples: list[Sample], name: str, weights: LossCoefficients = WEIGHTS, **options) -> PackedSteps:
    features = Features(vlm, packing.read(vlm))
    return PackedSteps(vlm, samples, METHODS[name], weights, features, **options)


def check(vlm: VLM, samples: list[Sample], known: list, name: str, weights: LossCoefficients, **options) -> None:
    nll_on = options.get("nll_on", "answer")
    expected = torch.stack(
        [naive.pair_loss(s, k, name, weights, nll_on) for s, k in zip(samples, known, strict=True)]
    ).mean()
    loss, _ = steps(vlm, samples, name, weights, **options).loss(range(len(samples)))
    assert abs(loss.item() - expected.item()) <= LOSS
    ours, theirs = gradient(vlm, loss), gradient(vlm, expected, retain=True)
    assert theirs.norm() > 0
    assert (ours - theirs).norm() / theirs.norm() <= GRADIENT


@packing.EVERY_METHOD
def test_every_method_equals_the_naive_form(vlm: VLM, every: bool) -> None:
    samples = mixed(vlm)
    known = [naive.passes(vlm, sample, packing.read(vlm)) for sample in samples]
    for name in packing.methods_to_try(WEIGHTS, every or vlm.family.name == tiny.FAMILIES[0]):
        usable = packing.usable(samples, METHODS[name])
        check(vlm, usable, [known[samples.index(s)] for s in usable], name, WEIGHTS)
    check(vlm, samples, known, "firempo", WEIGHTS, padding="left")
    check(vlm, samples[:2], known[:2], "symmetric", WEIGHTS, padding="left")
    check(vlm, samples, known, "dpo", LossCoefficients(beta=0.5, nll=0.3), padding="left")
    check(vlm, samples, known, "firempo", LossCoefficients(nll=0.3), nll_on="spans")


def test_the_embedded_model_equals_the_naive_form() -> None:
    vlm = load_vlm("embedded")
    vlm.attach_lora(r=8, alpha=16, dropout=0.0)
    tiny.perturb(vlm, 0.1)
    samples = mixed(vlm)[:3]
    known = [naive.passes(vlm, sample, packing.read(vlm)) for sample in samples]
    for name in ("firempo", "dpo", "rrpo", "mask_dpo", "sft"):
        check(vlm, samples, known, name, WEIGHTS)


def test_bfloat16_stays_near(llava: VLM) -> None:
    samples = mixed(llava)
    exact, low = (steps(llava, samples, "firempo", bf16=bf16).loss(range(4))[0] for bf16 in (False, True))
    assert low.dtype == torch.float32 and 0 < abs(low.item() - exact.item()) < 0.05
    assert torch.nn.functional.cosine_similarity(gradient(llava, exact), gradient(llava, low), dim=0) > 0.98


@settings(max_examples=20)
@given(data=st.data())
def test_any_layout_equals_the_naive_form(data: st.DataObject) -> None:
    """Random span layouts, fork points, group sizes, insertion-only and deletion-only edits, padding on either side."""
    if not hasattr(test_any_layout_equals_the_naive_form, "vlm"):
        test_any_layout_equals_the_naive_form.vlm = policy("llava")
    vlm = test_any_layout_equals_the_naive_form.vlm
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    samples: list[Sample] = []
    for group in range(data.draw(st.integers(1, 2), label="groups")):
        images = data.draw(st.integers(0, 2), label="images")
        first = len(samples)
        for _ in range(data.draw(st.integers(1, 2), label="pairs of one example")):
            sample = packing.sample(
                vlm, len(samples), rng, images=images, example=f"group{group}",
                corrupted=data.draw(st.booleans()), fork=data.draw(st.integers(0, 3)),
                tails=(data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))),
                spans=(data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))),
            )  # fmt: skip
            shown = samples[first].images if len(samples) > first else sample.images
            sample.corrupted = [f"{key}x" for key in shown] if sample.corrupted else None
            sample.images = list(shown)
            samples.append(sample)
    name = data.draw(st.sampled_from(sorted(METHODS)))
    samples = packing.usable(samples, METHODS[name])
    assume(samples)
    known = [naive.passes(vlm, sample, packing.read(vlm)) for sample in samples]
    padding = data.draw(st.sampled_from(["right", "left"]))
    expected = torch.stack([naive.pair_loss(s, k, name, WEIGHTS) for s, k in zip(samples, known, strict=True)]).mean()
    loss, _ = steps(vlm, samples, name, padding=padding).loss(range(len(samples)))
    assert abs(loss.item() - expected.item()) <= LOSS
    ours, theirs = gradient(vlm, loss), gradient(vlm, expected)
    assert (ours - theirs).norm() <= GRADIENT * theirs.norm() + 1e-7


def test_all_weights_training_equals_the_naive_form(tmp_path) -> None:
    """Full fine-tuning: head and embeddings train as well; the reference comes from the cache, made before."""
    from clinalign.training.reference import Reference

    vlm = tiny.tiny_llava()
    samples, features = mixed(vlm)[:2], Features(vlm, packing.read(vlm))
    plan = plan_for(METHODS["firempo"], WEIGHTS)
    reference = Reference(vlm, features, tmp_path)
    reference.fill(samples, plan)
    frozen = tiny.tiny_llava()
    vlm.unfreeze_language_model()
    tiny.perturb(vlm)
    loss, _ = PackedSteps(vlm, samples, METHODS["firempo"], WEIGHTS, features, reference).loss([0, 1])
    ours = gradient(vlm, loss)
    vlm.adapter_off = vlm.evaluating  # the naive form takes its reference from the frozen copy instead
    known = []
    for sample in samples:
        passes = naive.passes(vlm, sample, packing.read(vlm))
        with torch.no_grad():
            passes["reference"] = naive.passes(frozen, sample, packing.read(vlm))["policy"]
        known.append(passes)
    expected = torch.stack(
        [naive.pair_loss(s, k, "firempo", WEIGHTS) for s, k in zip(samples, known, strict=True)]
    ).mean()
    theirs = gradient(vlm, expected)
    assert abs(loss.item() - expected.item()) <= LOSS
    assert (ours - theirs).norm() / theirs.norm() <= GRADIENT


def test_the_loss_changes_when_the_image_changes(vlm: VLM) -> None:
    """trl#5943: a preference loss that silently skipped the vision tower."""
    sample = mixed(vlm)[0]
    before = steps(vlm, [sample], "firempo").loss([0])[0].item()
    for which in ("images", "corrupted"):
        changed = Sample(**{name: getattr(sample, name) for name in Sample.__dataclass_fields__})
        height = len(packing.SIZES[vlm.family.name])
        setattr(changed, which, [str(height * 5)])  # another picture of the same size
        assert abs(steps(vlm, [changed], "firempo").loss([0])[0].item() - before) > 1e-4


def test_at_initialisation(vlm: VLM) -> None:
    """A fresh adapter: every sigmoid term is log 2 at its weight, every KL 0, every margin 0."""
    fresh = tiny.tiny(vlm.family.name)
    fresh.attach_lora(r=4, alpha=8)
    _, found = steps(fresh, mixed(fresh), "firempo", LossCoefficients()).loss(range(4))
    assert torch.allclose(found["loss/rank"], torch.full((4,), np.log(2)), atol=1e-6)
    assert torch.allclose(found["loss/visual"], 0.1 * np.log(2) * torch.tensor([1.0, 1, 0, 0]), atol=1e-6)
    assert found["loss/kl"].abs().max() < 1e-6 and found["rewards/margins"].abs().max() < 1e-6
    assert found["visual/margins"].isnan().tolist() == [False, False, True, True]


@pytest.mark.parametrize("name", ["firempo", "dpo", "v1"])
def test_a_pair_without_any_span_gives_no_gradient_and_no_error(llava: VLM, name: str) -> None:
    rng = np.random.default_rng(0)
    empty = [packing.sample(llava, 0, rng, images=0, spans=(0, 0)), packing.sample(llava, 1, rng, spans=(0, 0))]
    loss, _ = steps(llava, empty, name).loss([0, 1])
    found = gradient(llava, loss)
    assert torch.isfinite(loss) and (found.norm() > 0) == (name == "dpo")


def test_accumulating_one_by_one_equals_all_at_once(llava: VLM) -> None:
    samples = mixed(llava)
    together = steps(llava, samples, "firempo")
    loss, found = together.loss(range(4))
    whole = gradient(llava, loss)
    parts = [together.loss([i]) for i in range(4)]
    assert torch.allclose(sum(gradient(llava, part) for part, _ in parts) / 4, whole, atol=1e-6)
    for name, value in found.items():
        joined = torch.cat([single.get(name, torch.full((1,), torch.nan)) for _, single in parts])
        assert torch.allclose(value, joined, atol=1e-5, equal_nan=True) or name in (
            "visual/margins",
            "visual/accuracies",
        )


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_gradient_checkpointing_changes_nothing(family: str) -> None:
    vlm = policy(family)
    prepared = steps(vlm, mixed(vlm), "firempo")
    vlm.model.train()
    plain = gradient(vlm, prepared.loss(range(4))[0])
    vlm.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    again = gradient(vlm, prepared.loss(range(4))[0])
    assert plain.norm() > 0 and torch.allclose(plain, again, atol=1e-6)


def test_pairs_of_one_example_share_a_row_and_others_do_not(llava: VLM) -> None:
    rng = np.random.default_rng(0)
    samples = [packing.sample(llava, i, rng, example="same") for i in range(3)]
    for sample in samples[1:]:
        sample.images, sample.corrupted = samples[0].images, list(samples[0].corrupted)
    samples.append(packing.sample(llava, 3, rng, example="other"))
    samples[3].images = samples[0].images  # the same picture, but another record
    plan = plan_for(METHODS["firempo"], WEIGHTS)
    packed = pack_pairs(llava, samples, plan).trees
    assert packed.ids.shape[0] == 4 and [tree.images for tree in packed.trees] == [["0"], ["0"], ["0x"], ["30x"]]


def test_each_image_is_encoded_once(llava: VLM) -> None:
    prepared = steps(llava, mixed(llava), "firempo")
    prepared.loss(range(4))
    distinct = {key for s in prepared.samples for key in [*s.images, *(s.corrupted or [])]}
    assert prepared.features.encoded == len(distinct)
    prepared.loss(range(4))
    assert prepared.features.encoded == len(distinct)


def test_the_tails_do_not_see_each_other_and_positions_restart(llava: VLM) -> None:
    """Worked by hand: prompt of n tokens, 2 shared, tails of 2 and 1 with their end: columns n+2.. and n+5.."""
    rng = np.random.default_rng(0)
    sample = packing.sample(llava, 0, rng, images=0, fork=2, tails=(2, 1), prompt="Where?")
    pairs = pack_pairs(llava, [sample], ScoringPlan(preference="answer", whole=True))
    batch, n = pairs.trees, len(sample.prompt)
    assert batch.ids[0].tolist() == [*sample.prompt, *sample.answers["chosen"], *sample.answers["rejected"][2:]]
    assert batch.positions[0, 0].tolist() == [*range(n + 5), n + 2, n + 3]
    mask = batch.mask[0, 0]
    assert not mask[n + 5 :, n + 2 : n + 5].any() and not mask[n + 2 : n + 5, n + 5 :].any()
    assert mask[n + 5 :, : n + 2].all() and mask[n + 4, : n + 5].all()
    assert not mask.triu(1).any()
    assert batch.prefix == n + 5
    columns = batch.columns[batch.row, batch.at].tolist()
    rows = dict(zip(map(tuple, pairs.index.t().tolist()), columns, strict=True))
    assert rows == {
        (0, 0): n - 1,
        (1, 1): n,
        (2, -1): n + 1,
        (3, -1): n + 2,
        (4, -1): n + 3,
        (-1, 2): n + 1,
        (-1, 3): n + 5,
    }
    assert batch.columns[0].tolist() == [*range(n - 1, n + 4), n + 5]
    assert pairs.predicting(0) == [*range(n - 1, n + 4)]


def test_tokens_that_change_nothing_are_left_out(llava: VLM) -> None:
    """The same answers, by hand: a span token at 3 of the chosen and at 2 of the rejected answer needs chosen[:3] and
    rejected[:2]; every token scored, all but the last of each; nothing scored, the prompt alone."""
    rng = np.random.default_rng(0)
    sample = packing.sample(llava, 0, rng, images=0, fork=2, tails=(2, 1), spans=(0, 0), prompt="Where?")
    n = len(sample.prompt)

    def tail(plan: ScoringPlan) -> list[int]:
        return pack_pairs(llava, [sample], plan).trees.ids[0].tolist()[n:]

    chosen, rejected = sample.answers["chosen"], sample.answers["rejected"]
    assert tail(ScoringPlan()) == []
    assert tail(ScoringPlan(preference="answer")) == [*chosen[:4], *rejected[2:3]]
    assert tail(ScoringPlan(preference="none", nll="answer", clean=("chosen",))) == chosen[:4]
    sample.spans["chosen"][3] = sample.spans["rejected"][2] = True
    assert tail(ScoringPlan()) == chosen[:3]
    sample.spans["chosen"][3], sample.spans["chosen"][0] = False, True
    assert tail(ScoringPlan()) == chosen[:2]  # the rejected span still needs the shared part


@pytest.mark.parametrize("padding", ["right", "left"])
def test_hidden_states_of_chosen_columns_equal_those_of_all(vlm: VLM, padding: str) -> None:
    """The last layer for the read columns alone, and the causal kernel over the prefix, against the plain forward."""
    plan = ScoringPlan(preference="answer", corrupt=("chosen", "rejected"))
    batch = pack_pairs(vlm, mixed(vlm), plan, padding=padding).trees
    features = Features(vlm, packing.read(vlm))
    images = features.get([key for tree in batch.trees for key in tree.images])
    per_row = [[images.pop(0) for _ in tree.images] for tree in batch.trees]
    given = (batch.ids, per_row, batch.mask, batch.positions)
    assert bool(batch.prefix) == (padding == "right")
    few = vlm.hidden_states(*given, AttentionRequest(query_columns=batch.columns, prefix=batch.prefix))
    all_of_them = vlm.hidden_states(*given)[torch.arange(len(batch.ids))[:, None], batch.columns]
    assert few.shape == (*batch.columns.shape, vlm.head.weight.shape[1])
    assert torch.allclose(few, all_of_them, atol=2e-5)


class Shapes(TorchDispatchMode):
    """Shapes of all tensors that operations return, except views of the given weights."""

    def __init__(self, own: list[torch.Tensor]) -> None:
        super().__init__()
        self.own = {weight.untyped_storage().data_ptr() for weight in own}
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() not in self.own:
                self.seen.add(tuple(value.shape))
        return out


@pytest.mark.parametrize("name", ["firempo", "dpo", "rrpo_authors"])
def test_no_tensor_over_sequence_and_vocabulary_and_no_head_gradient(llava: VLM, name: str) -> None:
    samples = mixed(llava)
    prepared = steps(llava, samples, name)
    scored = max(len(pack_pairs(llava, samples, p).pair) for p in (prepared.plan, ScoringPlan(preference="answer")))
    size, width = llava.head.weight.shape
    with Shapes([llava.head.weight, llava.language_model.get_input_embeddings().weight]) as shapes:
        gradient(llava, prepared.loss(range(4))[0])
    over = {shape for shape in shapes.seen if size in shape and len(shape) > 1}
    assert over and all(len(shape) == 2 and shape[1] == size and shape[0] <= scored for shape in over)
    assert (size, width) not in shapes.seen
    length = pack_pairs(llava, samples, prepared.plan).trees.ids.shape[1]
    assert not any(size in shape and (length in shape or length - 1 in shape) for shape in shapes.seen)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3"])
def test_dropout_belongs_to_the_pair(family: str, checkpointing: bool) -> None:
    """Loss, metrics and gradient under dropout are the same however a batch is cut, also where pairs share a row and
    where two processes take every second pair; another step draws other masks."""
    vlm = tiny.tiny(family)
    vlm.attach_lora(r=4, alpha=8, dropout=0.3)
    tiny.perturb(vlm)
    samples = mixed(vlm)
    samples.append(replace(packing.sample(vlm, 0, np.random.default_rng(7)), id="again"))
    samples[4].prompt, samples[4].images, samples[4].corrupted = samples[0].prompt, samples[0].images, None
    vlm.model.train()
    if checkpointing:
        vlm.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    prepared, every = steps(vlm, samples, "firempo", draw=11), range(len(samples))
    found = {}
    for name, cuts in {
        "all": [every], "one": [[i] for i in every], "two": [[4, 1], [0, 3], [2]], "ranks": [[0, 2, 4], [1, 3]]
    }.items():  # fmt: skip
        losses, total = torch.zeros(len(samples)), 0
        for cut in cuts:
            loss, metrics = prepared.loss(cut)
            losses[list(cut)] = (metrics["loss/rank"] + metrics["loss/visual"] + metrics["loss/kl"]).float()
            total = total + gradient(vlm, loss) * (len(cut) / len(samples))
        found[name] = losses, total
    for losses, total in found.values():
        assert torch.allclose(losses, found["all"][0], atol=LOSS)
        assert (total - found["all"][1]).norm() / found["all"][1].norm() <= GRADIENT
    prepared.draw = 12
    other = gradient(vlm, prepared.loss(every)[0])
    assert (other - found["all"][1]).norm() / found["all"][1].norm() > 0.05


# From a pair to a sample


def pair(vlm: VLM, chosen: str, rejected: str, chosen_spans, rejected_spans) -> Pair:
    ids = {
        text: vlm.tokenizer(text, add_special_tokens=False)["input_ids"] + vlm.eos_ids for text in (chosen, rejected)
    }
    return Pair(
        id="p", example_id="e", round=0, images=["0"], prompt="Where is the nodule?", chosen=chosen, rejected=rejected,
        chosen_spans=chosen_spans, rejected_spans=rejected_spans, own="rejected", chosen_token_ids=ids[chosen],
        rejected_token_ids=ids[rejected], was_correct=False, edit_kind="side", editor="rules",
    )  # fmt: skip


def encode(vlm: VLM, given: Pair, **options) -> Sample:
    return encode_pair(vlm, given, [(4, 4)], **options)


def marked(vlm: VLM, sample: Sample, side: str) -> str:
    ids = [i for i, m in zip(sample.answers[side], sample.spans[side], strict=True) if m]
    return vlm.tokenizer.decode(ids)


def test_spans_become_the_tokens_that_carry_them(llava: VLM) -> None:
    given = pair(
        llava, "There is a nodule in the left lung.", "There is a nodule in the right lung.", [[25, 29]], [[25, 30]]
    )
    sample = encode(llava, given)
    assert marked(llava, sample, "chosen").strip() == "left" and marked(llava, sample, "rejected").strip() == "right"
    assert sample.fork == sample.spans["chosen"].index(True) == sample.spans["rejected"].index(True)


def test_white_space_around_the_text_shifts_nothing(llava: VLM) -> None:
    ids = llava.tokenizer(" left lung.", add_special_tokens=False)["input_ids"]
    for text, span in ((" left lung.", [1, 5]), ("left lung.", [0, 4])):
        marks = span_tokens(llava.tokenizer, ids, text, [span])
        assert llava.tokenizer.decode([i for i, m in zip(ids, marks, strict=True) if m]).strip() == "left"


@pytest.mark.parametrize("spans", [[], [[18, 18]]])
def test_an_insertion_has_no_token_or_the_one_that_follows_it(llava: VLM, spans) -> None:
    given = pair(llava, "There is a nodule in the left lung.", "There is a nodule.", [[17, 34]], spans)
    assert not any(encode(llava, given).spans["rejected"])
    followed = encode(llava, given, empty_span="next_token")
    assert sum(followed.spans["rejected"]) == 1
    expected = followed.fork if not spans else len(followed.answers["rejected"]) - 1
    assert followed.spans["rejected"].index(True) == expected


def test_every_deletion_has_its_next_token(llava: VLM) -> None:
    """Two edits, of which one takes a "no" out: the token behind it is edited like the words of the other edit, and
    methods that take no next token have it not."""
    given = pair(
        llava, "There is effusion. The nodule is on the right.", "There is no effusion. The nodule is on the left.",
        [[40, 45]], [[8, 11], [43, 47]],
    )  # fmt: skip
    sample = encode(llava, given, empty_span="next_token")
    assert marked(llava, sample, "chosen").split() == ["effusion", "right"]
    assert marked(llava, sample, "rejected").split() == ["no", "left"]
    plain = encode(llava, given)
    assert marked(llava, plain, "chosen").split() == ["right"] and marked(llava, plain, "rejected").split()[0] == "no"
    shared = [[i for i, m in zip(plain.answers[s], plain.spans[s], strict=True) if not m] for s in plain.spans]
    assert shared[0] == shared[1]


def test_a_deletion_parts_where_the_words_begin_to_differ(llava: VLM) -> None:
    """Behind the deleted "no nodule, " both say "no": the answers part at the word after."""
    text, other = "Left: clear. There is no effusion.", "Right: clear. There is no nodule, no effusion."
    given = pair(llava, text, other, [[0, 4]], [[0, 5], [24, 35]])
    sample = encode(llava, given, empty_span="next_token")
    assert marked(llava, sample, "chosen").split() == ["Left", "effusion"]


def test_spans_alone_for_the_data_ablation(llava: VLM) -> None:
    given = pair(
        llava, "There is a nodule in the left lung.", "There is a nodule in the right lung.", [[25, 29]], [[25, 30]]
    )
    sample = encode(llava, given, text="spans")
    assert llava.decode(sample.answers["chosen"]).strip() == "left"
    assert sample.answers["chosen"][-1] in llava.eos_ids and sample.spans["chosen"][-1] is False


@pytest.mark.parametrize("images", [[], ["0"]])
def test_an_empty_list_of_corrupted_images_is_none(llava: VLM, images: list[str]) -> None:
    """Text alone, written by a tool that has no null for lists: no visual term, and the gradient of the same pair."""
    given = pair(llava, "A nodule on the left.", "A nodule on the right.", [[16, 20]], [[16, 21]])
    grids, found = [(4, 4)] * len(images), []
    for corrupted in (None, []):
        own = replace(given, images=images, corrupted_images=corrupted)
        sample = encode_pair(llava, own, grids, None if corrupted is None else [])
        loss, metrics = steps(llava, [sample], "firempo").loss([0])
        assert metrics["loss/visual"].item() == 0 and metrics["visual/margins"].isnan().all()
        found.append(torch.cat([loss.detach()[None], gradient(llava, loss)]))
    assert found[0].equal(found[1])


@pytest.mark.parametrize(
    "changes, options, reason",
    [
        ({"chosen_token_ids": []}, {}, "empty_answer"),
        ({"rejected_token_ids": [20, 3, 21]}, {}, "image_token_in_answer"),
        ({}, {"max_length": 20}, "too_long"),
        ({"chosen_spans": [[30, 60]]}, {}, "span_mismatch"),
        ({"chosen_spans": [[5, 3]]}, {}, "span_mismatch"),
        ({"chosen": "Another text."}, {}, "span_mismatch"),
        ({"prompt": "What is <image>?"}, {}, "image_token_in_prompt"),
        ({}, {"corrupted_grids": [(4, 5)]}, "other_size"),
    ],
)
def test_what_cannot_be_trained_on_is_named(llava: VLM, changes, options, reason: str) -> None:
    given = pair(llava, "A nodule on the left.", "A nodule on the right.", [[16, 20]], [[16, 21]])
    given = replace(given, **changes)
    with pytest.raises(RowError) as caught:
        encode(llava, given, **options)
    assert caught.value.reason == reason
