"""The embedded teacher: its training code on a handful of phantoms, and the shipped folder as a user loads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import teacher
import torch
from corpus import load_corpus

from clinalign.data.phantom.cases import render, sample_case
from clinalign.data.phantom.scenes import render_scene, sample_scenes
from clinalign.models.teachers import load_teacher, padded_square


def test_one_token_a_word_and_the_end_has_the_highest_id() -> None:
    tokenizer = teacher.words(["No nodule is seen.", "A large nodule"])
    ids = tokenizer("A large NODULE, upside")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<start>", "a", "large", "nodule", "<unk>", "<unk>", "<end>"]
    assert tokenizer.eos_token_id == len(tokenizer) - 1 != 2  # CLIP pools there


def test_training_lowers_the_loss_and_follows_its_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"STEPS": 12, "BATCH": 8, "WIDTH": 16, "LAYERS": 1, "HEADS": 2, "JOINT": 8}.items():
        monkeypatch.setattr(teacher, name, value)
    corpus = load_corpus("dev", 24, tmp_path, 1)
    one, tokenizer = teacher.train(corpus, 0)
    other, _ = teacher.train(corpus, 0)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert set(teacher.measure(one, tokenizer, corpus)) == {
        "patients", "top_10", "median_rank", "attention_inside", "ratio"
    }  # fmt: skip


@pytest.mark.parametrize(("name", "least"), [("embedded", 1.1), ("embedded2", 4.0)])
def test_the_shipped_teacher_looks_at_findings(name: str, least: float) -> None:
    """Held-out test patients: more of its attention on findings than their share of the image."""
    teacher_model = load_teacher(name)
    assert teacher_model.grid == (8, 8)
    ratios = []
    cases = [render(sample_case(patient), 64) for patient in range(2_500_000, 2_500_060)]
    scenes = [render_scene(scene, 64) for scene in sample_scenes("test", 60, rungs=(0, 1, 2))]
    for drawn in cases if name == "embedded" else scenes:
        if not drawn.masks:
            continue
        cover = torch.from_numpy(sum(drawn.masks) > 0).float().reshape(8, 8, 8, 8).mean((1, 3)).flatten()
        (look,) = teacher_model.encode([padded_square(drawn.image, teacher_model.fill)])
        ratios.append(float((look.attention / look.attention.sum() * cover).sum() / cover.mean()))
    assert len(ratios) > 20 and sum(ratios) / len(ratios) > least
