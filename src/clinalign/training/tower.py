"""Few-shot training of the vision tower with a classification head, the third strategy of "Why Text Prevails".

The tower's pooled features go through one linear layer; cross-entropy for classes, binary cross-entropy for labels that
do not exclude each other. The head is thrown away afterwards and the tower stays in the model: projector and language
model are not touched, to the byte (arXiv 2512.13747 gives neither k, learning rate nor head: defaults are ours).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from clinalign.errors import UsageError
from clinalign.models import VLM
from clinalign.models.geometry import as_rgb
from clinalign.records import Example


class TowerResult(NamedTuple):
    """`losses` by step, `accuracy` on the shots before and after, `head` as it ended (weight [K, D] and bias [K])."""

    losses: list[float]
    before: float
    after: float
    head: nn.Linear


def few_shot(examples: Sequence[Example], shots: int, *, held_out: Sequence[Example]) -> list[Example]:
    """`shots` examples a class (the answer), each of a patient of its own and none of a patient in `held_out`; the same
    for any order. Raises `UsageError` where a class has too few patients."""
    barred = {example.patient_id or example.id for example in held_out}
    by_class: dict[str, dict[str, Example]] = defaultdict(dict)
    taken: set[str] = set()
    for example in sorted(examples, key=lambda e: hashlib.sha256(e.id.encode()).hexdigest()):
        patient = example.patient_id or example.id
        chosen = by_class[example.answer]
        if patient not in barred | taken and len(chosen) < shots:
            chosen[patient] = example
            taken.add(patient)
    lacking = next((label for label, chosen in by_class.items() if len(chosen) < shots), None)
    if lacking is not None:
        raise UsageError(
            f"few shots: class '{lacking}' has {len(by_class[lacking])} patients apart from the test's, not {shots}"
        )
    return [example for label in sorted(by_class) for example in by_class[label].values()]


def tune_tower(
    vlm: VLM,
    images: Sequence[np.ndarray],
    labels: Tensor,
    *,
    steps: int = 100,
    lr: float = 1e-4,
    batch: int = 16,
    seed: int = 0,
) -> TowerResult:
    """Trains the tower and a new head on images (uint8 [H, W, 3]) and their labels: class numbers [n] or 0/1 [n, K].

    Only the tower's weights change. Raises `UsageError` for a model whose tower is not one module that takes pixels.
    """
    tower = getattr(getattr(vlm.model, "model", None), "vision_tower", None)
    if tower is None or vlm.family.normals is None:
        raise UsageError(f"{vlm.name}: needs a model with a vision tower of its own that takes pixel values")
    pixels = vlm.processor.image_processor(images=[as_rgb(image) for image in images], return_tensors="pt")[
        "pixel_values"
    ]
    several = labels.ndim == 2
    generator = torch.Generator().manual_seed(seed)
    wide = _pooled(vlm, tower, pixels[:1]).shape[-1]
    head = nn.Linear(wide, labels.shape[1] if several else int(labels.max()) + 1)
    with torch.no_grad():
        head.weight.normal_(0, 0.02, generator=generator)
        head.bias.zero_()
    head = head.to(vlm.device)
    frozen = {name: value.requires_grad for name, value in vlm.model.named_parameters()}
    vlm.model.requires_grad_(False)
    tower.requires_grad_(True)
    criterion: Any = nn.BCEWithLogitsLoss() if several else nn.CrossEntropyLoss()
    optimiser = torch.optim.AdamW([*tower.parameters(), *head.parameters()], lr=lr, weight_decay=0.0)
    before = _accuracy(vlm, tower, head, pixels, labels)
    losses: list[float] = []
    try:
        for _ in range(steps):
            rows = torch.randint(len(pixels), (min(batch, len(pixels)),), generator=generator)
            target = labels[rows].to(vlm.device)
            loss = criterion(head(_pooled(vlm, tower, pixels[rows])), target.float() if several else target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        after = _accuracy(vlm, tower, head, pixels, labels)
    finally:
        for name, value in vlm.model.named_parameters():
            value.requires_grad_(frozen[name])
            value.grad = None
    return TowerResult(losses, before, after, head)


def _pooled(vlm: VLM, tower: Any, pixels: Tensor) -> Tensor:
    """The mean of the tower's last states over its tokens, float32 [n, D]."""
    states: Tensor = tower(pixel_values=pixels.to(vlm.device, vlm.dtype)).last_hidden_state
    return states.float().mean(1)


@torch.no_grad()
def _accuracy(vlm: VLM, tower: Any, head: nn.Linear, pixels: Tensor, labels: Tensor) -> float:
    """Share of right labels."""
    scores = torch.cat([head(_pooled(vlm, tower, pixels[n : n + 16])).cpu() for n in range(0, len(pixels), 16)])
    right = (scores > 0).long() == labels if labels.ndim == 2 else scores.argmax(-1) == labels
    return float(right.float().mean())
