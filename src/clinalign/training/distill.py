"""MEDALIGN beside any method: two terms from the same packed forward, on the clean image and the chosen answer.

Nothing is run twice. The layer's input (after W) and the attention rows of a few queries are left behind by the forward
that the method needs anyway; every pair's terms are added to its own loss, so a pair weighs the same however a batch is
cut. A pair without an image, or whose prompt has no token after its image, has no terms; where no distilled token sees
a patch (a sliding window), there is no attention term.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinalign.errors import RowError, UsageError
from clinalign.imaging.images import read_image
from clinalign.models import VLM
from clinalign.models.attention import AttentionRequest, Probe
from clinalign.models.features import Features
from clinalign.models.generate import encode_prompts, prefill
from clinalign.models.image_projection import ImageProjection
from clinalign.models.teachers import load_teacher
from clinalign.objectives.medalign import NORMS, attention_loss, mean_attention, visual_loss
from clinalign.records import Example
from clinalign.storage import cache_folder
from clinalign.training.batches import PairBatch
from clinalign.training.encode import Sample
from clinalign.training.options import DistillOptions
from clinalign.training.teacher import Target, Teacher

IGNORED = -100


def query_rows(ids: Sequence[int], labels: Sequence[int], image_token_id: int, which: str = "prompt") -> list[int]:
    """Whose attention is distilled: positions of a sequence with `labels` (-100: not part of an answer).

    "prompt": all that are not part of an answer and come after the last image token; "last": the last of these before
    the first answer; "answer": those that predict a token of an answer. Empty without an image, or with nothing after.
    """
    images = [i for i, token in enumerate(ids) if token == image_token_id]
    if not images:
        return []
    after = range(images[-1] + 1, len(ids))
    if which == "answer":
        return [i for i in after if i + 1 < len(ids) and labels[i + 1] != IGNORED]
    prompt = [i for i in after if labels[i] == IGNORED]
    if which == "prompt":
        return prompt
    first = next((i for i in after if labels[i] != IGNORED), len(ids))
    return [i for i in prompt if i < first][-1:]


def default_layer(config: Any) -> int:
    """The layer at 5/8 of a language model's depth (20 of 32, as published), or the nearest one that sees the image.

    In a model whose layers take turns (Gemma 3), one with a sliding window may have lost the image by the time the
    prompt ends; the layers of full attention have not. Of two at the same distance the lower is taken.
    """
    count = config.num_hidden_layers
    kinds = getattr(config, "layer_types", None) or []
    full = [i for i, kind in enumerate(kinds) if kind == "full_attention"] or range(count)
    return min(full, key=lambda i: abs(i - min(count - 1, count * 5 // 8)))


@dataclass
class Part:
    """One image of one pair: its key, the columns of its patches, its row, the question and the columns that ask it."""

    pair: int
    key: str
    question: str
    row: int
    columns: Tensor
    queries: list[int]


@dataclass
class Captured:
    """What a forward leaves behind, and for whom: what it is asked for."""

    parts: list[Part]
    index: Tensor
    request: AttentionRequest


class Distill:
    """The two terms for pairs whose images `teacher` knows. `questions`: the text of each pair's prompt, by its id."""

    def __init__(
        self,
        vlm: VLM,
        features: Features,
        teacher: Teacher,
        options: DistillOptions,
        questions: Mapping[str, str],
    ) -> None:
        assert vlm.projection is not None, "attach an image projection first"
        self.vlm, self.features, self.teacher, self.options, self.questions = vlm, features, teacher, options, questions
        self.layers = vlm.projection.layers
        self.norm = options.norm or NORMS[options.variant]
        self._rects: dict[str, Any] = {}

    def capture(self, samples: Sequence[Sample], batch: PairBatch) -> Captured | None:
        """What to look at in the forward of a batch; None where no pair has anything to look at."""
        parts = [part for pair, sample in enumerate(samples) for part in self._parts(pair, sample, batch)]
        if not parts:
            return None
        ids = batch.trees.ids
        wanted: list[set[int]] = [set() for _ in ids]
        for part in parts:
            wanted[part.row].update(part.queries)
        longest = max(map(len, wanted))
        queries = torch.zeros(len(ids), longest, dtype=torch.long)
        index = torch.full(ids.shape, -1)
        for row, columns in enumerate(wanted):
            queries[row, : len(columns)] = torch.tensor(sorted(columns), dtype=torch.long)
            index[row, sorted(columns)] = torch.arange(len(columns))
        probe = Probe(queries.to(self.vlm.device), layers=self.layers, log=True) if self.options.beta else None
        return Captured(parts, index, AttentionRequest(probe=probe, inputs={} if self.options.alpha else None))

    def terms(self, captured: Captured | None, pairs: int) -> dict[str, Tensor]:
        """LossTerms "vis" and "att" [pairs] at the weights they enter with; NaN where there is none, or no weight."""
        nan = torch.full((pairs,), torch.nan, device=self.vlm.device)
        if captured is None:
            return {"vis": nan, "att": nan}
        inputs = captured.request.inputs or {}
        shared: dict[tuple[int, int, int], Tensor] = {}
        found: dict[str, list[list[Tensor]]] = {name: [[] for _ in range(pairs)] for name in ("vis", "att")}
        for part in captured.parts:
            target = self._target(part)
            columns = part.columns[target.valid]
            for layer in self.layers:
                key = (layer, part.row, int(part.columns[0]))
                if self.options.alpha and key not in shared:  # pairs of one row share their image tokens
                    shared[key] = self._similarity(inputs[layer][part.row, columns], target)
                if self.options.alpha:
                    found["vis"][part.pair].append(self.options.alpha * shared[key])
                if self.options.beta:
                    rows = self._rows(captured, layer)[part.row][:, captured.index[part.row, part.queries]][
                        ..., columns
                    ]
                    if bool((rows > -torch.inf).any()):  # a window may leave no patch in sight: nothing to teach
                        found["att"][part.pair].append(self.options.beta * self._attention(rows, target))
        return {
            name: torch.stack([torch.stack(v).mean() if v else nan[0] for v in values])
            for name, values in found.items()
        }

    def _similarity(self, tokens: Tensor, target: Target) -> Tensor:
        with torch.autocast(tokens.device.type, enabled=False):
            return visual_loss(tokens, target.similarity, diagonal=self.options.diagonal)

    def _rows(self, captured: Captured, layer: int) -> Tensor:
        rows = captured.request.probe.get(layer) if captured.request.probe is not None else None
        if rows is None or (torch.is_grad_enabled() and self.vlm.language_model.training and not rows.requires_grad):
            raise UsageError("distill: the attention of the layer carries no gradient; use non-reentrant checkpointing")
        return rows

    def _attention(self, log_rows: Tensor, target: Target) -> Tensor:
        norm, temperature = self.norm, self.options.temperature
        return attention_loss(mean_attention(log_rows), target.attention, norm=norm, temperature=temperature)

    def _parts(self, pair: int, sample: Sample, batch: PairBatch) -> list[Part]:
        """The images of one pair with their patches' columns; none where nobody looks at them."""
        row, prompt = batch.layouts[pair].tree, sample.prompt
        start = batch.trees.start[row]
        if self.options.rows == "answer":
            queries = batch.predicting(pair) if self.vlm.image_token_id in prompt else []
        else:
            local = query_rows(prompt, [IGNORED] * len(prompt), self.vlm.image_token_id, self.options.rows)
            queries = [start + i for i in local]
        if not queries:
            return []
        at = [start + i for i, token in enumerate(prompt) if token == self.vlm.image_token_id]
        question, parts = self.questions.get(sample.id, ""), []
        for key, grid in zip(sample.images, sample.grids, strict=True):
            count = self.vlm.family.token_count(self.vlm.processor, grid)
            patches = at[count - grid[0] * grid[1] : count]  # a class token, where there is one, stands first
            at = at[count:]
            parts.append(Part(pair, key, question, row, torch.tensor(patches), queries))
        return parts

    def _target(self, part: Part) -> Target:
        if part.key not in self._rects:
            image = self.features.read(part.key)
            grid = self.vlm.image_grid(image)
            self._rects[part.key] = (self.vlm.image_token_rects(image)[-grid[0] * grid[1] :], grid)
        rects, grid = self._rects[part.key]
        return self.teacher.target(part.key, part.question, rects, grid, self.vlm.device)


def new_projection(vlm: VLM, options: DistillOptions, seed: int) -> ImageProjection:
    """A fresh W for the chosen layers. A layer that the model does not have is a `UsageError`."""
    count, width = len(vlm.language_model.layers), vlm.head.weight.shape[1]
    layers = options.layers or [default_layer(vlm.language_model.config)]
    if min(layers) < 0 or max(layers) >= count:
        raise UsageError(f"align.distill.layers: {layers}, but the model has layers 0 to {count - 1}")
    return ImageProjection(width, layers, rank=options.rank, epsilon=options.epsilon, seed=seed)


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
            teacher_map = np.zeros(len(rects))
            teacher_map[target.valid.numpy()] = target.attention.numpy()
            mass, student = float(student.sum()), student * target.valid.numpy()
            found[example.id] = Maps(rects, grid, student / student.sum(), teacher_map / teacher_map.sum(), mass)
    return found


def _readable(vlm: VLM, example: Example, folder: Path) -> bool:
    """Whether the model can be asked; why it cannot be is the evaluation's to report."""
    try:
        vlm.prompt_ids(example.prompt, [read_image(folder / key) for key in example.images])
    except RowError:
        return False
    return True


@torch.no_grad()
def _student(vlm: VLM, examples: Sequence[Example], folder: Path, layer: int, which: str) -> list[Any]:
    """Attention [N] to the grid tokens of the first image, its grid and the image, for each example."""
    shown = [[read_image(folder / key) for key in example.images] for example in examples]
    asked = [(example.prompt, images) for example, images in zip(examples, shown, strict=True)]
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
