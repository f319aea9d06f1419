"""SECOND on every grid that a vision tower has positions for: square ones of one size, and of any size."""

from __future__ import annotations

import pytest
import tiny
import torch

from clinalign.decoding.decoders import answer
from clinalign.decoding.loop import start
from clinalign.decoding.options import SECOND
from clinalign.decoding.second import stages
from clinalign.models.families.family import blocks
from clinalign.models.tower import no_views, tower_features

WIDE = tiny.image(1, 32, 64)
PROMPTS = [("Where is the nodule?", [tiny.image(0, 40, 32)]), ("Is there an effusion?", [WIDE, tiny.image(2, 48, 40)])]
SQUARE, OF_ANY_SIZE = ("llava", "internvl", "idefics3"), ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


@pytest.mark.parametrize("family", [*SQUARE, *OF_ANY_SIZE])
def test_scales_are_grids_of_the_towers_own_positions(family: str) -> None:
    """An image twice as wide as high has twice as many columns as rows where the tower takes it so; at scale 1 features
    are those that every decoder sees."""
    vlm = tiny.tiny(family)
    half, usual, double = (tower_features(vlm, [WIDE], scale)[0] for scale in (0.5, 1.0, 2.0))
    rows, columns = vlm.image_grid(WIDE)
    assert usual.grid == (rows, columns) and (columns == 2 * rows) == (family in OF_ANY_SIZE)
    assert half.grid == (rows // 2, columns // 2) and double.grid == (2 * rows, 2 * columns)
    assert torch.allclose(usual.features, vlm.image_features([vlm.input_image(WIDE)])[0], atol=1e-5)
    for one in (half, usual, double):
        count = one.grid[0] * one.grid[1]
        assert len(one.features) == count and one.attention.shape == (count, count)
        assert torch.allclose(one.attention.sum(1), torch.ones(count), atol=1e-5)


def test_the_towers_attention_is_its_eager_maps() -> None:
    """Mean over heads and layers, class token left out."""
    vlm = tiny.tiny_llava()
    [found] = tower_features(vlm, [WIDE], 1.0)
    tower = vlm.model.model.vision_tower
    tower.set_attn_implementation("eager")
    pixels = vlm.processor.image_processor(images=[vlm.input_image(WIDE)], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        maps = tower(pixels, output_attentions=True).attentions
    mean = torch.stack([one[0].mean(0) for one in maps]).mean(0)[1:, 1:]
    assert torch.allclose(found.attention, mean / mean.sum(1, keepdim=True), atol=1e-5)


def test_windows_of_a_tower_stand_where_their_tokens_do() -> None:
    """Qwen2.5-VL attends in windows, here of 2 x 2 tokens; with such layers alone a token draws from its window."""
    vlm = tiny.tiny("qwen2_5_vl")
    vlm.model.model.visual.fullatt_block_indexes = []
    [found] = tower_features(vlm, [WIDE], 1.0)
    rows, columns = found.grid
    window = torch.arange(rows)[:, None] // 2 * columns + torch.arange(columns) // 2
    same = window.reshape(-1)[:, None] == window.reshape(-1)
    assert torch.equal(found.attention > 0, same)


def test_patches_of_a_token_by_hand() -> None:
    """Of 1 x 2 tokens, 2 x 2 patches each: 0 0 1 1 in both rows of patches."""
    assert blocks((1, 2), 2).tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


def test_a_chosen_token_keeps_its_row_and_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """With positions of three axes what is left out leaves a gap, and the text stands where it stood."""
    vlm = tiny.tiny("qwen2_vl")
    batch = start(vlm, PROMPTS)
    whole = stages(batch, SECOND(select=False))[-1]
    monkeypatch.setattr("clinalign.decoding.second.kept_share", lambda *_: 0.5)
    some = stages(batch, SECOND())[-1]
    assert torch.equal(whole.next, some.next)
    grids = [[view.grid for view in (tower_features(vlm, [WIDE], s)[0] for s in (0.25, 0.5, 1.0))]]
    assert grids == [[(1, 2), (2, 4), (4, 8)]]
    for row in range(2):
        kept, every = (s.position_ids[row][s.attention_mask[row]].tolist() for s in (some, whole))
        assert len(kept) < len(every) and set(kept) <= set(every)
    first = whole.position_ids[1][whole.attention_mask[1]]
    expected = vlm.positions(
        [vlm.image_token_id if there else 5 for there in whole.images[1][whole.attention_mask[1]].tolist()],
        [view.grid for image in PROMPTS[1][1] for s in (0.25, 0.5, 1.0) for view in tower_features(vlm, [image], s)],
    )
    assert torch.equal(first, expected[0])


@pytest.mark.parametrize("family", ["internvl", "idefics3"])
def test_one_stage_at_the_usual_size_is_greedy_and_a_batch_its_rows(family: str) -> None:
    vlm = tiny.tiny(family)
    plain = [one.token_ids for one in vlm.generate(PROMPTS, max_new_tokens=6)]
    assert answer(start(vlm, PROMPTS), SECOND(scales=[1.0], alphas=[]), 6) == plain
    alone = [answer(start(vlm, [prompt]), SECOND(), 6)[0] for prompt in PROMPTS]
    assert answer(start(vlm, PROMPTS), SECOND(), 6) == alone


def test_why_a_model_has_no_sizes_is_said() -> None:
    assert "pools one grid" in no_views(tiny.tiny("gemma3"))
    vlm = tiny.tiny("llava")
    vlm.model.config.vision_feature_select_strategy = "full"
    assert "class token" in no_views(vlm)
