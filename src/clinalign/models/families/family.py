"""What a model family has to provide. To support a new one, write these functions and name it in `FAMILIES`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Grid = tuple[int, int]


@dataclass(frozen=True)
class Family:
    """Plain functions; `processor` is the Hugging Face processor, `images` are uint8 [H, W, 3] arrays of any size.

    model_class: name of the class in transformers. axes: 1, or 3 where positions have three (M-RoPE).
    check(config) -> why this configuration cannot be used, or None.
    build_processor(image_processor, tokenizer, settings, config) -> the processor; settings are those of its own file.
    grid(processor, input_image) -> rows and columns of the image's token grid, given the image at input resolution.
    token_count(processor, grid) -> image tokens of one image (a class token may come on top of the grid).
    encode(model, processor, images) -> one [N, F] feature tensor an image. F is the text width, times (1 + K) where K
        further decoder layers receive features of their own (they stand side by side in the last axis).
    place(embeddings [B, L, D], where bool [B, L], features [M, F]) -> embeddings with the features put in, and further
        keyword arguments of the language model's forward.
    positions(ids, grids, image_token_id) -> [A, L] position ids of one sequence, A = axes.
    """

    model_class: str
    build_processor: Callable[[Any, Any, dict[str, Any], Any], Any]
    grid: Callable[[Any, np.ndarray], Grid]
    token_count: Callable[[Any, Grid], int]
    encode: Callable[[Any, Any, Sequence[np.ndarray]], list[Tensor]]
    place: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, dict[str, Any]]]
    positions: Callable[[Sequence[int], Sequence[Grid], int], Tensor]
    check: Callable[[Any], str | None]
    axes: int = 1


def put(embeddings: Tensor, where: Tensor, features: Tensor) -> Tensor:
    """Embeddings [B, L, D] with the rows chosen by `where` [B, L] replaced by `features` [M, D], in reading order."""
    return embeddings.masked_scatter(where[..., None], features.to(embeddings.device, embeddings.dtype))


def plain_positions(ids: Sequence[int], grids: Sequence[Grid], image_token_id: int) -> Tensor:
    """0, 1, 2, ... [1, L]."""
    return torch.arange(len(ids))[None]
