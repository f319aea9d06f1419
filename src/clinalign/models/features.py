"""Image features by image path, encoded once: in memory up to a limit, and on disk where a folder is given.

Encoder and projector are frozen, so an image's features are a constant of the model. Files are named by the hash of the
model's vision weights and of the image's pixels, never by the image's name.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from clinalign.models.fingerprint import configuration_hash, hash_tensors
from clinalign.models.vlm import VLM


class Features:
    """`get(keys)` gives features, `grid(key)` the token grid, `digest(key)` the pixels' hash; `read` loads an image."""

    def __init__(
        self, vlm: VLM, read: Callable[[str], np.ndarray], *, memory_mb: int = 1024, folder: Path | None = None
    ) -> None:
        self.vlm, self.read, self.limit = vlm, read, memory_mb * 2**20
        self.folder = folder
        self.memory: OrderedDict[str, Tensor] = OrderedDict()
        self.bytes = 0
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
        found: dict[str, Tensor] = {}
        missing: list[str] = []
        for key in dict.fromkeys(keys):
            value = self.memory.get(key)
            if value is None:
                value = self._from_disk(key)
            if value is None:
                missing.append(key)
            else:
                found[key] = value
        if missing:
            encoded = self.vlm.image_features([self.read(key) for key in missing])
            self.encoded += len(missing)
            found |= dict(zip(missing, encoded, strict=True))
            self._to_disk({key: found[key] for key in missing})
        for key, value in found.items():
            self._remember(key, value)
        return [found[key].to(self.vlm.device) for key in keys]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything a feature depends on besides the image: family, vision weights, type, image settings."""
        model = self.vlm.model
        text = {id(p) for p in [*self.vlm.language_model.parameters(), *self.vlm.head.parameters()]}
        vision = ((name, p) for name, p in model.named_parameters() if id(p) not in text)
        settings = f"{self.vlm.family} {self.vlm.dtype} {self.vlm.processor.image_processor.to_json_string()}"
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

    def _path(self, key: str) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / self.fingerprint[:16] / f"{self.digest(key)}.safetensors"

    def _from_disk(self, key: str) -> Tensor | None:
        path = self._path(key)
        return load_file(path)["features"] if path is not None and path.is_file() else None

    def _to_disk(self, values: dict[str, Tensor]) -> None:
        for key, value in values.items():
            path = self._path(key)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_suffix(".part")
                save_file({"features": value.contiguous().cpu()}, temporary)
                temporary.replace(path)
