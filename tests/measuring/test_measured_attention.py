"""Attention measured at the lesion, and rewards at the words: hand-worked values and equality with whole eager maps."""

import math
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from clinalign.evaluation import summarise
from clinalign.measuring import attention as G
from clinalign.measuring import evaluate
from clinalign.measuring.evidence import Paired, counterfactual
from clinalign.measuring.options import EvaluationOptions
from clinalign.models.features import from_arrays
from clinalign.models.generate import encode_prompts
from clinalign.models.tree import Fork, TreeScores, score, tree_of
from clinalign.records import Example, Region

OPTIONS = EvaluationOptions(flips=[], calibration=False, grounding=True, batch_size=8, max_new_tokens=6, resamples=100)


def test_fractions_of_rectangles():
    """A 4 x 4 image whose right half is lesion, except its top row."""
    mask = np.zeros((4, 4), bool)
    mask[1:, 2:] = True
    rects = np.array([[0, 0, 2, 2], [2, 0, 2, 2], [2, 2, 2, 2], [1, 1, 2, 1], [1.5, 0.5, 1, 1], [3, 3, 0, 1]])
    assert G.token_fractions(mask, rects) == pytest.approx([0, 0.5, 1, 0.5, 0.25, 0])


def test_fractions_equal_counting_pixels():
    rng = np.random.default_rng(0)
    mask = rng.random((30, 40)) < 0.3
    rects = np.array([[x, y, w, h] for x, y, w, h in rng.integers(0, 15, (50, 4)) + [0, 0, 1, 1]])
    counted = [mask[y : y + h, x : x + w].mean() for x, y, w, h in rects]
    assert G.token_fractions(mask, rects) == pytest.approx(counted)


def test_measures_by_hand():
    got = G.attention_measures(np.array([0.2, 0.3, 0.1]), np.array([0.2, 0.1, 0.1]), np.array([0.0, 1.0, 0.0]))
    assert got["ratio"] == pytest.approx(1.8) and got["kl"] == pytest.approx(math.log(5 / 3))
    js = (math.log(1 / 0.8) + 0.4 * math.log(2) + 0.6 * math.log(0.6 / 0.8)) / 2
    assert got["js"] == pytest.approx(js) and got["pointing"] == 1.0


def test_measures_of_the_two_extremes():
    mask, general = np.array([0.0, 0.5, 1.0, 0.0]), np.full(4, 0.25)
    same = G.attention_measures(mask / 1.5, general, mask)
    assert same["kl"] == pytest.approx(0) and same["js"] == pytest.approx(0)
    away = G.attention_measures(np.array([1.0, 0, 0, 0]), general, mask)
    assert away["kl"] == math.inf and away["js"] == pytest.approx(math.log(2)) and away["pointing"] == 0
    even = G.attention_measures(general, general, mask)
    assert even["ratio"] == pytest.approx(1)


def test_a_layer_that_does_not_see_the_image_is_not_measured():
    mask, some, none = np.array([0.0, 1.0]), np.array([0.3, 0.2]), np.zeros(2)
    assert G.attention_measures(none, some, mask) == G.attention_measures(some, none, mask) == {}
    assert G.attention_measures(some, np.array([0.0, 0.1]), mask) == {}


def test_span_ranking_by_hand():
    got = G.span_ranking([3.0, 1.0, 2.0, 0.0], [True, True, False, False])
    assert got == {5: 0.5, 10: 0.5, 25: 0.5, 50: 0.5, 75: 1.0}


@pytest.mark.parametrize("family", tiny.EVERY_FAMILY)
def test_rows_of_a_batch_equal_rows_alone(family):
    """Prompts of different lengths, images of different sizes, one question about two images."""
    vlm = tiny.tiny(family)
    prompts, images = ["Where is the nodule?", "Is it left?"], [[tiny_image(0)], [tiny_image(1), tiny_image(2)]]
    asked = [Example("e", [], prompt, "") for prompt in prompts]
    for found, example, shown in zip(G.relative_rows(vlm, asked, images), asked, images, strict=True):
        for rows, alone in zip(found, G.relative_rows(vlm, [example], [shown])[0], strict=True):
            shapes = [(len(vlm.language_model.layers), len(vlm.image_token_rects(image))) for image in shown]
            assert [row.shape for row in rows] == shapes
            assert np.concatenate(rows, 1) == pytest.approx(np.concatenate(alone, 1), abs=1e-6)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_rows_equal_whole_eager_maps(family, world):
    """The naive route: one prompt at a time, every map of every layer, then the one row that is wanted."""
    vlm = tiny.tiny(family)
    chosen = world.examples[:3]
    images = [[tiny_image(n)] for n in range(len(chosen))]
    got = G.relative_rows(vlm, chosen, images)
    for ([own], [general]), example, shown in zip(got, chosen, images, strict=True):
        for found, prompt in ((own, example.question), (general, G.GENERAL)):
            assert found == pytest.approx(_eager_row(vlm, prompt, shown), abs=1e-6)


def tiny_image(number):
    return np.random.default_rng(number).integers(0, 255, (40 + 8 * number, 56, 3), dtype=np.uint8)


@torch.no_grad()
def _eager_row(vlm, prompt, images):
    ids, features, grids = encode_prompts(vlm, [(prompt, images)])
    tokens, length = torch.tensor(ids), len(ids[0])
    causal = torch.full((1, 1, length, length), torch.finfo(torch.float32).min).triu(1)
    embeddings, extra = vlm.embed(tokens, features)
    maps = []
    before = vlm.language_model.config._attn_implementation
    vlm.language_model.set_attn_implementation("eager")
    hooks = [
        layer.self_attn.register_forward_hook(lambda module, args, out: maps.append(out[1]))
        for layer in vlm.language_model.layers
    ]
    positions = vlm.axes(vlm.positions(ids[0], grids[0])[:, None])
    vlm.language_model(inputs_embeds=embeddings, attention_mask=causal, position_ids=positions, **extra)
    for hook in hooks:
        hook.remove()
    vlm.language_model.set_attn_implementation(before)
    return torch.stack([m[0, :, -1][:, tokens[0] == vlm.image_token_id].mean(0) for m in maps]).double().numpy()


def test_a_whole_evaluation_with_grounding(world):
    vlm, examples = tiny.tiny_llava(), world.examples[:24]
    outcomes, measured = evaluate(vlm, examples, world.folder, OPTIONS, system="base")
    located = [e for e in examples if e.regions and e.task != "report"]
    looked = [m for m in measured if m.name == "lesion_area"]
    assert len(looked) == len(located) and {o.condition for o in outcomes} == {"clean"}
    layers = {m.level for m in measured if m.name == "attention_ratio"}
    assert layers == set(range(len(vlm.language_model.layers)))
    got = summarise(outcomes, examples, OPTIONS, measurements=measured)["systems"]["base"]["grounding"]
    assert [row["layer"] for row in got["layers"]] == list(range(len(vlm.language_model.layers)))
    assert got["n"] == len(located) and 0 < got["area"]["estimate"] < 1
    assert got["layers"][0]["ratio"]["estimate"] > 0 and "spans" not in got, "a base model has no reference"


def test_a_region_the_model_never_sees_is_counted_with_its_reason(world):
    example = next(e for e in world.examples if e.regions)
    lost = replace(example, regions=[Region("nodule", mask="masks/none.png")])
    outcomes, measured = evaluate(tiny.tiny_llava(), [lost], world.folder, OPTIONS, system="base")
    counts = summarise(outcomes, [lost], OPTIONS, measurements=measured)["systems"]["base"]["counts"]
    assert counts["not_measured"] == {"attention: missing_mask": 1}


def test_token_logps_equal_one_forward_each():
    vlm = tiny.tiny("llava")
    texts = ["There is a nodule in the left upper lung.", "No."]
    answers = [vlm.tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
    images = [tiny_image(1)]
    features, [keys, _] = from_arrays(vlm, [images] * 2)
    trees = [tree_of(vlm, "Where is the nodule?", images, keys, [Fork([answer])]) for answer in answers]
    together = score(vlm, trees, features, batch_size=2)
    for answer, tree, scored in zip(answers, trees, together, strict=True):
        [[logps]], [[alone]] = scored.logps, score(vlm, [tree], features)[0].logps
        assert len(logps) == len(answer)
        assert logps.tolist() == pytest.approx(alone.tolist(), abs=1e-5)


def test_rewarded_words_are_found_at_the_top(world, monkeypatch):
    """An adapter built to reward exactly the words of the claim."""
    examples = [e for e in world.examples if e.regions and e.kind == "side"][:4]
    vlm = tiny.tiny_llava()
    full = {e.question: e.full for e in examples}
    pairs = {e.id: Paired(e.full, edit=counterfactual(e, e.full, {})) for e in examples}
    off = []

    class Adapter:
        def __enter__(self):
            off.append(1)

        def __exit__(self, *error):
            off.clear()

    def scored(vlm, trees, features, batch_size):
        out = []
        for tree in trees:
            edit = counterfactual(next(e for e in examples if e.question == tree.prompt), full[tree.prompt], {})
            places = G.token_offsets(vlm.tokenizer, tree.forks[0].answers[0])
            inside = [any(a < e and s < b for s, e in edit.chosen_spans) for a, b in places]
            out.append(TreeScores([[torch.tensor([0.0 if off or not i else 1.0 for i in inside])]]))
        return out

    monkeypatch.setattr(G, "score", scored)
    monkeypatch.setattr(vlm, "adapter_off", Adapter, raising=False)
    shown = {e.id: [tiny_image(0)] for e in examples}
    got = G._rankings(vlm, examples, pairs, shown)
    assert len({e.question for e in examples}) == len(full) and set(got) == {e.id for e in examples}
    assert all(tops[75] == 1.0 for tops in got.values())
