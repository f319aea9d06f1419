"""MEDALIGN in the packed step: equal to the plain form, reaching what it should, and absent where it must be.

Numbers in names are those of the test list. The plain form is one ordinary eager forward of the whole model a pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from distilling import FAMILIES, clip, distilling, gradients, samples, student
from naive import inputs
from packing import read, sample
from torch import Tensor
from torch.nn import functional as F

from clinalign.errors import UsageError
from clinalign.models import VLM
from clinalign.models.features import Features
from clinalign.models.image_projection import ImageProjection
from clinalign.models.teachers import padded_square
from clinalign.models.tree import score_tokens
from clinalign.objectives import METHODS, LossCoefficients
from clinalign.objectives.medalign import attention_loss, mean_attention
from clinalign.training.batches import pack_pairs
from clinalign.training.distill import IGNORED, default_layer, new_projection, query_rows
from clinalign.training.encode import Sample
from clinalign.training.options import DistillOptions
from clinalign.training.step import PackedSteps


@contextmanager
def eager(vlm: VLM) -> Iterator[None]:
    before = vlm.language_model.config._attn_implementation
    vlm.language_model.set_attn_implementation("eager")
    yield
    vlm.language_model.set_attn_implementation(before)


def plain_terms(vlm: VLM, chosen: DistillOptions, one: Sample, teacher_model: Any) -> tuple[Tensor, Tensor]:
    """L_vis and L_att of a pair from whole eager attention maps and hidden states, written down anew."""
    load, layer = read(vlm), vlm.projection.layers[0]
    pictures = [load(key) for key in one.images]
    given = inputs(vlm, one.prompt, one.answers["chosen"], pictures)
    seen: list[Tensor] = []
    block = vlm.language_model.layers[layer]
    handle = block.input_layernorm.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    with eager(vlm):
        out = vlm.model(**given, output_attentions=True)
    handle.remove()
    at = [i for i, token in enumerate(one.prompt) if token == vlm.image_token_id]
    rows = range(at[-1] + 1, len(one.prompt))
    mean = out.attentions[layer][0].mean(0)[list(rows)].mean(0)
    vis, att = [], []
    for picture, (height, width) in zip(pictures, one.grids, strict=True):
        mine, at = at[: height * width], at[height * width :]
        look = teacher_model.encode([padded_square(picture, teacher_model.fill)])[0]
        squares = vlm.image_token_rects(picture)
        side, (tall, wide) = max(picture.shape[:2]), picture.shape[:2]
        grid = torch.zeros(1, 1, len(squares), 2)
        for i, (x, y, w, h) in enumerate(squares):
            grid[0, 0, i, 0] = 2 * (x + w / 2 + (side - wide) // 2) / side - 1
            grid[0, 0, i, 1] = 2 * (y + h / 2 + (side - tall) // 2) / side - 1

        def resampled(values: Tensor, grid: Tensor = grid) -> Tensor:
            plane = values.t().reshape(1, -1, *teacher_model.grid)
            return F.grid_sample(plane, grid, padding_mode="border", align_corners=False)[0, :, 0].t()

        teacher = F.normalize(resampled(F.normalize(look.features, dim=-1)), dim=-1)
        unit = F.normalize(seen[0][0, mine], dim=-1)
        vis.append(F.mse_loss(unit @ unit.t(), teacher @ teacher.t()))
        target = resampled(look.attention[:, None])[:, 0]
        target, ours = target / target.sum(), mean[mine] / mean[mine].sum()
        att.append((target * (target / ours).log()).sum())
    return chosen.alpha * torch.stack(vis).mean(), chosen.beta * torch.stack(att).mean()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [32, 24])
def test_16_packed_terms_equal_the_eager_ones_in_value_and_gradient(family: str, size: int) -> None:
    """Grouped-query attention, padded rows, images that are not square, one and two a pair, teacher grids 4 and 3."""
    vlm, chosen = student(family, beta=2.0, store="features")
    given, teacher_model = samples(vlm), clip(size)
    steps = distilling(vlm, chosen, given, teacher_model=teacher_model)
    batch_terms = steps.loss(range(3))[1]
    for i, one in enumerate(given):
        if not one.images:
            assert batch_terms["loss/vis"][i].isnan() and batch_terms["loss/att"][i].isnan()
            continue
        vis, att = plain_terms(vlm, chosen, one, teacher_model)
        assert batch_terms["loss/vis"][i].item() == pytest.approx(vis.item(), rel=2e-3)  # targets are kept in fp16
        assert batch_terms["loss/att"][i].item() == pytest.approx(att.item(), rel=1e-4)
        loss = steps.loss([i])[0]
        steps.distill, kept = None, steps.distill
        extra = gradients(vlm, loss)
        for name, value in gradients(vlm, steps.loss([i])[0]).items():
            extra[name] = extra[name] - value
        steps.distill = kept
        expected = gradients(vlm, vis + att)
        scale = max(float(value.abs().max()) for value in expected.values())
        for name, value in expected.items():
            assert torch.allclose(extra[name], value, atol=3e-3 * scale), name


def test_10_nothing_outside_the_chosen_rows_matters() -> None:
    """Other answers, and other rows, change neither term: what comes later is not seen, and only Q is read."""
    vlm, chosen = student()
    one = samples(vlm, (1,))[0]
    before = distilling(vlm, chosen, [one]).loss([0])[1]
    one.answers = {side: [ids[0], 9, *ids[1:]] for side, ids in one.answers.items()}
    one.spans = {side: [False, *marks] for side, marks in one.spans.items()}
    after = distilling(vlm, chosen, [one]).loss([0])[1]
    assert after["loss/nll"] != before["loss/nll"]
    for name in ("loss/vis", "loss/att"):
        assert after[name].item() == pytest.approx(before[name].item(), rel=1e-5)


@pytest.mark.parametrize("rows", ["prompt", "last", "answer"])
def test_rows_are_those_that_were_asked_for(rows: str) -> None:
    vlm, chosen = student(rows=rows)
    given = samples(vlm, (1, 1), fork=1)
    steps = distilling(vlm, chosen, given, method="dpo")
    batch = steps.distill.capture(given, _packed(steps))
    for part, one in zip(batch.parts, given, strict=True):
        prompt, answer = len(one.prompt), len(one.answers["chosen"])
        last_image = max(i for i, token in enumerate(one.prompt) if token == vlm.image_token_id)
        expected = {"prompt": range(last_image + 1, prompt), "last": [prompt - 1]}
        expected["answer"] = range(prompt - 1, prompt - 1 + answer)  # the chosen tail comes first in its row
        assert part.queries == list(expected[rows])
    assert steps.loss([0, 1])[0].isfinite()


def _packed(steps: PackedSteps, indexes: Any = None) -> Any:
    chosen = steps.samples if indexes is None else [steps.samples[i] for i in indexes]
    return pack_pairs(steps.vlm, chosen, steps.plan, padding=steps.padding)


@pytest.mark.parametrize("method", ["sft", "firempo", "dpo"])
def test_11_without_weights_or_teacher_it_is_the_plain_method(method: str) -> None:
    """W = 0 leaves the logits' bits alone; alpha = beta = 0 leaves the loss and every gradient."""
    plain = tiny.tiny("llava")
    plain.attach_lora(r=4, alpha=8, dropout=0.0)
    tiny.perturb(plain)
    vlm = tiny.tiny("llava")
    vlm.attach_lora(r=4, alpha=8, dropout=0.0)
    tiny.perturb(vlm)
    chosen = DistillOptions(alpha=0, beta=0)
    vlm.attach_projection(new_projection(vlm, chosen, 0))
    given = samples(vlm)
    base = PackedSteps(plain, given, METHODS[method], LossCoefficients(), Features(plain, read(plain)))
    ours = distilling(vlm, chosen, given, method)
    one, two = base.loss(range(3)), ours.loss(range(3))
    assert one[0].item() == pytest.approx(two[0].item(), abs=1e-6)
    found, expected = gradients(vlm, two[0]), gradients(plain, one[0])
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=1e-6), name
    w = next(value for name, value in found.items() if name.startswith("projection"))
    assert w.abs().max() > 0  # the method's own loss reaches W


def test_11_pairs_without_images_are_untouched() -> None:
    """A batch of text alone has the plain loss, no terms, and no gradient for W."""
    vlm, chosen = student()
    steps = distilling(vlm, chosen, samples(vlm, (0, 0)))
    loss, metrics = steps.loss([0, 1])
    assert metrics["loss/vis"].isnan().all() and metrics["loss/att"].isnan().all() and loss.isfinite()
    assert all(v.abs().max() == 0 for n, v in gradients(vlm, loss).items() if n.startswith("projection"))
    steps.distill = None
    assert torch.equal(steps.loss([0, 1])[0], loss)


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("method", ["sft", "firempo"])
def test_13_a_batch_is_the_mean_of_its_pairs(method: str, padding: str) -> None:
    """Prompts of unequal lengths, one pair without an image, two pairs in one row."""
    vlm, chosen = student(beta=1.0)
    given = samples(vlm, (1, 0, 2))
    twin = sample(vlm, 0, np.random.default_rng(9), prompt="Where is the nodule and how large is it? ")
    given.append(twin)
    assert (twin.prompt, twin.images, twin.example_id) == (given[0].prompt, given[0].images, given[0].example_id)
    steps = distilling(vlm, chosen, given, method, padding=padding)
    assert len(_packed(steps, [0, 3]).trees.ids) == (1 if method == "sft" else 2)  # one row under the clean image
    together, alone = steps.loss(range(4))[0], torch.stack([steps.loss([i])[0] for i in range(4)]).mean()
    assert together.item() == pytest.approx(alone.item(), abs=1e-5)
    one, other = gradients(vlm, together), gradients(vlm, alone)
    for name, value in one.items():
        assert torch.allclose(value, other[name], atol=2e-5), name


@pytest.mark.parametrize("family", FAMILIES)
def test_15_each_term_reaches_what_it_should_and_nothing_else(family: str) -> None:
    """L_vis at layer l: W and the blocks below. L_att: these and q, k of block l, not its v, o, MLP. Nothing above."""
    for name, (alpha, beta) in {"vis": (1, 0), "att": (0, 1)}.items():
        vlm, chosen = student(family, alpha=alpha, beta=beta, layers=[1])
        steps = distilling(vlm, chosen, samples(vlm, (1,)))
        captured = steps.distill.capture(steps.samples, _packed(steps))
        score_tokens(vlm, _packed(steps).trees, steps.features, request=captured.request)
        found = gradients(vlm, steps.distill.terms(captured, 1)[name].sum())
        for key, value in found.items():
            block = int(key.split("layers.")[1].split(".")[0]) if "layers." in key else -1
            inside = block == 1 and name == "att" and ("q_proj" in key or "k_proj" in key)
            reached = key.startswith("projection") or block == 0 or inside
            assert bool(value.abs().max() > 0) == reached, (name, key)
        assert not any("vision" in key or "visual" in key or "projector" in key for key in vlm.trainable())


def test_16_checkpointing_changes_nothing_and_the_reentrant_kind_is_refused() -> None:
    found = []
    for reentrant in (None, False, True):
        vlm, chosen = student()
        steps = distilling(vlm, chosen, samples(vlm), "firempo")
        vlm.model.train()
        if reentrant is not None:
            vlm.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        if reentrant:
            with pytest.raises(UsageError, match="non-reentrant"):
                steps.loss(range(3))
            continue
        loss, _ = steps.loss(range(3))
        loss.backward()
        found.append((loss, {name: value.grad for name, value in vlm.trainable().items()}))
    assert torch.equal(found[0][0], found[1][0])
    for name, value in found[0][1].items():
        assert torch.equal(value, found[1][1][name]) and value.abs().max() > 0, name


def test_16_bf16_autocast_keeps_scores_and_losses_in_fp32() -> None:
    vlm, chosen = student()
    given = samples(vlm)
    full, half = (distilling(vlm, chosen, given, bf16=bf16) for bf16 in (False, True))
    one, two = full.loss(range(3))[1], half.loss(range(3))[1]
    assert two["loss/att"].dtype == torch.float32
    for name in ("loss/vis", "loss/att"):
        kept = ~one[name].isnan()
        assert torch.allclose(one[name][kept], two[name][kept], rtol=0.1)
        assert not torch.equal(one[name][kept], two[name][kept])


def test_17_no_whole_attention_map_is_kept() -> None:
    """Nothing saved for the backward pass has the size [B, heads, L, L]; the eager form does.

    (The kernel saves the mask as numbers, [B, 1, L, L].)
    """
    vlm, chosen = student(beta=1.0)
    steps = distilling(vlm, chosen, samples(vlm, (1, 1)))
    length, heads = _packed(steps).trees.ids.shape[1], vlm.language_model.config.num_attention_heads

    def maps() -> list[tuple[int, ...]]:
        shapes: list[tuple[int, ...]] = []

        def note(value: Tensor) -> Tensor:
            if value.is_floating_point():
                shapes.append(tuple(value.shape))
            return value

        with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
            steps.loss([0, 1])
        return [shape for shape in shapes if shape[-3:] == (heads, length, length)]

    assert not maps()
    steps.distill = None
    with eager(vlm):
        assert maps()


IMAGE, COLON = 3, 58


@pytest.mark.parametrize(
    ("ids", "answer", "prompt", "last", "reply"),
    [
        ([1, IMAGE, IMAGE, 20, COLON, 30, COLON, 31, 2], [5, 6, 7, 8], [3, 4], [4], [4, 5, 6, 7]),  # ":" in the answer
        ([1, IMAGE, IMAGE, 20, 21, 30, 2], [5, 6], [3, 4], [4], [4, 5]),  # no ":" at all
        ([1, 20, 21, IMAGE, IMAGE, COLON, 30, 2], [6, 7], [5], [5], [5, 6]),  # the question before the image
        ([1, IMAGE, IMAGE], [], [], [], []),  # nothing after the image: a prompt that was cut
        ([1, 20, COLON, 30, 2], [3, 4], [], [], []),  # no image
        ([IMAGE, 20, COLON, 30, 2, 21, COLON, 31, 2], [3, 4, 7, 8], [1, 2, 5, 6], [2], [2, 3, 6, 7]),  # two rounds
    ],
)
def test_18_spans_come_from_labels(ids, answer, prompt, last, reply) -> None:
    labels = [token if i in answer else IGNORED for i, token in enumerate(ids)]
    assert query_rows(ids, labels, IMAGE) == prompt
    assert query_rows(ids, labels, IMAGE, "last") == last
    assert query_rows(ids, labels, IMAGE, "answer") == reply


def test_18_a_pair_with_nothing_after_its_image_has_no_terms() -> None:
    vlm, chosen = student()
    given = samples(vlm, (1, 1))
    last = max(i for i, token in enumerate(given[0].prompt) if token == vlm.image_token_id)
    given[0].prompt = given[0].prompt[: last + 1]
    loss, metrics = distilling(vlm, chosen, given).loss([0, 1])
    assert loss.isfinite() and metrics["loss/att"].isnan().tolist() == [True, False]


@pytest.mark.parametrize("term", ["vis", "att"])
def test_21_fifty_steps_on_one_term_lower_it(term: str) -> None:
    vlm, chosen = student(moved=False, alpha=float(term == "vis"), beta=float(term == "att"))
    steps = distilling(vlm, chosen, samples(vlm, (1, 1)))
    optimizer = torch.optim.Adam(list(vlm.trainable().values()), lr=1e-2)
    values = []
    for _ in range(50):
        captured = steps.distill.capture(steps.samples, _packed(steps))
        score_tokens(vlm, _packed(steps).trees, steps.features, request=captured.request)
        loss = steps.distill.terms(captured, 2)[term].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[0] and np.isfinite(values).all()


def test_two_layers_and_a_low_rank() -> None:
    """Both terms are means over the layers; a low rank holds two thin matrices and starts at zero too."""
    found = {}
    for layers in ([0], [1], [0, 1]):
        vlm, chosen = student(layers=layers, moved=False)
        found[len(layers), layers[0]] = distilling(vlm, chosen, samples(vlm, (1,))).loss([0])[1]
    for name in ("loss/vis", "loss/att"):
        mean = (found[1, 0][name] + found[1, 1][name]) / 2
        assert found[2, 0][name].item() == pytest.approx(mean.item(), rel=1e-5)
    projection = ImageProjection(32, [1], rank=2)
    assert {n: tuple(p.shape) for n, p in projection.named_parameters()} == {"down:1": (2, 32), "up:1": (32, 2)}
    assert projection.change(torch.randn(5, 32), 1).abs().max() == 0


def test_default_layer_is_the_published_share_of_the_depth() -> None:
    found = [default_layer(SimpleNamespace(num_hidden_layers=count)) for count in (1, 2, 4, 28, 32)]
    assert found == [0, 1, 2, 17, 20]


def test_the_default_layer_sees_the_image() -> None:
    """Gemma 3 4B: of 34 layers every sixth has full attention (5, 11, 17, 23, 29); 21 has a window, 23 is nearest."""
    kinds = [("sliding_attention", "full_attention")[i % 6 == 5] for i in range(34)]
    assert default_layer(SimpleNamespace(num_hidden_layers=34, layer_types=kinds)) == 23
    alike = ["sliding_attention"] * 8
    assert default_layer(SimpleNamespace(num_hidden_layers=8, layer_types=alike)) == 5, "none has full attention"
    vlm, chosen = student("gemma3")
    assert vlm.language_model.config.layer_types[new_projection(vlm, chosen, 0).layers[0]] == "full_attention"


@pytest.mark.parametrize("norm", ["sum", "softmax", "l2"])
@pytest.mark.parametrize("rows", ["prompt", "last", "answer"])
def test_a_taught_row_that_sees_no_patch_teaches_nothing(rows: str, norm: str) -> None:
    """Layer 3 of the tiny Gemma has a window of 12: the last words of the longer prompt have lost the image."""
    vlm, chosen = student("gemma3", layers=[3], beta=1.0, rows=rows, norm=norm)
    steps = distilling(vlm, chosen, samples(vlm, (1, 1, 1)))
    loss, metrics = steps.loss(range(3))
    found = gradients(vlm, loss)
    assert loss.isfinite() and all(value.isfinite().all() for value in found.values())
    assert any(value.abs().max() > 0 for value in found.values())
    lost = metrics["loss/att"].isnan().tolist()
    assert lost == ([False] * 3 if rows == "prompt" else [True] * 3)


def test_a_patch_that_no_row_sees_has_no_gradient_that_is_not_a_number() -> None:
    """Two rows, three patches, the last out of both windows and the second out of one."""
    scores = torch.tensor([[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]], requires_grad=True)
    seen = torch.tensor([[[True, True, False], [True, False, False]]])
    rows = scores.masked_fill(~seen, -torch.inf).log_softmax(-1)
    for norm in ("sum", "softmax", "l2"):
        loss = attention_loss(mean_attention(rows), torch.tensor([0.2, 0.3, 0.5]), norm=norm)
        (gradient,) = torch.autograd.grad(loss, scores, retain_graph=True)
        assert loss.isfinite() and gradient.isfinite().all() and (gradient[~seen] == 0).all()


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="layers 0 to 1"):
        new_projection(tiny.tiny("llava"), DistillOptions(layers=[7]), 0)
