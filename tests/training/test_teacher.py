"""Teachers and what is kept of them. Numbers in names are those of the test list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from distilling import FAMILIES, clip, siglip
from torch.nn import functional as F

from clinalign.errors import UsageError
from clinalign.models.teachers import PatchFeatures, centre_square, load_teacher, padded_square
from clinalign.objectives.medalign import bilinear, centres, cosine_gram
from clinalign.training.options import DistillOptions
from clinalign.training.teacher import Teacher

CPU = torch.device("cpu")


class Brightness:
    """A teacher that looks where it is bright, on a grid of 12 x 12."""

    name, grid, fill, fingerprint = "brightness", (12, 12), (0, 0, 0), "1"

    def encode(self, images: Any) -> list[PatchFeatures]:
        found = []
        for image in images:
            edges = np.linspace(0, image.shape[0], 13).astype(int)
            cells = [image[a:b, c:d].mean() for a, b in zip(edges, edges[1:]) for c, d in zip(edges, edges[1:])]
            values = torch.tensor(cells, dtype=torch.float32)
            found.append(PatchFeatures(torch.stack([values, 255 - values], dim=1), values))
        return found

    def relevance(self, images: Any, texts: Any) -> list[torch.Tensor]:
        return [look.attention * len(text) for look, text in zip(self.encode(images), texts, strict=True)]


def bright(height: int, width: int, row: float, column: float, side: int) -> np.ndarray:
    """A black picture with one bright square whose middle is at (row, column), shares of height and width."""
    image = np.zeros((height, width, 3), np.uint8)
    y, x = int(row * height), int(column * width)
    image[y - side // 2 : y + side // 2, x - side // 2 : x + side // 2] = 255
    return image


def padding(vlm: Any) -> Any:
    """A tiny LLaVA that pads its image to a square, as LLaVA-1.5 does."""
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    size = {"height": 32, "width": 32}
    vlm.processor.image_processor = LlavaImageProcessorPil(
        do_pad=True, size={"shortest_edge": 32}, crop_size=size, do_center_crop=True
    )
    return vlm


@pytest.mark.parametrize("place", [(0.5, 0.125), (0.5, 0.875), (0.25, 0.375)])
@pytest.mark.parametrize("shape", [(64, 128), (128, 64)])
@pytest.mark.parametrize("family", [*FAMILIES, "llava-pad"])
def test_20_the_experts_peak_is_the_students_patch(
    family: str, shape: tuple[int, int], place: tuple[float, float]
) -> None:
    """Two to one, a bright square at the edge: where the student sees it, the teacher's map peaks on the same patch.

    With the teacher's own centre crop, as published, the square is outside what the teacher sees, or elsewhere.
    """
    vlm = padding(tiny.tiny("llava")) if family == "llava-pad" else tiny.tiny(family)
    where = place if shape[1] > shape[0] else place[::-1]
    image = bright(*shape, *where, side=16)
    grid, rects = vlm.image_grid(image), vlm.image_token_rects(image)
    y, x = where[0] * shape[0], where[1] * shape[1]
    inside = (rects[:, 0] <= x) & (x < rects[:, 0] + rects[:, 2]) & (rects[:, 1] <= y) & (y < rects[:, 1] + rects[:, 3])
    if family == "llava" and min(place[1], 1 - place[1]) < 0.25:
        assert not inside.any()  # this student crops the centre and does not see the square
        return
    assert inside.sum() == 1
    found = {}
    for crop in ("match_student", "centre"):
        teacher = Teacher(Brightness(), lambda key: image, DistillOptions(crop=crop))
        teacher.prepare([("a", "")])
        target = teacher.target("a", "", rects, grid, CPU)
        kept = np.flatnonzero(target.valid.numpy())
        peaks = kept[(target.attention >= target.attention.max() - 1e-4).numpy()]
        found[crop] = bool(inside[peaks].any()) and len(peaks) <= 2
    assert found["match_student"]
    if place[1] in (0.125, 0.875):
        assert not found["centre"]


def test_tokens_on_padding_are_not_taught() -> None:
    vlm = padding(tiny.tiny("llava"))
    image = tiny.image(0, 32, 64)
    teacher = Teacher(clip(), lambda key: image, DistillOptions())
    teacher.prepare([("a", "")])
    target = teacher.target("a", "", vlm.image_token_rects(image), vlm.image_grid(image), CPU)
    assert target.valid.reshape(4, 4).tolist() == [[False] * 4, [True] * 4, [True] * 4, [False] * 4]
    assert target.similarity.shape == (8, 8) and target.attention.shape == (8,)
    published = Teacher(clip(), lambda key: image, DistillOptions(variant="code"))
    published.prepare([("a", "")])
    assert published.crop == "centre"
    assert published.target("a", "", vlm.image_token_rects(image), vlm.image_grid(image), CPU).valid.all()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("store", ["features", "gram"])
def test_5_what_is_kept_gives_the_similarities_of_the_features(tmp_path: Path, store: str, first: bool) -> None:
    """fp16 on disk, features or the triangle of their Gram matrix, against interpolating first; 6 x 6 for 8 x 8."""
    image, teacher_model = tiny.image(4, 48, 48), clip(48)
    options = DistillOptions(store=store, normalise_first=first)
    teacher = Teacher(teacher_model, lambda key: image, options, tmp_path)
    assert teacher.prepare([("a", ""), ("b", "")]) == 1  # one image under two keys
    [key] = teacher.store.keys()
    stored = teacher.store.get(key)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1 and set(stored) == {store, "attention"}
    assert stored[store].dtype == torch.float16
    assert store != "gram" or stored["gram"].shape == (36 * 37 // 2,)
    rects = np.array([[6 * j, 6 * i, 6, 6] for i in range(8) for j in range(8)], float)
    again = Teacher(teacher_model, lambda key: image, options, tmp_path)
    assert again.prepare([("a", "")]) == 0
    target = again.target("a", "", rects, (8, 8), CPU)
    features = teacher_model.encode([image])[0].features
    features = F.normalize(features, dim=-1) if first else features
    expected = cosine_gram(bilinear(centres((8, 8)), (6, 6)) @ features)
    assert torch.allclose(target.similarity, expected, atol=4e-3)
    assert target.valid.all()


def test_what_is_kept_is_named_by_pixels_expert_and_settings(tmp_path: Path, capsys) -> None:
    pictures = {"a": tiny.image(1), "b": tiny.image(2)}
    for teacher_model, options, fresh in (
        (clip(), DistillOptions(), 2),
        (clip(), DistillOptions(), 0),
        (clip(), DistillOptions(variant="code"), 2),
        (clip(seed=9), DistillOptions(), 2),
        (clip(), DistillOptions(question_aware=True), 4),
        (clip(), DistillOptions(alpha=3.0), 0),
    ):
        teacher = Teacher(teacher_model, pictures.__getitem__, options, tmp_path)
        found = teacher.prepare([("a", "Where?"), ("b", "Where?"), ("a", "Which side?")])
        assert found == (fresh if not options.question_aware else 3)
    torn = list(tmp_path.rglob("*.safetensors"))
    for file in torn:
        file.write_bytes(b"torn")
    capsys.readouterr()
    again = Teacher(clip(), pictures.__getitem__, DistillOptions(), tmp_path)
    said = capsys.readouterr().err
    assert all(said.count(str(file)) == (again.folder in file.parents) for file in torn) and "set aside" in said
    assert again.prepare([("a", "Where?"), ("b", "Where?")]) == 2


def test_question_aware_maps_differ_by_question_and_only_maps_do() -> None:
    image = tiny.image(3, 32, 32)
    teacher = Teacher(clip(), lambda key: image, DistillOptions(question_aware=True))
    asked = ["There is a nodule.", "No pleural effusion is seen. The heart is of normal size."]
    teacher.prepare([("a", text) for text in asked])
    rects = np.array([[8 * j, 8 * i, 8, 8] for i in range(4) for j in range(4)], float)
    one, two = (teacher.target("a", text, rects, (4, 4), CPU) for text in asked)
    assert torch.equal(one.similarity, two.similarity)
    assert not torch.allclose(one.attention, two.attention)
    for target in (one, two):
        assert target.attention.min() == 0 and target.attention.max() == 1


def test_parts_of_the_class_token_add_up_to_what_the_last_attention_adds() -> None:
    """Summed over tokens, direct effects are the attention's output through the norm's own scale, its bias left out."""
    teacher_model = clip()
    vision, image = teacher_model.vision, tiny.image(3, 32, 32)
    from clinalign.models.teachers import direct_effects

    out = vision(pixel_values=teacher_model._pixels([image]), output_attentions=True, output_hidden_states=True)
    block = vision.encoder.layers[-1]
    states = block.layer_norm1(out.hidden_states[-2])
    values = block.self_attn.v_proj(states).unflatten(-1, (2, -1))
    with torch.no_grad():
        parts = direct_effects(
            values, out.attentions[-1][:, :, 0], block.self_attn.out_proj.weight, out.last_hidden_state[:, 0],
            vision.post_layernorm,
        )  # fmt: skip
        added = block.self_attn(states)[0][:, 0] - block.self_attn.out_proj.bias
        state = out.last_hidden_state[:, 0]
        scale = vision.post_layernorm.weight / (state.var(-1, unbiased=False) + vision.post_layernorm.eps).sqrt()
    assert torch.allclose(parts.sum(1), (added - added.mean(-1, keepdim=True)) * scale, atol=1e-4)


def test_a_clip_looks_with_its_last_class_token() -> None:
    teacher_model, image = clip(), tiny.image(3, 32, 32)
    (look,) = teacher_model.encode([image])
    assert look.features.shape == (16, 16) and look.attention.shape == (16,)
    out = teacher_model.vision(
        pixel_values=teacher_model._pixels([image]), output_attentions=True, output_hidden_states=True
    )
    assert torch.allclose(look.features, out.hidden_states[-1][0, 1:], atol=1e-5)
    assert torch.allclose(look.attention, out.attentions[-1][0, :, 0, 1:].mean(0), atol=1e-6)
    assert 0 < look.attention.sum() < 1 + 1e-5  # the rest is the class token's own


def test_a_siglip_looks_with_its_pooling_probe() -> None:
    teacher_model, image = siglip(), tiny.image(3, 32, 32)
    (look,) = teacher_model.encode([image])
    attention, probe = teacher_model.vision.head.attention, teacher_model.vision.head.probe[0]
    query, key = attention.in_proj_weight[:16] @ probe[0], look.features @ attention.in_proj_weight[16:32].t()
    heads = (query.reshape(2, 8) * key.reshape(16, 2, 8)).sum(-1) / 8**0.5  # biases are zero at first
    assert torch.allclose(look.attention, heads.softmax(0).mean(1), atol=1e-5)
    with pytest.raises(UsageError, match="whole CLIP"):
        teacher_model.relevance([image], ["nodule"])
    with pytest.raises(UsageError, match="pooling head"):
        siglip(head=False)


def test_tokens_larger_than_the_experts_patches_are_read_all_over() -> None:
    """Read at its centre alone, a token of 6 x 6 patches would miss a square in its corner."""
    image = bright(96, 96, 0.1, 0.1, 8)
    teacher = Teacher(Brightness(), lambda key: image, DistillOptions())
    teacher.prepare([("a", "")])
    rects = np.array([[48 * j, 48 * i, 48, 48] for i in range(2) for j in range(2)], float)
    found = teacher.target("a", "", rects, (2, 2), CPU).attention
    assert found[0] > 1 and found[1:].max() < 1e-4
    assert found[0].item() == pytest.approx(image[:48, :48].mean(), rel=1e-4)


def test_squares() -> None:
    image = tiny.image(0, 40, 24)
    padded = padded_square(image, (1, 2, 3))
    assert padded.shape == (40, 40, 3) and np.array_equal(padded[:, 8:32], image)
    assert (padded[:, :8] == (1, 2, 3)).all() and (padded[:, 32:] == (1, 2, 3)).all()
    assert np.array_equal(centre_square(image, (0, 0, 0)), image[8:32])
    assert padded_square(image[..., 0], (0, 0, 0)).shape == (40, 40, 3)


def test_what_is_no_expert_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot load the teacher"):
        load_teacher(str(tmp_path))
    tiny.save(tiny.tiny("llava"), tmp_path / "llava")
    with pytest.raises(UsageError, match="'llava' is no teacher"):
        load_teacher(str(tmp_path / "llava"))
    teacher_model = clip()
    teacher_model.model.save_pretrained(tmp_path / "clip")
    with pytest.raises(UsageError, match="cannot load the teacher"):  # no image processor beside it
        load_teacher(str(tmp_path / "clip"))
