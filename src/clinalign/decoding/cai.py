"""Caption-sensitive attention intervention (arXiv 2506.23590).

Asked for a caption, a model looks more at the image than asked anything else. A calibration run over some images finds
the heads that show it most, by a linear probe on what they read from the image alone, and by how much each of them
moves; decoding adds that shift to the newest token's outputs of these heads.

The official release is not public and number of heads, strength and images are not known: the defaults are one head in
sixteen (64 of a 7B model's 1024) and a strength of 1. The probe is a ridge classifier; only the newest position is
shifted, also in the prefill. Report the yes-rate beside accuracy: part of the published gain is a smaller bias to yes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinalign.decoding.loop import DecodingSteps, PromptBatch, start
from clinalign.decoding.options import CAI
from clinalign.errors import UsageError
from clinalign.models import VLM
from clinalign.models.attention import Attention, AttentionRequest
from clinalign.models.fingerprint import hash_tensors
from clinalign.models.generate import advance, prefill
from clinalign.progress import track
from clinalign.storage.tensors import read_tensors, write_tensors

CAPTIONS = (
    "Describe the image.",
    "Describe this image in detail.",
    "What does the image show?",
)
RIDGE = 1.0


@dataclass
class Calibration:
    """heads [n, 2]: layer and head; shift [n, d]: caption minus other query; query: the caption query that was taken;
    accuracy [layers, H]: of each head's probe, cross-validated; model: what it was measured on."""

    heads: Tensor
    shift: Tensor
    accuracy: Tensor
    query: str
    model: str

    def save(self, file: Path) -> None:
        """Writes one safetensors file; a file that is there is replaced only by a whole one."""
        parts = {"heads": self.heads, "shift": self.shift, "accuracy": self.accuracy}
        write_tensors(file, parts, {"query": self.query, "model": self.model})

    @classmethod
    def load(cls, file: Path) -> Calibration:
        """Raises `UsageError` for a file that is missing or something else."""
        remedy = "make one with decoding.cai.calibrate(vlm, images, question).save(F)"
        parts, facts = read_tensors(file, "a calibration", remedy)
        try:
            return cls(parts["heads"], parts["shift"], parts["accuracy"], **facts)
        except (KeyError, TypeError) as error:
            raise UsageError(f"{file}: not a calibration ({error}); {remedy}") from error


@dataclass
class Shift:
    """The rule: what is added to the newest token's head outputs, by layer [H, d]."""

    by_layer: dict[int, Tensor]

    def __call__(self, attention: Attention) -> Tensor:
        out = attention.plain()
        if attention.layer not in self.by_layer:
            return out
        added = self.by_layer[attention.layer].to(out.device, out.dtype)
        return torch.cat([out[:, :-1], out[:, -1:] + added], dim=1)


def cai(batch: PromptBatch, options: CAI) -> DecodingSteps:
    """One branch; heads shifted at every step."""
    vlm = batch.vlm
    if not options.calibration:
        raise UsageError("decoder 'cai': no calibration; make one with decoding.cai.calibrate, and name its file")
    rule = Shift(shifts(vlm, Calibration.load(Path(options.calibration)), options.alpha))
    request = AttentionRequest(rule=rule)
    state = prefill(vlm, batch.ids, batch.features, batch.grids, request)
    while True:
        tokens = yield state.logits
        advance(vlm, state, tokens, request)


def shifts(vlm: VLM, calibration: Calibration, alpha: float) -> dict[int, Tensor]:
    """alpha times the shift, by layer [H, d]. Raises `UsageError` for a calibration of another model."""
    if calibration.model != identity(vlm):
        raise UsageError(f"{vlm.name}: the calibration is of another model; calibrate this one")
    heads = vlm.language_model.config.num_attention_heads
    found: dict[int, Tensor] = {}
    for (layer, head), vector in zip(calibration.heads.tolist(), calibration.shift, strict=True):
        found.setdefault(layer, torch.zeros(heads, len(vector)))[head] = alpha * vector
    return found


def identity(vlm: VLM) -> str:
    """A hash of the input embeddings: the same with and without an adapter, another for another base model."""
    config = vlm.language_model.config
    shape = f"{config.num_hidden_layers} {config.num_attention_heads}"
    return hash_tensors([("embeddings", vlm.language_model.get_input_embeddings().weight)], shape)


@torch.no_grad()
def calibrate(
    vlm: VLM,
    images: Sequence[np.ndarray],
    questions: Sequence[str],
    *,
    captions: Sequence[str] = CAPTIONS,
    share: float = 1 / 16,
    folds: int = 5,
    batch_size: int = 16,
) -> Calibration:
    """The heads and their shift, from images and one question (no request for a caption) to each.

    Of `captions` the one is taken that moves the outputs least. `share` of all heads are chosen, by the accuracy of a
    linear probe over `folds` parts of the images. Raises `UsageError` below two images a fold.
    """
    if len(images) < 2 * folds or len(images) != len(questions):
        raise UsageError(f"calibration needs {2 * folds} images or more and one question to each")
    plain, seen = _outputs(vlm, list(zip(questions, images, strict=True)), batch_size)
    asked = [_outputs(vlm, [(text, image) for image in images], batch_size) for text in captions]
    moved = torch.stack([(outputs - plain).norm(dim=-1).sum((1, 2)).sum() for outputs, _ in asked])
    best = int(moved.argmin())
    accuracy = probe_accuracy(asked[best][1], seen, folds)
    count = max(1, round(share * accuracy.numel()))
    # Equal accuracies are common; among them the head that moves most, relative to its size, comes first.
    shift = (asked[best][0] - plain).mean(0)
    relative = shift.norm(dim=-1) / plain.norm(dim=-1).mean(0).clamp(min=1e-9)
    order = sorted(range(accuracy.numel()), key=lambda i: (-float(accuracy.view(-1)[i]), -float(relative.view(-1)[i])))
    heads = torch.tensor([divmod(i, accuracy.shape[1]) for i in sorted(order[:count])])
    return Calibration(heads, shift[heads[:, 0], heads[:, 1]].contiguous(), accuracy, captions[best], identity(vlm))


@dataclass
class Watch:
    """A rule that changes nothing and keeps, of the newest token, the head outputs [B, H, d] of each layer: whole, and
    with all keys but the image's masked out."""

    images: Tensor
    whole: dict[int, Tensor]
    seen: dict[int, Tensor]

    def __call__(self, attention: Attention) -> Tensor:
        out = attention.plain()
        self.whole[attention.layer] = out[:, -1].float().cpu()
        scores = attention.scores(first=attention.query.shape[2] - 1)
        weights = scores.masked_fill(~self.images[:, None, None], -torch.inf).softmax(-1)
        self.seen[attention.layer] = attention.mixed(weights)[:, 0].float().cpu()
        return out


def _outputs(vlm: VLM, asked: Sequence[tuple[str, np.ndarray]], batch_size: int) -> tuple[Tensor, Tensor]:
    """Outputs [n, layers, H, d] of the last prompt token, whole and from the image alone."""
    parts: list[tuple[Tensor, Tensor]] = []
    for first in track(range(0, len(asked), batch_size), "calibration (batches)"):
        with vlm.evaluating():
            batch = start(vlm, [(text, [image]) for text, image in asked[first : first + batch_size]])
            rule = Watch(batch.images, {}, {})
            prefill(vlm, batch.ids, batch.features, batch.grids, AttentionRequest(rule=rule))
        parts.append((_stacked(rule.whole), _stacked(rule.seen)))
    whole, seen = zip(*parts, strict=True)
    return torch.cat(whole), torch.cat(seen)


def _stacked(by_layer: dict[int, Any]) -> Tensor:
    return torch.stack([by_layer[layer] for layer in sorted(by_layer)], dim=1)


def probe_accuracy(first: Tensor, second: Tensor, folds: int) -> Tensor:
    """How well a ridge classifier tells two sets of head outputs [n, layers, H, d] apart, cross-validated over images:
    [layers, H]."""
    n, layers, heads, width = first.shape
    data = torch.stack([first, second]).double().flatten(2, 3).permute(2, 1, 0, 3)
    labels = torch.tensor([1.0, -1.0], dtype=data.dtype)
    part = torch.arange(n) % folds
    right = torch.zeros(layers * heads, dtype=data.dtype)
    for fold in range(folds):
        train, test = data[:, part != fold], data[:, part == fold]
        mean = train.mean((1, 2), keepdim=True)
        scale = train.std((1, 2), keepdim=True).clamp(min=1e-9)
        x = ((train - mean) / scale).flatten(1, 2)
        y = labels.repeat(len(train[0]))
        gram = x.transpose(1, 2) @ x + RIDGE * torch.eye(width, dtype=x.dtype)
        weights = torch.linalg.solve(gram, (x * y[:, None]).sum(1))
        said = torch.einsum("hncd,hd->hnc", (test - mean) / scale, weights)
        right += ((said > 0) == (labels > 0)).double().sum((1, 2))
    return (right / (2 * n)).view(layers, heads).float()
