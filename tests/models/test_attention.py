"""Attention rows formed beside the fast kernel equal the eager maps."""

from __future__ import annotations

import pytest
import tiny
import torch

from clinalign.models.attention import REQUEST, AttentionRequest, Probe
from clinalign.models.features import from_arrays
from clinalign.models.generate import encode_prompts, prefill
from clinalign.models.tree import score, tree_of


def eager(vlm, ids, features, mask):
    """Whole attention maps [B, H, L, L] by layer from transformers' eager kernel, with an additive mask."""
    positions = torch.stack([vlm.positions(row, grid) for row, grid in ids], dim=1)
    tokens = torch.tensor([row for row, _ in ids])
    embeddings, extra = vlm.embed(tokens, features)
    before = vlm.language_model.config._attn_implementation
    vlm.language_model.set_attn_implementation("eager")
    sees = vlm.masks(mask, positions, positions, tokens)
    additive = {kind: _additive(m) for kind, m in sees.items()} if isinstance(sees, dict) else _additive(sees)
    out = vlm.language_model(
        inputs_embeds=embeddings, attention_mask=additive, position_ids=vlm.axes(positions),
        output_attentions=True, **extra,
    )  # fmt: skip
    vlm.language_model.set_attn_implementation(before)
    return out.attentions


def _additive(mask):
    return torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)


@pytest.mark.parametrize("family", tiny.EVERY_FAMILY)
def test_rows_equal_eager(family: str) -> None:
    vlm = tiny.tiny(family)
    pictures = [tiny.image(0, 32, 32), tiny.image(1, 32, 32)]
    ids, features, grids = encode_prompts(vlm, [("Where is it?", [p]) for p in pictures])
    length = len(ids[0])
    mask = torch.ones(2, 1, length, length, dtype=torch.bool).tril()
    mask[1, :, :, :3] &= torch.eye(length, dtype=torch.bool)[:, :3]  # the second row has three hidden tokens
    queries = torch.tensor([[length - 1, 5], [length - 2, 4]])
    maps = eager(vlm, list(zip(ids, grids, strict=True)), features, mask)
    positions = torch.stack([vlm.positions(row, grid) for row, grid in zip(ids, grids, strict=True)], dim=1)
    before = vlm.hidden_states(torch.tensor(ids), features, mask, positions)
    rows = Probe(queries)
    during = vlm.hidden_states(torch.tensor(ids), features, mask, positions, AttentionRequest(probe=rows))
    assert torch.equal(before, during)
    assert sorted(rows) == list(range(len(maps)))
    for layer, full in enumerate(maps):
        for b in range(2):
            assert torch.allclose(rows[layer][b], full[b][:, queries[b]], atol=1e-6)
    assert torch.equal(before, vlm.hidden_states(torch.tensor(ids), features, mask, positions))


def test_causal_without_a_mask() -> None:
    """The name has a mask builder of its own: no mask given still means causal."""
    vlm = tiny.tiny_llava()
    ids = torch.tensor([vlm.expand("Where is the nodule?", [])])
    plain = vlm.language_model(input_ids=ids).last_hidden_state
    rows = Probe(torch.tensor([[3]]), layers=[1])
    probed = vlm.language_model(input_ids=ids, **{REQUEST: AttentionRequest(probe=rows)}).last_hidden_state
    assert torch.allclose(probed, plain, atol=1e-6)
    assert list(rows) == [1]
    assert rows[1][..., 4:].abs().max() == 0
    assert torch.allclose(rows[1].sum(-1), torch.ones(1, 4, 1), atol=1e-6)


def test_gradients_flow_and_recomputation_changes_nothing() -> None:
    vlm = tiny.tiny_llava()
    vlm.attach_lora(r=2, alpha=4, dropout=0.0)
    tiny.perturb(vlm)
    ids = torch.tensor([vlm.expand("Where is the nodule?", [])])
    found = []
    for checkpointing in (False, True):
        vlm.model.train()
        if checkpointing:
            vlm.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        rows = Probe(torch.tensor([[7]]), layers=[0, 1])
        vlm.language_model(input_ids=ids, use_cache=False, **{REQUEST: AttentionRequest(probe=rows)})
        assert rows[1].requires_grad
        loss = (rows[1] ** 2).sum()
        found.append(torch.autograd.grad(loss, list(vlm.trainable().values()), allow_unused=True))
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None) and (a is None or torch.equal(a, b))
    assert any(a is not None and a.abs().max() > 0 for a in found[0])


@pytest.mark.parametrize("family", tiny.EVERY_FAMILY)
def test_prompt_attention_covers_the_image_tokens(family: str) -> None:
    vlm = tiny.tiny(family)
    picture = tiny.image(3, 32, 40)
    features, [keys] = from_arrays(vlm, [[picture]])
    tree = tree_of(vlm, "Where is the nodule?", [picture], keys)
    [scored] = score(vlm, [tree], features, attention=True)
    found = scored.attention[..., torch.tensor(tree.ids) == vlm.image_token_id]
    rows, columns = vlm.image_grid(picture)
    layers, heads = len(vlm.language_model.layers), 4
    assert found.shape == (layers, heads, rows * columns)
    assert (found >= 0).all() and (found.sum(-1) < 1).all()
    kinds = getattr(vlm.language_model.config, "layer_types", None) or ["full_attention"] * layers
    for kind, layer in zip(kinds, found, strict=True):  # a window ends before the image here
        assert (layer.sum(-1) > 0).all() == (kind == "full_attention")


def test_prefill_is_unchanged_by_the_probe() -> None:
    vlm = tiny.tiny_llava()
    given = encode_prompts(vlm, [("Where?", [tiny.image(0)]), ("Describe the image.", [])])
    plain = prefill(vlm, *given).logits
    request = AttentionRequest(probe=Probe(torch.tensor([[-1], [-1]])))
    assert torch.allclose(prefill(vlm, *given, request).logits, plain, atol=1e-6)


@pytest.mark.parametrize("family", tiny.EVERY_FAMILY)
def test_closing_gives_the_model_back(family: str) -> None:
    """Its own attention and its own last layer, with the same numbers."""
    vlm = tiny.tiny(family)
    ids = torch.tensor([vlm.expand("Where is the nodule?", [])])
    installed = vlm.language_model(input_ids=ids).last_hidden_state
    assert vlm.language_model.config._attn_implementation == "clinalign"
    vlm.close()
    last = vlm.language_model.layers[-1]
    assert vlm.language_model.config._attn_implementation == "sdpa" and "forward" not in vars(last)
    assert torch.allclose(vlm.language_model(input_ids=ids).last_hidden_state, installed, atol=1e-6)
