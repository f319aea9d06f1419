"""Image features by image path, encoded once: in memory up to a limit, and on disk where a folder is given.

Where encoder and projector are frozen, an image's features are a constant of the model; where one of them trains, they
are computed anew from what is still frozen. A record on disk is named by the
hash of the image's pixels, its store by the hash of the model's vision weights; never by the image's name.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinalign.models.adapter import frozen_tower
from clinalign.models.fingerprint import configuration_hash, hash_tensors
from clinalign.models.vlm import VLM
from clinalign.storage.tensors import TensorStore


class Features:
    """`get(keys)` gives features, `grid(key)` the token grid, `digest(key)` the pixels' hash; `read` loads an image."""

    def __init__(
        self, vlm: VLM, read: Callable[[str], np.ndarray], *, memory_mb: int = 1024, folder: Path | None = None
    ) -> None:
        self.vlm, self.read, self.limit = vlm, read, memory_mb * 2**20
        self.folder = folder
        self._store: TensorStore | None = None
        self.memory: OrderedDict[str, Tensor] = OrderedDict()
        self.towers: dict[str, Any] = {}
        self.bytes = 0
        self._version = vlm.image_version
        self.encoded = 0
        self._seen: dict[str, tuple[tuple[int, int], str]] = {}

    def grid(self, key: str) -> tuple[int, int]:
        """Rows and columns of the image's token grid."""
        return self._look(key)[0]

    def digest(self, key: str) -> str:
        """Hash of the image at the model's input resolution."""
        return self._look(key)[1]

    def get(self, keys: Sequence[str]) -> list[Tensor]:
        """Features [N_i, F] of the images, in order. What is not at hand is encoded together, each image once."""
        if self.vlm.images_train and torch.is_grad_enabled():
            return self._with_gradient(keys)
        if self.vlm.image_version != self._version:
            self.memory.clear()
            self.bytes, self._version = 0, self.vlm.image_version
        found: dict[str, Tensor] = {}
        missing: list[str] = []
        for key in dict.fromkeys(keys):
            value = self.memory.get(key)
            if value is None:
                value = self._stored(key)
            if value is None:
                missing.append(key)
            else:
                found[key] = value
        if missing:
            encoded = self.vlm.image_features([self.read(key) for key in missing])
            self.encoded += len(missing)
            found |= dict(zip(missing, encoded, strict=True))
            if self.store is not None:
                self.store.put({self.digest(key): {"features": found[key]} for key in missing})
        for key, value in found.items():
            self._remember(key, value)
        return [found[key].to(self.vlm.device) for key in keys]

    def _with_gradient(self, keys: Sequence[str]) -> list[Tensor]:
        """Features of parts that train: computed anew, kept only up to what is frozen. What a vision tower that is a
        module of its own makes of an image is kept, up to the limit of the memory; any other is run again."""
        tower = frozen_tower(self.vlm.model)
        found = {}
        for key in dict.fromkeys(keys):
            kept = remembered(tower, self.towers, self.digest(key)) if tower is not None else nullcontext()
            with kept:
                [found[key]] = self.vlm.image_features([self.read(key)], gradient=True)
        if sum(map(_bytes, self.towers.values())) > self.limit:
            self.towers.clear()
        return [found[key] for key in keys]

    @property
    def store(self) -> TensorStore | None:
        """Where features are kept on disk; opened when first needed, since the fingerprint reads all vision weights.
        There is none where a part that images go through trains, or has trained: under `adapter_off` it would lie."""
        if self.vlm.image_base:
            return None
        if self._store is None and self.folder is not None:
            self._store = TensorStore(self.folder / self.fingerprint[:16], {"weights": self.fingerprint}, "feature")
        return self._store

    def flush(self) -> None:
        """Writes what has been encoded and is not on disk yet."""
        if self._store is not None:
            self._store.flush()

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything a feature depends on besides the image: family, vision weights, type, image settings."""
        model = self.vlm.model
        text = {id(p) for p in [*self.vlm.language_model.parameters(), *self.vlm.head.parameters()]}
        vision = ((name, p) for name, p in model.named_parameters() if id(p) not in text)
        settings = f"{self.vlm.family.name} {self.vlm.dtype} {self.vlm.processor.image_processor.to_json_string()}"
        settings += configuration_hash(model.config)
        return hash_tensors(vision, settings)

    def _look(self, key: str) -> tuple[tuple[int, int], str]:
        if key not in self._seen:
            image = self.vlm.input_image(self.read(key))
            digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
            self._seen[key] = (self.vlm.image_grid(image), digest)
        return self._seen[key]

    def _remember(self, key: str, value: Tensor) -> None:
        if key in self.memory:
            self.memory.move_to_end(key)
            return
        self.memory[key] = value
        self.bytes += value.numel() * value.element_size()
        while self.bytes > self.limit and len(self.memory) > 1:
            _, old = self.memory.popitem(last=False)
            self.bytes -= old.numel() * old.element_size()

    def _stored(self, key: str) -> Tensor | None:
        record = self.store.get(self.digest(key)) if self.store is not None else None
        return None if record is None else record["features"]


@contextmanager
def remembered(tower: Any, known: dict[str, Any], key: str) -> Iterator[None]:
    """While open, what a frozen module gives is taken from `known` under a key, or computed and put there."""
    forward = tower.forward

    def once(*given: Any, **named: Any) -> Any:
        if key not in known:
            with torch.no_grad():
                known[key] = forward(*given, **named)
        return known[key]

    tower.forward = once
    try:
        yield
    finally:
        del tower.forward


def _bytes(value: Any) -> int:
    """Size of the tensors in a module's output."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(map(_bytes, inner))


def from_arrays(vlm: VLM, images: Iterable[Sequence[np.ndarray]]) -> tuple[Features, list[list[str]]]:
    """Features of images at hand, and the keys of each group of them; an array that comes twice is encoded once."""
    names: dict[int, str] = {}
    arrays: dict[str, np.ndarray] = {}
    groups: list[list[str]] = []
    for group in images:
        groups.append([names.setdefault(id(image), f"{len(names)}") for image in group])
        arrays |= zip(groups[-1], group, strict=True)
    return Features(vlm, arrays.__getitem__), groups
