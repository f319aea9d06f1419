"""IMCCD and CMAC: each variant against its written formula, by hand and by loops."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace

import pytest
import tiny
import torch

from clinalign.decoding import decoders
from clinalign.decoding import imccd as imccd_module
from clinalign.decoding.imccd import Calibrated, displacement
from clinalign.decoding.loop import start
from clinalign.decoding.options import IMCCD
from clinalign.models.attention import REQUEST, Attention, AttentionRequest
from clinalign.models.generate import advance, prefill

PROMPTS = [("Where is the nodule?", [tiny.image(0, 40, 32)]), ("Describe the image.", [tiny.image(1, 32, 64)])]


@pytest.fixture(scope="module")
def llava():
    return tiny.tiny_llava()


def attention_of(rows=4, heads=4, groups=2, queries=5, keys=5, width=8, seed=0) -> Attention:
    draw = torch.Generator().manual_seed(seed)
    query, key, value = (
        torch.randn(rows, h, n, width, generator=draw) for h, n in ((heads, queries), (groups, keys), (groups, keys))
    )
    attention = Attention(0, query, key, value, None, width**-0.5, lambda: torch.zeros(0))
    attention.plain = lambda: attention.mixed(attention.scores().softmax(-1))
    return attention


def calibrated(options: IMCCD, images: torch.Tensor) -> Calibrated:
    after = (images.cumsum(1) > 0) & ~images
    return Calibrated(options, images, after, torch.zeros(1, *images.shape), None)


def test_erased_values_against_a_loop() -> None:
    images = torch.tensor([[False, True, True, False, False], [True, True, False, False, False]])
    attention = attention_of()
    out = calibrated(IMCCD(gamma=1.0), images)(attention)
    scores, key, value = attention.scores(), attention.key, attention.value
    after = (images.cumsum(1) > 0) & ~images
    for row in range(4):
        own, behind = images[row % 2], after[row % 2]
        pairs = [(h, q, k) for h in range(4) for q in range(5) for k in range(5) if behind[q] and own[k]]
        mean = sum(float(scores[row, h, q, k]) for h, q, k in pairs) / len(pairs)
        for h, q in itertools.product(range(4), range(5)):
            weights = scores[row, h, q].softmax(0)
            total = torch.zeros(8)
            for k in range(q + 1):
                gone = row >= 2 and behind[q] and own[k] and scores[row, h, q, k] > mean
                total += weights[k] * (value[row, h // 2, own].mean(0) if gone else value[row, h // 2, k])
            assert torch.allclose(out[row, q, h], total, atol=1e-5), (row, h, q)
    assert key.shape[1] == 2


def test_one_number_a_head_in_the_variant_of_the_code() -> None:
    images = torch.tensor([[True, True, False, False, False]] * 2)
    attention = attention_of()
    mean = calibrated(IMCCD(variant="code"), images)._mean_value(attention)
    assert mean.shape == (2, 1, 4, 8) and torch.allclose(mean[1, 0, 3], attention.value[3, 1, :2].mean().expand(8))


def test_everything_erased_gives_the_mean_value() -> None:
    """A query that sees only image keys, all of them erased: the output is their mean value."""
    images = torch.tensor([[True, True, True, False]])
    attention = attention_of(rows=2, queries=1, keys=4)
    attention.mask = torch.tensor([[[[True, True, True, False]]]]).expand(2, 1, 1, 4)
    rule = Calibrated(
        IMCCD(gamma=1.0, threshold=-1e9), images, (images.cumsum(1) > 0) & ~images, torch.zeros(1, 1, 4), None
    )
    out = rule(attention)
    mean = attention.value[1, :, :3].mean(1)
    assert torch.allclose(out[1, 0], mean.repeat_interleave(2, 0), atol=1e-5)


ROOT = 2**0.5
WORKED = [
    # One query, image keys 0 and 1, text key 2, values 1, 3, 5 (image mean 2); e = (0, ln 4, 0), c = (ln 4, 0, .).
    # CMPC: s = c on the image: w = (4, 1, 1) / 6, and key 0 is above the mean ln 2.
    ({"version": "cmac"}, (4 + 3 + 5) / 6, (4 * 2 + 3 + 5) / 6),
    ({"version": "cmac", "variant": "paper"}, (4 + 3 + 5) / 6, (4 * 2 + 3 + 5) / 6),
    # CDAR, mixing 3/4: s = (3/4 ln 4, 1/4 ln 4, 0): w = (2 root 2, root 2, 1) / (3 root 2 + 1), key 0 is erased.
    (
        {"version": "imccd", "mixing": 0.75},
        (2 * ROOT + 3 * ROOT + 5) / (3 * ROOT + 1),
        (2 * ROOT * 2 + 3 * ROOT + 5) / (3 * ROOT + 1),
    ),
    # The paper mixes (1, 4, 1) / 6 and (4, 1, 1) / 6 on the image: w = (3.25, 1.75, 1) / 6, and by e key 1 is erased.
    (
        {"version": "imccd", "mixing": 0.75, "variant": "paper"},
        (3.25 + 3 * 1.75 + 5) / 6,
        (3.25 + 1.75 * 2 + 5) / 6,
    ),
]


@pytest.mark.parametrize(("given", "clean", "distorted"), WORKED)
def test_calibrated_attention_by_hand(given, clean: float, distorted: float) -> None:
    keys = torch.tensor([0.0, math.log(4), 0.0]).view(1, 1, 3, 1).repeat(2, 1, 1, 1)
    values = torch.tensor([1.0, 3.0, 5.0]).view(1, 1, 3, 1).repeat(2, 1, 1, 1)
    attention = Attention(0, torch.ones(2, 1, 1, 1), keys, values, None, 1.0, lambda: torch.zeros(0))
    near = replace(attention, key=torch.tensor([math.log(4), 0.0, 0.0]).view(1, 1, 3, 1).repeat(2, 1, 1, 1))
    images = torch.tensor([[True, True, False]])
    rule = calibrated(IMCCD(**given), images)
    rule.means[0] = rule._mean_value(attention)
    out = rule._attend(attention, 0, torch.ones(2, 1, dtype=torch.bool), near)
    assert out.flatten().tolist() == pytest.approx([clean, distorted], abs=1e-5)


def formula(attention, keys, rule, shift, behind):
    """The docstring's formula, pair by pair. keys: as they stood before any replacement; shift [A, B, K]: how far each
    token moves; the queries are the last columns. Output [B, Q, H, d]."""
    o, half = rule.options, len(rule.images)
    rows, heads, queries, width = attention.query.shape
    whole = replace(attention, key=keys)
    angles = rule.rotary(attention.query.float(), shift[0] if len(shift) == 1 else shift)
    late = tuple(part[:, -queries:] for part in angles)
    moved = replace(
        whole, query=imccd_module.turned(attention.query, late, rule.rotary),
        key=imccd_module.turned(keys, angles, rule.rotary),
    )  # fmt: skip
    e, c, out = whole.scores(), moved.scores(), torch.zeros(rows, queries, heads, width)
    on = o.version == "cmac" or o.variant != "code" or attention.layer < 6
    for b in range(rows):
        image = [k for k in range(rule.images.shape[1]) if rule.images[b % half, k]]
        asked = [q for q in range(queries) if behind[b % half, q]]
        s = e[b].clone()
        for h, q, k in itertools.product(range(heads), asked, image):
            if on and o.version == "cmac":
                s[h, q, k] = c[b, h, q, k]
            elif on and o.variant != "paper":
                s[h, q, k] = (1 - o.mixing) * e[b, h, q, k] + o.mixing * c[b, h, q, k]
        judged = s[:, asked][:, :, image]  # text between two images sees only the first
        mean = judged[judged > -math.inf].mean() if asked else 0.0
        for h, q in itertools.product(range(heads), range(queries)):
            group = h * keys.shape[1] // heads
            weights, values = s[h, q].softmax(0), attention.value[b, group].clone()
            if o.version == "imccd" and o.variant == "paper" and q in asked:
                weights[image] = (1 - o.mixing) * weights[image] + o.mixing * c[b, h, q].softmax(0)[image]
            for k in image if b >= half and q in asked else ():
                if s[h, q, k] > mean:
                    value = attention.value[b, group, image].mean(0)
                    values[k] = value.mean().expand(width) if o.variant == "code" else value
            out[b, q, h] = weights @ values
    return out


@pytest.mark.parametrize("variant", ["sound", "paper", "code"])
@pytest.mark.parametrize("version", ["cmac", "imccd"])
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_each_layer_follows_the_formula_at_the_prompt_and_after_it(family: str, version: str, variant: str) -> None:
    """Against loops over absolute calibrated positions and unreplaced keys, two images between words included."""
    vlm = tiny.tiny(family)
    batch = start(vlm, [("Where is the nodule?", [tiny.image(0, 28, 28), tiny.image(1, 28, 28)]), ("Describe.", [])])
    rule, seen = Calibrated.of(batch, IMCCD(version=version, variant=variant, mixing=0.3)), []

    def watched(attention):
        kept = replace(attention, key=attention.key.clone())
        seen.append((kept, rule(attention)))
        return seen[-1][1]

    with vlm.evaluating():
        state = prefill(vlm, *batch.pair(batch.features), AttentionRequest(rule=watched))
        rule.settle(state.cache)
        advance(vlm, state, torch.tensor([11, 12, 11, 12]), AttentionRequest(rule=watched))
    length, layers = rule.images.shape[1], len(vlm.language_model.layers)
    padding = state.attention_mask[:, :length]
    for layer in range(layers):
        (prompt, first), (later, second) = seen[layer], seen[layers + layer]
        shift = rule.nearer.repeat(1, 2, 1)
        expected = formula(prompt, prompt.key, rule, shift, rule.after)
        assert torch.allclose(first[padding], expected[padding], atol=1e-4)
        keys = torch.cat([prompt.key, later.key[:, :, length:]], dim=2)
        shift = torch.cat([shift, shift[..., -1:]], dim=-1)
        expected = formula(later, keys, rule, shift, rule.images.any(1, keepdim=True))
        assert torch.allclose(second, expected, atol=1e-4)


def test_what_the_variants_default_to() -> None:
    """The paper compresses by 2; the code takes steps of 3 in text and 1 in images, all over 3."""
    found = {v: imccd_module._compressed(IMCCD(variant=v)) for v in ("sound", "paper", "code")}
    assert found == {"sound": 2.0, "paper": 2.0, "code": 3.0}
    rule = calibrated(IMCCD(version="imccd", variant="code"), torch.tensor([[True, False]]))
    assert [rule._calibrates(layer) for layer in (0, 5, 6)] == [True, True, False]


def test_positions_of_an_image_by_hand() -> None:
    """Text 0 1, image 2..5, text 6 7. gamma 2: image 2, 2.5, 3, 3.5, text 4 5. One position: image 2, text 3 4."""
    positions = torch.arange(8)[None]
    images = torch.tensor([False, False, True, True, True, True, False, False])
    moved = positions + displacement(positions, images, [4], 2.0)
    assert moved.tolist() == [[0, 1, 2, 2.5, 3, 3.5, 4, 5]]
    assert (positions + displacement(positions, images, [4], math.inf)).tolist() == [[0, 1, 2, 2, 2, 2, 3, 4]]
    assert not displacement(positions, images, [4], 1.0).any()
    two = torch.tensor([True, True, False, True, True, False, False, False])
    assert (positions + displacement(positions, two, [2, 2], 2.0)).tolist() == [[0, 0.5, 1, 2, 2.5, 3, 4, 5]]


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "qwen3_vl"])
def test_rotating_further_is_standing_further(family: str) -> None:
    """Queries and keys rotated by a displacement score as a forward at the displaced positions does."""
    vlm = tiny.tiny(family)
    ids = torch.tensor([vlm.prompt_ids("Where is the nodule? Describe.", [])])
    axes, length = vlm.family.axes, ids.shape[1]
    places = torch.arange(length).expand(axes, 1, -1)
    shift = torch.randint(0, 7, (1, length), generator=torch.Generator().manual_seed(0)).cumsum(1).expand(axes, 1, -1)
    caught = []

    def catch(attention):
        caught.append(attention)
        return attention.plain()

    mask = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    with vlm.evaluating():
        for positions in (places, places + shift):
            vlm.language_model(
                inputs_embeds=vlm.embed(ids, [[]])[0], attention_mask=mask, position_ids=vlm.axes(positions),
                use_cache=False, **{REQUEST: AttentionRequest(rule=catch)},
            )  # fmt: skip
    first, moved = caught[0], caught[len(vlm.language_model.layers)]
    by = vlm.axes(shift).float()
    rotary = vlm.language_model.rotary_emb
    query, key = (imccd_module.turned(states, rotary(states, by), rotary) for states in (first.query, first.key))
    assert torch.allclose(query, moved.query, atol=1e-4) and torch.allclose(key, moved.key, atol=1e-4)


def test_the_distorted_branch_may_share_the_images_prefix(llava) -> None:
    """T3: a cache of the clean prefix, and only the text behind the image run again under the rule, gives the same."""
    batch = start(llava, PROMPTS[:1])
    rule = Calibrated.of(batch, IMCCD(gamma=1.0))
    with llava.evaluating():
        whole = prefill(llava, *batch.pair(batch.features), AttentionRequest(rule=rule))
        end = max(i for i, t in enumerate(batch.ids[0]) if t == llava.image_token_id) + 1
        shared = prefill(llava, [batch.ids[0][:end]] * 2, batch.features * 2, batch.grids * 2)
        cache, ids = copy.deepcopy(shared.cache), torch.tensor([batch.ids[0]] * 2)
        length = ids.shape[1]
        mask = torch.ones(2, 1, length, length, dtype=torch.bool).tril()[:, :, end:]
        out = llava.language_model(
            inputs_embeds=llava.language_model.get_input_embeddings()(ids[:, end:]), attention_mask=mask,
            position_ids=torch.arange(end, length)[None].expand(2, -1), past_key_values=cache, use_cache=True,
            **{REQUEST: AttentionRequest(rule=rule)},
        )  # fmt: skip
    assert torch.allclose(llava.logits(out.last_hidden_state[:, -1]), whole.logits, atol=1e-4)
    assert (whole.logits[0] - whole.logits[1]).abs().max() > 1e-2


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize("version", ["cmac", "imccd"])
def test_displaced_keys_are_kept_from_step_to_step(family: str, version: str) -> None:
    """The clean branch step by step on its cache is a prompt with the answer so far, run anew."""
    vlm = tiny.tiny(family)
    options = IMCCD(version=version, alpha=0.0, beta=0.0)
    batch = start(vlm, PROMPTS)
    with vlm.evaluating():
        steps = decoders.function_of(options)(batch, options)
        next(steps)
        for token in (11, 42, 7):
            scores = steps.send(torch.tensor([token, token + 1]))
        steps.close()
        longer = [ids + [11 + i, 42 + i, 7 + i] for i, ids in enumerate(batch.ids)]
        again = decoders.PromptBatch(vlm, batch.prompts, longer, batch.features, batch.grids)
        anew = decoders.function_of(options)(again, options)
        assert torch.allclose(scores, next(anew), atol=2e-4)
        anew.close()
