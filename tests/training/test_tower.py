"""Few-shot training of the vision tower: it learns, and nothing but the tower changes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from tiny import tiny_llava

from clinalign.errors import UsageError
from clinalign.records import Example
from clinalign.training.tower import few_shot, tune_tower


def hashes(model: torch.nn.Module) -> dict[str, str]:
    return {
        name: hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        for name, value in model.state_dict().items()
    }


def pictures(n: int) -> tuple[list[np.ndarray], torch.Tensor]:
    """Bright or dark."""
    rng = np.random.default_rng(0)
    images, labels = [], []
    for k in range(n):
        image = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
        image += 150 * (k % 2)
        images.append(image)
        labels.append(k % 2)
    return images, torch.tensor(labels)


@pytest.mark.parametrize("several", [False, True])
def test_the_tower_learns_and_nothing_else_changes(several: bool) -> None:
    vlm = tiny_llava()
    before, trainable = hashes(vlm.model), {n: p.requires_grad for n, p in vlm.model.named_parameters()}
    images, labels = pictures(16)
    target = torch.stack([labels, 1 - labels], 1) if several else labels
    result = tune_tower(vlm, images, target, steps=60, lr=3e-3)
    after = hashes(vlm.model)
    changed = {name for name in before if before[name] != after[name]}
    assert changed and all("vision_tower" in name for name in changed)
    assert {name for name in before if "language_model" in name or "projector" in name}.isdisjoint(changed)
    assert result.losses[-1] < result.losses[0] / 10 and result.after == 1.0
    assert {n: p.requires_grad for n, p in vlm.model.named_parameters()} == trainable
    assert all(p.grad is None for p in vlm.model.parameters())


def test_shots_are_of_patients_of_their_own() -> None:
    pool = [Example(f"e{k}", [], "?", "ab"[k % 2], patient_id=f"p{k // 4}") for k in range(40)]
    test = pool[:8]
    shots = few_shot(pool, 3, held_out=test)
    assert [e.answer for e in shots] == ["a"] * 3 + ["b"] * 3
    patients = [e.patient_id for e in shots]
    assert len(set(patients)) == 6 and not set(patients) & {e.patient_id for e in test}
    assert few_shot(pool[::-1], 3, held_out=test) == shots
    with pytest.raises(UsageError, match="few shots"):
        few_shot(pool, 9, held_out=test)
