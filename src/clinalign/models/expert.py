"""A frozen image-text expert: how alike an image and a text are. Any teacher with a text encoder.

A text encoder has a window (77 tokens of most CLIPs) that a report does not fit, and one vector of a long text says
little of each statement in it: a report is compared sentence by sentence, and the cosines averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clinalign.errors import UsageError
from clinalign.models.teachers import ClipTeacher, load_teacher, padded_square, square_pixels


class Expert:
    """Image and text embeddings of unit length of a teacher's CLIP or SigLIP. `UsageError` without a text encoder."""

    def __init__(self, teacher: Any) -> None:
        self.teacher, self.model, self.tokenizer = teacher, teacher.model, teacher.tokenizer
        if self.tokenizer is None or not (hasattr(self.model, "get_text_features") or hasattr(self.model, "text")):
            raise UsageError(f"{teacher.name}: has no text encoder; name a whole CLIP or SigLIP as the expert")

    @torch.no_grad()
    def images(self, images: Sequence[np.ndarray]) -> Tensor:
        """Rows [n, D] of images uint8 [H, W, 3] or [H, W], each padded to a square."""
        of = self.teacher
        squares = [padded_square(image, of.fill) for image in images]
        pixels = square_pixels(squares, of.size, of.mean, of.std).to(next(self.model.parameters()).device)
        if isinstance(of, ClipTeacher):
            return _unit(self.model.get_image_features(pixel_values=pixels.to(self.model.dtype)))
        return _unit(self.model.encode_image(pixels))

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Rows [n, D] of texts, each cut at the encoder's window."""
        device = next(self.model.parameters()).device
        if isinstance(self.teacher, ClipTeacher):
            longest = self.model.config.text_config.max_position_embeddings
            given = self.tokenizer(
                list(texts), return_tensors="pt", padding=True, truncation=True, max_length=longest
            ).to(device)
            return _unit(self.model.get_text_features(**given))
        return _unit(self.model.encode_text(self.tokenizer(list(texts)).to(device)))


def _unit(found: Any) -> Tensor:
    rows: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return normalize(rows.float(), dim=-1).cpu()


def load_expert(name: str, *, device: torch.device | str = "cpu") -> Expert:
    """An expert by a teacher's name: "embedded", a folder or hub name, or "open_clip:NAME[:WEIGHTS]"."""
    return Expert(load_teacher(name, device=device))
