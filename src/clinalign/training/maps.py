"""Where a model's layer looks, and where its teacher does, on the same image tokens: what distillation is to change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clinalign.errors import RowError
from clinalign.imaging.images import read_image
from clinalign.models import VLM
from clinalign.models.attention import AttentionRequest, Probe
from clinalign.models.generate import encode_prompts, prefill
from clinalign.models.teachers import load_teacher
from clinalign.objectives.medalign import mean_attention
from clinalign.records import Example
from clinalign.storage import cache_folder
from clinalign.training.distill import IGNORED, default_layer, query_rows
from clinalign.training.options import DistillOptions
from clinalign.training.teacher import Teacher


@dataclass(frozen=True)
class Maps:
    """Of an example's first image: token rectangles [N, 4] (source pixels), their grid, and two maps [N] of sum 1.

    Tokens that show nothing of the image have share 0 in both. `mass` is the attention the whole image gets.
    """

    rects: np.ndarray
    grid: tuple[int, int]
    student: np.ndarray
    teacher: np.ndarray
    mass: float


def attention_maps(
    vlm: VLM, examples: Sequence[Example], folder: Path, options: DistillOptions, *, cache: str = "", batch: int = 16
) -> dict[str, Maps]:
    """Maps by example id, for examples with an image, at the first layer of `options` (mean over heads and rows)."""
    pictured = [example for example in examples if example.images and _readable(vlm, example, folder)]
    teacher_model = load_teacher(options.teacher, device=vlm.device)
    teacher = Teacher(teacher_model, lambda key: read_image(folder / key), options, cache_folder(cache))
    teacher.prepare([(example.images[0], example.question) for example in pictured])
    layer = options.layers[0] if options.layers else default_layer(vlm.language_model.config)
    found: dict[str, Maps] = {}
    for start in range(0, len(pictured), batch):
        part = pictured[start : start + batch]
        for example, (student, grid, image) in zip(part, _student(vlm, part, folder, layer, options.rows), strict=True):
            rects = vlm.image_token_rects(image)[-grid[0] * grid[1] :]
            target = teacher.target(example.images[0], example.question, rects, grid, torch.device("cpu"))
            taught = np.zeros(len(rects))
            taught[target.valid.numpy()] = target.attention.numpy()
            mass, student = float(student.sum()), student * target.valid.numpy()
            found[example.id] = Maps(rects, grid, student / student.sum(), taught / taught.sum(), mass)
    return found


def _readable(vlm: VLM, example: Example, folder: Path) -> bool:
    """Whether the model can be asked; why it cannot be is the evaluation's to report."""
    try:
        vlm.prompt_ids(example.question, [read_image(folder / key) for key in example.images])
    except RowError:
        return False
    return True


@torch.no_grad()
def _student(vlm: VLM, examples: Sequence[Example], folder: Path, layer: int, which: str) -> list[Any]:
    """Attention [N] to the grid tokens of the first image, its grid and the image, for each example."""
    shown = [[read_image(folder / key) for key in example.images] for example in examples]
    asked = [(example.question, images) for example, images in zip(examples, shown, strict=True)]
    ids, features, grids = encode_prompts(vlm, asked)
    longest = max(map(len, ids))
    kind = "last" if which == "answer" else which  # before an answer, its first token is what looks
    local = [query_rows(row, [IGNORED] * len(row), vlm.image_token_id, kind) for row in ids]
    queries = torch.zeros(len(ids), max(map(len, local)), dtype=torch.long)
    for i, row in enumerate(local):
        queries[i, : len(row)] = torch.tensor(row) + longest - len(ids[i])
    probe = Probe(queries, layers=[layer])
    prefill(vlm, ids, features, grids, AttentionRequest(probe=probe))
    found = []
    for i, row in enumerate(ids):
        at = np.flatnonzero(np.array(row) == vlm.image_token_id)[: len(features[i][0])]
        grid = grids[i][0]
        at = at[len(at) - grid[0] * grid[1] :] + longest - len(row)
        mean = mean_attention(probe[layer][i, :, : len(local[i])].log()[..., at]).exp()
        found.append((mean.double().cpu().numpy(), grid, shown[i][0]))
    return found
