"""What a frozen teacher sees in each image, computed once and kept: its features (or their Gram matrix) and its map.

One record an image, named by the hash of the image's pixels, in a store named by the teacher and by the settings that
matter. A question-aware map is a record of its own beside it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinalign.models.teachers import PatchFeatures, TeacherModel, centre_square, padded_square
from clinalign.objectives.medalign import bilinear, centres, cosine_gram, gram_from_gram
from clinalign.progress import track
from clinalign.storage.tensors import Record, TensorStore
from clinalign.training.options import DistillOptions

VERSION = 1
MEMORY = 256 * 2**20
Grid = tuple[int, int]


@dataclass(frozen=True)
class Target:
    """What a student's image tokens learn: which of them [N] show any of the image, and for these V of them
    similarities [V, V] and a map [V], uniform where the teacher looks nowhere."""

    similarity: Tensor
    attention: Tensor
    valid: Tensor


class Teacher:
    """`prepare` looks at images; `target` gives what a student with some token rectangles learns of one.

    Without a `folder` everything is kept in memory alone. `read` loads an image by its key.
    """

    def __init__(
        self,
        teacher_model: TeacherModel,
        read: Callable[[str], np.ndarray],
        options: DistillOptions,
        folder: Path | None = None,
    ) -> None:
        self.model, self.read, self.options = teacher_model, read, options
        self.crop = options.crop or ("centre" if options.variant == "code" else "match_student")
        self.grid = teacher_model.grid
        self.folder = folder / "teacher" / self._fingerprint()[:16] if folder is not None else None
        made_with = {"teacher and settings": self._fingerprint()}
        self.store = TensorStore(self.folder, made_with, "teacher") if self.folder is not None else None
        self.kept: dict[str, Record] = {}
        self.targets: OrderedDict[Any, Target] = OrderedDict()
        self.bytes = self.looked = 0
        self._images: dict[str, tuple[str, Grid]] = {}
        self._resample: dict[Any, tuple[Tensor, Tensor]] = {}

    def prepare(self, wanted: Iterable[tuple[str, str]]) -> int:
        """Looks at the images of (key, question) pairs that are not kept yet, and returns how many those were."""
        missing: dict[str, tuple[str, str]] = {}
        for key, question in wanted:
            for name, text in self._records(key, question).items():
                if not self._is_kept(name):
                    missing.setdefault(name, (key, text))
        names = sorted(missing)
        starts = range(0, len(names), self.options.teacher_batch)
        for start in track(starts, "teacher", len(starts)) if names else []:
            self._look(names[start : start + self.options.teacher_batch], missing)
        if self.store is not None:
            self.store.flush()
        return len(names)

    def digests(self, keys: Iterable[str]) -> dict[str, str]:
        """Hash of every image by its key, at the resolution that the teacher is shown."""
        return {key: self._image(key)[0] for key in keys}

    def target(self, key: str, question: str, rects: np.ndarray, grid: Grid, device: torch.device) -> Target:
        """What a student learns of an image that it cuts into the rectangles `rects` [N, 4] (x, y, w, h, pixels)."""
        digest, shape = self._image(key)
        name = (digest, question if self.options.question_aware else "", rects.tobytes(), str(device))
        if name not in self.targets:
            resample, valid = self._registered(rects, shape, grid)
            values: Record = {}
            for record in self._records(key, question):
                values |= self._read(record)
            made = _target(values, resample, valid, device)
            self.targets[name] = made
            self.bytes += made.similarity.numel() * 4
            while self.bytes > MEMORY and len(self.targets) > 1:
                self.bytes -= self.targets.popitem(last=False)[1].similarity.numel() * 4
        self.targets.move_to_end(name)
        return self.targets[name]

    # Geometry

    def _registered(self, rects: np.ndarray, shape: Grid, grid: Grid) -> tuple[Tensor, Tensor]:
        """Weights [N, M] from the teacher's grid to the student's tokens, and which tokens [N] show any of the image.

        A token is read at its centre, or where it is larger than the teacher's patches at k x k points spread over it.
        """
        key = (rects.tobytes(), shape)
        if key not in self._resample:
            if self.crop == "centre":  # as published: cell upon cell, whatever part of the image either shows
                points, valid = centres(grid), torch.ones(len(rects), dtype=torch.bool)
            else:
                side = max(shape)
                x, y, w, h = torch.from_numpy(rects).double().unbind(1)
                left, top = (side - shape[1]) // 2, (side - shape[0]) // 2
                corner, size = torch.stack([y + top, x + left], dim=1) / side, torch.stack([h, w], dim=1) / side
                finer = math.ceil(float((size * torch.tensor(self.grid)).max()) - 1e-6)
                inner = centres((max(1, finer), max(1, finer)))
                points = corner[:, None] + size[:, None] * inner
                valid = (w > 0) & (h > 0)
            weights = bilinear(points.reshape(-1, 2), self.grid).unflatten(0, (len(rects), -1)).mean(1)
            self._resample[key] = (weights, valid)
        return self._resample[key]

    # Records

    def _fingerprint(self) -> str:
        settings = [VERSION, self.crop, self.options.store, self.options.normalise_first, self.model.fingerprint]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def _image(self, key: str) -> tuple[str, Grid]:
        if key not in self._images:
            image = self.read(key)
            digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
            self._images[key] = (digest, (image.shape[0], image.shape[1]))
        return self._images[key]

    def _records(self, key: str, question: str) -> dict[str, str]:
        """Names of an image's records, and the text that each depends on."""
        digest, _ = self._image(key)
        if not self.options.question_aware:
            return {digest: ""}
        return {digest: "", f"{digest}-{hashlib.sha256(question.encode()).hexdigest()[:16]}": question}

    def _is_kept(self, name: str) -> bool:
        return name in self.kept or (self.store is not None and name in self.store)

    def _read(self, name: str) -> Record:
        record = self.kept.get(name) or (self.store.get(name) if self.store is not None else None)
        if record is None:
            raise RuntimeError(f"the teacher has not looked at image {name}; call `prepare` first")
        return record

    def _look(self, names: Sequence[str], missing: dict[str, tuple[str, str]]) -> None:
        square = padded_square if self.crop == "match_student" else centre_square
        images = [square(self.read(missing[name][0]), self.model.fill) for name in names]
        texts = [missing[name][1] for name in names]
        plain, asked = ([i for i, text in enumerate(texts) if bool(text) == wish] for wish in (False, True))
        for i, look in zip(plain, self.model.encode([images[i] for i in plain]) if plain else []):
            self._keep(names[i], _stored(look, self.options.store, self.options.normalise_first))
        maps = self.model.relevance([images[i] for i in asked], [texts[i] for i in asked]) if asked else []
        for i, found in zip(asked, maps):
            self._keep(names[i], {"attention": found.float()})

    def _keep(self, name: str, values: dict[str, Tensor]) -> None:
        self.looked += 1
        if self.store is not None:
            self.store.put({name: values})
        else:
            self.kept[name] = {key: value.detach().cpu().contiguous() for key, value in values.items()}


def _stored(look: PatchFeatures, store: str, normalise_first: bool) -> dict[str, Tensor]:
    """fp16: the features [M, b], or the upper triangle of their Gram matrix, scaled so that its diagonal is <= 1."""
    features = look.features.float()
    if normalise_first:
        features = torch.nn.functional.normalize(features, dim=-1)
    count, width = features.shape
    features = features / features.norm(dim=-1).max().clamp(min=1e-12)
    if store == "features" or (store == "auto" and width < (count + 1) / 2):
        return {"features": features.half(), "attention": look.attention.float()}
    rows, columns = torch.triu_indices(count, count)
    return {"gram": (features @ features.t())[rows, columns].half(), "attention": look.attention.float()}


def _target(values: dict[str, Tensor], resample: Tensor, valid: Tensor, device: torch.device) -> Target:
    resample = resample[valid].to(device)
    if "gram" in values:
        count = resample.shape[1]
        rows, columns = torch.triu_indices(count, count, device=device)
        gram = torch.zeros(count, count, device=device)
        gram[rows, columns] = gram[columns, rows] = values["gram"].to(device).float()
        similarity = gram_from_gram(gram, resample)
    else:
        similarity = cosine_gram(resample @ values["features"].to(device).float())
    attention = (resample @ values["attention"].to(device)).clamp(min=0)
    return Target(similarity, attention if float(attention.sum()) > 0 else torch.ones_like(attention), valid)
