"""The decoders' formulas by hand, their choices against brute force, and what each pass costs."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import tiny
import torch

from clinalign.decoding import decode, decoders
from clinalign.decoding.avisc import blind_tokens
from clinalign.decoding.cai import Calibration, calibrate, probe_accuracy
from clinalign.decoding.damro import outliers, outlying_features
from clinalign.decoding.decoders import custom_generate
from clinalign.decoding.loop import contrast, nucleus, plausible, start
from clinalign.decoding.m3id import weight
from clinalign.decoding.med_vcd import Sparse, clusters, early, prune, sunk
from clinalign.decoding.options import CAI, M3ID, SECOND, VCD, VHR, Beam, MedVCD
from clinalign.decoding.pai import Boost
from clinalign.decoding.second import entropy, kept_share, stages, with_counts
from clinalign.decoding.vcd import kept, noised_features
from clinalign.decoding.vhr import Reinforce, head_divergence, token_divergence, vision_aware
from clinalign.errors import UsageError
from clinalign.models.attention import Attention, AttentionRequest
from clinalign.models.generate import advance, prefill

PROMPTS = [("Where is the nodule?", [tiny.image(0, 40, 32)]), ("Describe the image.", [tiny.image(1, 32, 64)])]


@pytest.fixture(scope="module")
def llava():
    return tiny.tiny_llava()


# Golden arithmetic


def test_contrast_and_plausibility_by_hand() -> None:
    """z = [2, 1, 0], z' = [1, 1, 1], alpha 1: 2z - z' = [3, 1, -1]. ln .1 = -2.303: cut at -.303 keeps all; ln .5 =
    -.693: cut at 1.307 keeps only the first."""
    clean, other = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[1.0, 1.0, 1.0]])
    assert contrast(clean, other, 1.0, 0.1).tolist() == [[3.0, 1.0, -1.0]]
    assert contrast(clean, other, 1.0, 0.5).tolist() == [[3.0, -math.inf, -math.inf]]
    assert plausible(clean, clean, 0.0).equal(clean)


def test_the_diffusion_schedule_by_hand() -> None:
    assert kept(500) == pytest.approx(0.744799, abs=1e-6) and kept(0) == 1.0
    assert kept(999) == pytest.approx(0.0813, abs=1e-4) and math.sqrt(kept(700)) == pytest.approx(0.593, abs=1e-3)


def test_m3id_weights_by_hand() -> None:
    assert weight(1, 0.02) == pytest.approx(0.020201, abs=1e-6) and weight(50, 0.02) == pytest.approx(
        1.718282, abs=1e-6
    )


def test_pai_raises_scores_towards_and_above_zero_by_hand() -> None:
    """e = [-2, 1] on image keys, alpha .2: -2 + .4 = -1.6 and 1 + .2 = 1.2; a text key with e = 0 stays."""
    query = torch.tensor([[[[1.0]]]])
    key = torch.tensor([[[[-2.0], [1.0], [0.0]]]])
    value = torch.eye(3)[None, None]
    attention = Attention(3, query, key, value, None, 1.0, lambda: torch.zeros(1, 1, 1, 3))
    rule = Boost(0.2, 2, torch.tensor([[True, True, False]]))
    expected = torch.tensor([-1.6, 1.2, 0.0]).softmax(0)
    assert torch.allclose(rule(attention)[0, 0, 0], expected)
    assert Boost(0.2, 4, rule.images)(attention).sum() == 0, "layers below the first are left alone"


def test_avisc_chooses_layers_and_blind_tokens_by_hand() -> None:
    """Shares .4 .3 .2 .1 of the layers, gamma .5: cumulated .4 < .5, .7 not: two layers. Of their mean, [.05, .05, .05,
    .2], the mean is .0875, the deviation .065: only the last is at least .1525."""
    layers = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).T * torch.tensor([[1 / 7, 1 / 7, 1 / 7, 4 / 7]])
    assert blind_tokens(layers, 0.5, 1.0).tolist() == [False, False, False, True]
    uneven = torch.tensor([[0.0, 0.0, 0.4], [0.3, 0.0, 0.0], [0.2, 0.0, 0.0], [0.1, 0.0, 0.0]])
    assert blind_tokens(uneven, 0.5, 0.5).tolist() == [False, False, True], "two layers [.15, 0, .2]: .117 + .085 / 2"
    assert blind_tokens(uneven, 0.8, 0.5).tolist() == [True, False, False], (
        "three layers [.167, 0, .133]: .1 + .072 / 2"
    )
    assert blind_tokens(uneven, 0.5, -9.0).all()


def test_damro_keeps_exactly_the_outliers(llava) -> None:
    assert outliers(torch.linspace(0, 1, 576), 10).sum() == 10 and outliers(torch.linspace(0, 1, 576), 10)[-10:].all()
    features = outlying_features(start(llava, PROMPTS), 3)
    assert [int((f.abs().sum(1) > 0).sum()) for row in features for f in row] == [3, 3]


def test_nucleus_by_hand() -> None:
    kept_tokens = nucleus(torch.tensor([[0.5, 0.3, 0.15, 0.05]]), 0.7)
    assert kept_tokens.tolist()[0] == pytest.approx([0.5, 0.3, 0.0, 0.0])


# VCD, M3ID


def test_noise_is_drawn_once_an_image_and_reaches_the_tower(llava) -> None:
    batch, twice = start(llava, PROMPTS), start(llava, PROMPTS[:1])
    noised = noised_features(batch, 500, 0)
    assert noised[0][0].equal(noised_features(twice, 500, 0)[0][0])
    assert (noised[0][0] - noised_features(batch, 500, 1)[0][0]).abs().max() > 1e-3
    assert (noised[0][0] - batch.features[0][0]).abs().max() > 1e-3
    assert noised_features(batch, 0, 0)[0][0].equal(batch.features[0][0])


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_frames_of_a_still_image_get_the_same_noise(family: str) -> None:
    vlm = tiny.tiny(family)
    pixels = torch.zeros(12, 3 * 2 * 16)
    drawn = vlm.family.normals(vlm.processor, pixels, torch.Generator().manual_seed(0)).view(12, 3, 2, 16)
    assert drawn[:, :, 0].equal(drawn[:, :, 1]) and drawn.std() == pytest.approx(1.0, abs=0.1)


def test_the_branch_without_image_sees_the_answer(llava) -> None:
    """Its scores at a step are those of a forward over the prompt without image and all tokens so far."""
    batch = start(llava, PROMPTS[:1])
    steps = decoders.function_of(M3ID(beta=0.0))(batch, M3ID(beta=0.0))
    with llava.evaluating():
        next(steps)
        said = [11, 42, 7]
        for token in said:
            scores = steps.send(torch.tensor([token]))
        steps.close()
        clean = prefill(llava, [batch.ids[0] + said], batch.features, batch.grids).logits.log_softmax(-1)
        ids, none, _ = batch.text_only
        unseen = prefill(llava, [ids[0] + said], none, none).logits.log_softmax(-1)
    assert torch.allclose(scores, clean + weight(4, 0.02) * (clean - unseen), atol=1e-4)


# VHR


def test_heads_that_move_with_the_image_are_chosen_by_hand() -> None:
    """Divergences 1, 2, 3, 10 and text norms 1, 1, 1, 9: the last stands out in both and counts 0; of 1, 2, 3, 0 the
    median is 1.5: heads 1 and 2."""
    blind_outputs = torch.tensor([[[1.0], [1.0], [1.0], [9.0]]])
    seeing = blind_outputs + torch.tensor([[[1.0], [2.0], [3.0], [10.0]]])
    assert vision_aware(seeing, blind_outputs).tolist() == [[False, True, True, False]]
    assert not vision_aware(blind_outputs, blind_outputs).any(), "without an image nothing exceeds the median"


def test_reinforced_sets_stay_and_the_image_is_left_out_once(llava, monkeypatch) -> None:
    seen = []
    real = Reinforce.__call__

    def watched(self, attention):
        out = real(self, attention)
        seen.append((attention.layer, attention.query.shape[0], self.factors[attention.layer].clone()))
        return out

    monkeypatch.setattr(Reinforce, "__call__", watched)
    decode(llava, PROMPTS, VHR(), max_new_tokens=5)
    assert {rows for _, rows, _ in seen} == {2} and len(seen) == 2 * 5, "one prefill, then the prompts alone"
    for layer in (0, 1):
        sets = [factors for at, _, factors in seen if at == layer]
        assert all(factors.equal(sets[0]) for factors in sets) and set(sets[0].unique().tolist()) <= {1.0, 2.0}
        assert sets[0].shape == (2, 4), "query heads, not the fewer key heads"


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3"])
def test_a_prompt_beside_itself_without_images_is_two_prompts(family: str) -> None:
    """The reinforced first step, against rows [with | without images] of one batch and the choice made from them."""
    vlm = tiny.tiny(family)
    batch = start(vlm, PROMPTS)
    factors: dict[int, torch.Tensor] = {}

    def naive(attention):
        out = attention.plain()
        chosen = vision_aware(*out[:, -1].chunk(2), 8 * torch.finfo(out.dtype).eps)
        factors[attention.layer] = torch.where(chosen, 2.0, 1.0)
        out[:, -1] *= factors[attention.layer].repeat(2, 1)[:, :, None]
        return out

    rule = Reinforce(range(len(vlm.language_model.layers)), 2.0, batch.images)
    with vlm.evaluating():
        two = prefill(vlm, *batch.pair_text_only(), AttentionRequest(rule=naive))
        one = prefill(
            vlm, batch.ids, batch.features, batch.grids, AttentionRequest(rule=rule), beside=batch.text_only[0]
        )
        assert torch.allclose(one.logits, two.logits[:2], atol=1e-4)
        for layer, chosen in factors.items():
            assert rule.factors[layer].equal(chosen)
        tokens = torch.tensor([11, 12])
        two.select(torch.tensor([0, 1]))
        assert torch.allclose(advance(vlm, one, tokens), advance(vlm, two, tokens), atol=1e-4)


def test_a_head_that_moves_by_rounding_alone_is_not_reinforced() -> None:
    """Outputs (1, 0) and (1 + 1e-7, 0): nothing of the image is in sight; (1, 0) and (2, 0): something is."""
    text = torch.tensor([[[1.0, 0.0]] * 4])
    moved = text + torch.tensor([[[1e-7, 0.0], [0.0, 0.0], [2e-7, 0.0], [0.0, 0.0]]])
    eps = torch.finfo(torch.float32).eps
    assert vision_aware(moved, text).any() and not vision_aware(moved, text, 8 * eps).any()
    moved[0, 3, 0] = 2.0
    assert vision_aware(moved, text, 8 * eps).tolist() == [[False, False, False, True]]


def test_divergence_of_an_answer_token_by_token(llava) -> None:
    answer = decode(llava, PROMPTS[:1], max_new_tokens=6)[0].token_ids
    found = head_divergence(llava, *PROMPTS[0], answer)
    assert found.shape == (len(answer), 2, 4) and (found > 0).all()
    first = head_divergence(llava, *PROMPTS[0], answer[:1])
    assert torch.allclose(found[:1], first, atol=1e-4)
    by_hand = found.sort(-1, descending=True).values[..., :2].sum((1, 2))
    assert torch.allclose(token_divergence(found, 2), by_hand)


# Med-VCD


def test_the_worthiest_tokens_are_those_of_an_exhaustive_search() -> None:
    """min over masks of sum (<q,K> - M <q,K>)^2 - lambda P M with a fixed size: the top of <q,K>^2 + lambda P."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        products, salience = torch.randn(8, generator=draw), torch.rand(8, generator=draw)
        chosen = set((products**2 + 0.5 * salience).topk(5).indices.tolist())

        def cost(mask, products=products, salience=salience):
            out = [i for i in range(8) if i not in mask]
            return float((products[out] ** 2).sum() - 0.5 * salience[list(mask)].sum())

        assert set(min(itertools.combinations(range(8), 5), key=cost)) == chosen


def test_a_sink_loses_weight_by_hand() -> None:
    """All attention so far on key 0: w = softmax([40, 0, 0]) ~ [1, 0, 0]: e = [2, 1, 0] becomes [2, 1.1, 0] at .1;
    equal w only scales by 1 + beta - beta / n."""
    scores = torch.tensor([[[[2.0, 1.0, 0.0]]]])
    assert torch.allclose(sunk(scores, torch.tensor([[[[40.0, 0.0, 0.0]]]]), 0.1), torch.tensor([[[[2.0, 1.1, 0.0]]]]))
    flat = sunk(scores, torch.zeros(1, 1, 1, 3), 0.1)
    assert torch.allclose(flat, scores * (1 + 0.1 - 0.1 / 3))


@pytest.mark.parametrize("merge", ["sum", "mean"])
def test_the_cache_holds_what_was_kept_and_the_clusters(llava, merge: str) -> None:
    options = MedVCD(keep=0.5, clusters=3, merge=merge)
    batch = start(llava, PROMPTS)
    longest = max(map(len, batch.ids))
    seen = torch.stack([torch.arange(longest) >= longest - len(ids) for ids in batch.ids])
    images = torch.zeros_like(seen)
    for i, ids in enumerate(batch.ids):
        images[i, longest - len(ids) :] = torch.tensor(ids) == llava.image_token_id
    rule = Sparse(options, images, seen)
    with llava.evaluating():
        state = prefill(llava, batch.ids, batch.features, batch.grids, AttentionRequest(rule=rule))
        before = copy.deepcopy(state.cache)
        prune(state, rule, options)
    sizes = [math.ceil(0.5 * len(ids)) + 3 for ids in batch.ids]
    assert state.attention_mask.sum(1).tolist() == sizes and state.cache.get_seq_length() == max(sizes)
    for layer, worth in rule.worth.items():
        for row, group in itertools.product(range(2), range(2)):
            own = before.layers[layer].keys[row, group]
            order = worth[row, group].argsort(descending=True, stable=True)
            stay, leave = order[: sizes[row] - 3].sort().values, order[sizes[row] - 3 : len(batch.ids[row])]
            kept_keys = state.cache.layers[layer].keys[row, group, -sizes[row] :]
            assert kept_keys[:-3].equal(own[stay])
            merged = kept_keys[-3:]
            if merge == "sum":
                assert torch.allclose(merged.sum(0), own[leave].sum(0), atol=1e-4)
            members = clusters(before.layers[layer].keys[row][:, leave], 3) if group == 0 else None
            assert members is None or (members.sum(1) == 1).all()


def test_clusters_find_clusters() -> None:
    points = torch.tensor([[[0.0], [0.1], [5.0], [5.1], [9.0]]])
    found = clusters(points, 3)[0]
    assert (found.sum(0) == 1).all() and found[:, 0].equal(found[:, 1]) and found[:, 2].equal(found[:, 3])
    assert not found[:, 4].equal(found[:, 3]) and clusters(points, 5)[0].sum(1).tolist() == [1.0] * 5


@pytest.mark.parametrize("name", ["med_vcd", "cai", "vhr"])
def test_no_second_pass_after_the_prefill(llava, name: str, tmp_path) -> None:
    given = {}
    if name == "cai":
        given["calibration"] = str(tmp_path / "cai.safetensors")
        calibrate(llava, [tiny.image(i) for i in range(10)], ["Where?"] * 10).save(tmp_path / "cai.safetensors")
    options = decoders.as_options(name).model_copy(update=given)
    rows = []
    hooks = [
        layer.register_forward_hook(lambda m, args, out: rows.append(out.shape[:2]))
        for layer in llava.language_model.layers
    ]
    answer = decode(llava, PROMPTS[:1], options, max_new_tokens=6)[0].token_ids
    for hook in hooks:
        hook.remove()
    after = [tuple(shape) for shape in rows if shape[1] == 1]
    assert after == [(1, 1)] * 2 * (len(answer) - 1) and len(rows) == 2 * len(answer)


def test_the_contrast_of_med_vcd_is_the_state_before_the_first_layer(llava) -> None:
    token = torch.tensor([11])
    state = llava.language_model.norm(llava.language_model.embed_tokens(token))
    assert torch.allclose(early(llava, token), state)
    batch = start(llava, PROMPTS[:1])
    with llava.evaluating():
        steps = decoders.function_of(MedVCD(sink=0.0, keep=1.0, beta=0.0))(batch, MedVCD(sink=0.0, keep=1.0, beta=0.0))
        first, plain = next(steps), prefill(llava, batch.ids, batch.features, batch.grids)
        last = torch.tensor([batch.ids[0][-1]])
        expected = 1.1 * plain.logits - 0.1 * early(llava, last) @ llava.head.weight.T
        assert torch.allclose(first, expected, atol=1e-4)
        second, other = steps.send(token), advance(llava, plain, token)
        assert torch.allclose(second, 1.1 * other - 0.1 * state @ llava.head.weight.T, atol=1e-4)
        steps.close()


# CAI


def test_a_planted_head_and_direction_are_found() -> None:
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 40, 2, 4, 8, generator=draw)
    first[:, 1, 2] += 3.0
    accuracy = probe_accuracy(first, second, 5)
    assert accuracy.argmax() == 6 and accuracy[1, 2] > 0.9 and accuracy.view(-1).sort().values[-2] < 0.75


def test_calibration_is_kept_and_belongs_to_a_model(llava, tmp_path) -> None:
    pictures = [tiny.image(i) for i in range(10)]
    found = calibrate(llava, pictures, ["Where is the nodule?"] * 10, share=0.25)
    assert found.heads.shape == (2, 2) and found.shift.shape == (2, 8) and found.query
    found.save(tmp_path / "c")
    again = Calibration.load(tmp_path / "c")
    assert again.heads.equal(found.heads) and again.shift.equal(found.shift) and again.query == found.query
    with pytest.raises(UsageError, match="of another model"):
        decode(tiny.tiny_llava(seed=9), PROMPTS, CAI(calibration=str(tmp_path / "c")))
    with pytest.raises(UsageError, match="no calibration; make one"):
        decode(llava, PROMPTS, "cai")
    with pytest.raises(UsageError, match="is missing"):
        decode(llava, PROMPTS, CAI(calibration=str(tmp_path / "none")))
    (tmp_path / "bad").write_bytes(b"1234567890")
    with pytest.raises(UsageError, match="damaged, or not a calibration"):
        decode(llava, PROMPTS, CAI(calibration=str(tmp_path / "bad")))
    with pytest.raises(UsageError, match="10 images or more"):
        calibrate(llava, pictures[:4], ["Where?"] * 4)


# SECOND


def test_the_share_of_patches_by_hand() -> None:
    assert kept_share(1.0, 1.0) == pytest.approx(1.0) and kept_share(0.0, 1.0) == kept_share(0.1, 1.0)
    shares = [kept_share(h / 10, 1.0) for h in range(1, 11)]
    assert shares == sorted(shares) and kept_share(0.4, 1e-6) == pytest.approx(0.4, abs=1e-5)
    assert entropy(torch.ones(4, 4)) == pytest.approx(1.0) and entropy(torch.eye(1)) == 0.0
    one = torch.zeros(4, 4)
    one[1, 2] = 3.0
    assert entropy(one) == pytest.approx(0.0, abs=1e-6)


def test_stages_telescope(llava) -> None:
    """alpha 1 everywhere: z_S + (z_S - z_1) = 2 z_S - z_1."""
    batch = start(llava, PROMPTS)
    options = SECOND(scales=[0.5, 1.0, 2.0], alphas=[1.0, 1.0], top=0)
    states = stages(batch, options)
    scores = next(decoders.function_of(options)(batch, options))
    assert torch.allclose(scores, 2 * states[-1].logits - states[0].logits, atol=1e-4)


def test_each_stage_sees_the_chosen_patches_of_all_coarser_ones(llava) -> None:
    batch = start(llava, PROMPTS)
    everything = stages(batch, SECOND(scales=[0.5, 1.0, 2.0], alphas=[0.8, 0.8], select=False))
    assert [s.images.sum(1).tolist() for s in everything] == [[4, 4], [20, 20], [84, 84]]
    some = stages(batch, SECOND(scales=[0.5, 1.0, 2.0], alphas=[0.8, 0.8], lam=4.0))
    for count in some[1].images.sum(1).tolist():
        assert 4 < count <= 20
    assert with_counts([1, 9, 9, 2, 9, 3], 9, [1, 3], [2, 1]) == [1, 9, 2, 9, 9, 9, 3]


def test_an_alpha_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="one alpha fewer"):
        SECOND(scales=[1.0], alphas=[0.5])


# Beam search, generate


@pytest.mark.parametrize("penalty", [1.0, 0.0, 2.0])
def test_beam_search_is_that_of_transformers(llava, penalty: float) -> None:
    prompts = [(text, images) for text, images in PROMPTS]
    options = Beam(beams=3, length_penalty=penalty)
    ours = [a.token_ids for a in decode(llava, prompts, options, max_new_tokens=12, batch_size=1)]
    assert ours == [a.token_ids for a in decode(llava, prompts, options, max_new_tokens=12, batch_size=2)]
    for (text, images), own in zip(prompts, ours, strict=True):
        inputs = llava.processor(text=llava.prompt_text(text, 1), images=images, return_tensors="pt")
        out = llava.model.generate(
            **inputs, num_beams=3, do_sample=False, max_new_tokens=12, length_penalty=penalty,
            suppress_tokens=llava.banned_ids,
        )  # fmt: skip
        theirs = out[0, inputs["input_ids"].shape[1] :].tolist()
        assert own == theirs


def test_any_decoder_inside_generate(llava) -> None:
    texts = [llava.prompt_text(text, 1) for text, _ in PROMPTS]
    images = [images[0] for _, images in PROMPTS]
    inputs = llava.processor(text=texts, images=images, return_tensors="pt", padding=True)
    for name in ("vcd", "greedy"):
        out = llava.model.generate(
            **inputs, max_new_tokens=8, do_sample=False, custom_generate=custom_generate(llava, name), prompts=PROMPTS
        )
        ours = decode(llava, PROMPTS, name, max_new_tokens=8)
        for row, own in zip(out[:, inputs["input_ids"].shape[1] :].tolist(), ours, strict=True):
            assert row[: len(own.token_ids)] == own.token_ids
    plain = llava.model.generate(**inputs, max_new_tokens=8, do_sample=False, suppress_tokens=llava.banned_ids)
    assert out.equal(plain[:, : out.shape[1]])
    with pytest.raises(UsageError, match="prompts="):
        llava.model.generate(**inputs, max_new_tokens=8, custom_generate=custom_generate(llava, VCD()))
    with pytest.raises(UsageError, match="is not prompt 0"):
        llava.model.generate(
            **inputs, max_new_tokens=8, custom_generate=custom_generate(llava, "vcd"), prompts=PROMPTS[::-1]
        )
    with pytest.raises(UsageError, match="do_sample"):
        llava.model.generate(
            **inputs, max_new_tokens=8, do_sample=True, custom_generate=custom_generate(llava, "vcd"), prompts=PROMPTS
        )


def test_advance_keeps_count_of_image_columns(llava) -> None:
    batch = start(llava, PROMPTS)
    state = prefill(llava, batch.ids, batch.features, batch.grids)
    advance(llava, state, torch.tensor([11, 12]))
    assert state.images.shape == state.attention_mask.shape and state.images.sum(1).tolist() == [16, 16]
    state.select(torch.tensor([1]))
    assert state.logits.shape[0] == 1 and state.cache.layers[0].keys.shape[0] == 1
